"""Retention: what is finished goes by age and by the disk's fill, what is unfinished stays, and the history of what went stays too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node.clock import duties
from pacs_node.config import Settings
from pacs_node.database import removal
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, AuditRow, DeliveryRow, InstanceRow, JobRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.journey import operate
from pacs_node.journey.receive import receive
from pacs_node.journey.reconcile import catch_up
from pacs_node.journey.retire import retire
from pacs_node.reception.pressure import Disk
from pacs_node.retention.sweep import Swept, pinned
from pacs_node.workbench import tables
from pacs_node.workbench.explain import explain_past
from tests.journey.retired import FULL, MARKS, NOBODY_ANSWERS, ROOM, alerts, files, look, row_of, rows, whats
from tests.journey.support import Town, ct_slice, ct_study

Make = Callable[..., Town]


@pytest.fixture
def town(make_town: Make) -> Town:
    """A house with one study of six instances that has gone all the way, on a disk with room."""
    built = make_town(**MARKS)
    built.house.measure = lambda folder: ROOM
    built.send(ct_study(6))
    built.settle()
    assert len(files(built, "studies")) == 6 and files(built, "results") and built.results()
    return built


# --- by age ------------------------------------------------------------------------------------------------------------------


def test_a_finished_study_goes_at_its_age_and_not_before(town: Town) -> None:
    assert look(town, days=13, hours=23) == Swept()
    assert look(town, hours=2).files == 6 + 1
    assert not files(town, "studies") and not files(town, "results")
    assert not (town.house.data / "studies/0000/1").exists()
    assert town.results(), "what was delivered to a folder is not ours to remove"
    assert look(town, days=400) == Swept()


def test_the_rows_stay_and_say_when_and_why(town: Town) -> None:
    look(town, days=15)
    study, job = row_of(town, StudyRow), row_of(town, JobRow)
    assert study.state is StudyState.COMPLETE and study.removed_at == town.clock and "14d" in study.removed_reason
    assert job.state is JobState.DONE and job.finding["score"] == 1.5 and job.removed_at == town.clock
    assert all(row.removed_at == town.clock and len(row.fingerprint) == 64 for row in rows(town, InstanceRow))
    assert {row.action for row in rows(town, AuditRow)} >= {"retired"}
    page = tables.job_page(town.settings, 1)
    assert page["facts"]["score"] == 1.5 and "6 received files were removed" in page["facts"]["files"] and "results were removed" in page["facts"]["files"]
    (shown,) = tables.status_tables(town.settings)["studies"]
    assert shown["removed"] and shown["instances"] == 6 and "14d" in shown["removed_reason"]


def test_explain_says_that_the_files_are_gone(town: Town) -> None:
    look(town, days=15)
    (town.folder / "rules.yaml").write_text("rules: [{name: tell, when: {Modality: CT}, pipeline: null, results: [notice], send_to: [research]}]")
    (explained,) = explain_past(town.settings, "30d")
    assert "6 of its files are gone" in explained.title and "14d" in explained.title
    assert alerts(town, "file") == []


def test_fsck_and_the_start_miss_nothing_of_a_tombstone(town: Town) -> None:
    look(town, days=15)
    town.restart()
    assert catch_up(town.house) == 0
    assert whats(town) == []


def test_a_job_without_its_files_is_not_run_again(town: Town) -> None:
    look(town, days=15)
    with pytest.raises(InputError, match=r"6 files of its series were removed \(the study is finished, for longer than 14d\)\. Have study 1 sent again"):
        operate.retry_job(town.house.store, 1, town.clock)
    assert row_of(town, JobRow).state is JobState.DONE


def test_originals_that_no_rule_wanted_have_an_age_of_their_own(make_town: Make) -> None:
    town = make_town(reception={"reserve": "0B"}, retention={"unrouted": "2d"})
    town.house.measure = lambda folder: ROOM
    town.send([*ct_study(2), *ct_study(2, study="B", patient="P2", BodyPartExamined="LEG")])
    town.settle()
    assert look(town, days=3).files == 2
    assert len(files(town, "studies/0000/1")) == 2 and not files(town, "studies/0000/2")


def test_ages_are_counted_from_the_end_of_the_last_run(town: Town) -> None:
    town.wait(days=13)
    operate.retry_job(town.house.store, 1, town.clock)
    town.work()
    town.post()
    assert look(town, days=2) == Swept()
    assert look(town, days=13).files > 6


# --- what is unfinished stays --------------------------------------------------------------------------------------------------


def test_a_queued_job_keeps_its_originals_however_old(town: Town) -> None:
    operate.retry_job(town.house.store, 1, town.clock)
    town.house.measure = lambda folder: FULL
    assert len(files(town, "studies")) == 6
    look(town, days=400)
    assert len(files(town, "studies")) == 6
    with town.house.store.read() as session:
        assert removal.needed_by(session, 1) == ("a job that goes on",)


def test_a_study_that_gathers_stays(make_town: Make) -> None:
    town = make_town(**MARKS)
    town.house.measure = lambda folder: FULL
    town.send(ct_study(3))
    while_gathering(town)
    assert look(town, days=100) == Swept()
    assert len(files(town, "studies")) == 3


def while_gathering(town: Town) -> None:
    while receive(town.house, town.clock):
        pass


FORWARDING = """
rules:
  - name: pass on
    when: {Modality: CT}
    pipeline: null
    results: []
    forward: [research]
"""


def test_originals_that_are_to_be_forwarded_stay_until_they_are(make_town: Make) -> None:
    town = make_town(**{**MARKS, "rules": FORWARDING, "destinations": {"research": NOBODY_ANSWERS}})
    town.house.measure = lambda folder: FULL
    town.send(ct_study(6))
    town.settle()
    assert {row.state for row in rows(town, DeliveryRow)} == {DeliveryState.WAITING}
    with town.house.store.read() as session:
        assert removal.needed_by(session, 1) == ("forwarding",)
    assert look(town, days=400) == Swept()
    with town.house.store.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            row.state = DeliveryState.REFUSED
    assert look(town, days=400) == Swept()
    assert "the received files of study 1 will be removed" in alerts(town, "retention")[0]
    assert look(town, days=2).files == 6
    assert {row.state for row in rows(town, DeliveryRow)} == {DeliveryState.CANCELLED}
    with pytest.raises(InputError, match="its file has been removed"):
        operate.retry_delivery(town.house.store, 1, town.clock)


def test_originals_that_were_forwarded_may_go_and_are_not_forwarded_again_when_they_come_again(make_town: Make) -> None:
    town = make_town(**{**MARKS, "rules": FORWARDING})
    town.house.measure = lambda folder: ROOM
    town.send(ct_study(6))
    town.settle()
    assert look(town, days=15).files == 6
    town.send(ct_study(6))
    town.settle()
    assert len(rows(town, DeliveryRow)) == 6 and {row.state for row in rows(town, DeliveryRow)} == {DeliveryState.DELIVERED}


def test_results_for_a_dead_archive_stay_and_do_not_keep_the_originals(make_town: Make) -> None:
    town = make_town(**MARKS, destinations={"research": NOBODY_ANSWERS})
    town.house.measure = lambda folder: ROOM
    town.send(ct_study(6))
    town.settle()
    assert {row.state for row in rows(town, DeliveryRow)} == {DeliveryState.WAITING}
    assert look(town, days=15).files == 6
    assert files(town, "results") and not files(town, "studies")
    assert look(town, days=500) == Swept()


def test_refused_results_go_after_their_longer_age_and_only_after_it_was_said(make_town: Make) -> None:
    town = make_town(**MARKS, destinations={"research": NOBODY_ANSWERS})
    town.house.measure = lambda folder: ROOM
    town.send(ct_study(6))
    town.settle()
    with town.house.store.write() as session:
        for row in session.scalars(select(DeliveryRow)):
            row.state = DeliveryState.REFUSED
    look(town, days=80)
    assert alerts(town, "retention") == [] and files(town, "results")
    look(town, days=4)
    (message,) = alerts(town, "retention")
    assert "undelivered results of job 1 will be removed" in message
    look(town, days=5)
    assert files(town, "results")
    look(town, days=2)
    assert not files(town, "results") and alerts(town, "retention") == []
    assert {row.state for row in rows(town, DeliveryRow)} == {DeliveryState.CANCELLED}
    with pytest.raises(InputError, match="its file has been removed"):
        operate.retry_delivery(town.house.store, 1, town.clock)


def test_a_parked_job_keeps_its_originals_for_a_longer_age_and_an_alert_goes_before(town: Town) -> None:
    park(town)
    town.house.measure = lambda folder: FULL  # pressure takes none of it
    look(town, days=82)
    assert len(files(town, "studies")) == 6 and alerts(town, "retention") == []
    look(town, days=2)
    assert "the received files of study 1 will be removed" in alerts(town, "retention")[0]
    look(town, days=7)
    assert not files(town, "studies") and alerts(town, "retention") == []
    job = row_of(town, JobRow)
    assert job.state is JobState.CANCELLED and job.reason.startswith("broken; then its files were removed")
    assert alerts(town, "parked") == []
    with pytest.raises(InputError, match="sent again"):
        operate.retry_job(town.house.store, 1, town.clock)
    assert operate.retry_parked(town.house.store, town.clock).startswith("0 jobs")


def park(town: Town) -> None:
    with town.house.store.write() as session:
        job = session.get_one(JobRow, 1)
        job.state, job.told, job.reason = JobState.PARKED, True, "broken"


def test_the_warning_is_taken_back_when_somebody_mends_it(town: Town) -> None:
    park(town)
    look(town, days=85)
    assert alerts(town, "retention")
    operate.retry_job(town.house.store, 1, town.clock)
    look(town, days=1)
    assert alerts(town, "retention") == []


def test_a_node_that_was_off_for_a_year_says_it_before_it_removes_anything_that_could_be_mended(town: Town) -> None:
    park(town)
    look(town, days=365)
    assert len(files(town, "studies")) == 6 and alerts(town, "retention")
    look(town, hours=23)
    assert len(files(town, "studies")) == 6
    look(town, hours=2)
    assert not files(town, "studies")


def test_a_held_study_goes_after_its_own_age_and_cannot_be_freed_then(make_town: Make) -> None:
    town = make_town(**MARKS)
    town.house.measure = lambda folder: FULL
    town.send([ct_slice(0), ct_slice(1, patient="P2")])
    town.settle()
    assert row_of(town, StudyRow).state is StudyState.HELD
    look(town, days=84)
    assert len(files(town, "studies")) == 2 and alerts(town, "retention")
    look(town, days=7)
    assert not files(town, "studies") and alerts(town, "held") == []
    with pytest.raises(InputError, match="cannot be freed: its files were removed"):
        operate.release(town.house.store, 1, town.clock)


def test_what_is_kept_aside_and_in_quarantine_has_ages_of_its_own(make_town: Make) -> None:
    town = make_town(reception={"reserve": "0B"}, retention={"aside": "20d", "quarantine": "30d"})
    town.house.measure = lambda folder: FULL
    town.send(ct_study(2))
    town.send([ct_slice(0, PixelData=bytes(512)), ct_slice(1, patient="P9")])  # a conflict, a correction of one
    town.gather()
    town.house.spool.quarantine_folder.joinpath("a.dcm").write_bytes(b"no object")
    town.house.spool.quarantine_folder.joinpath("a.json").write_text("{}")
    town.gather()
    assert sorted(row.kind for row in rows(town, AsideRow)) == ["conflict", "quarantine", "superseded"]
    look(town, days=19)
    assert files(town, "aside") and files(town, "quarantine")
    look(town, days=2)
    assert not files(town, "aside") and files(town, "quarantine") and alerts(town, "conflict") == [] and alerts(town, "quarantine")
    assert [path.name for path in files(town, "studies")] == ["1.1.dcm", "2.2.dcm"]
    look(town, days=10)
    assert not list(town.house.spool.quarantine_folder.iterdir()) and alerts(town, "quarantine") == []
    assert tables.status_tables(town.settings)["aside"] == []
    town.gather()
    assert whats(town) == []


# --- by the disk's fill -----------------------------------------------------------------------------------------------------------


class FillingDisk:
    """A disk that is as full as studies lie on it: room as soon as no more than so many files are left."""

    def __init__(self, town: Town, enough: int) -> None:
        self._town, self._enough = town, enough

    def __call__(self, folder: Path) -> Disk:
        return FULL if len(files(self._town, "studies")) + len(files(self._town, "results")) > self._enough else ROOM


def several(town: Town, names: Sequence[str]) -> None:
    for name in names:
        town.send(ct_study(6, study=name, patient=name))
        town.settle()
        town.wait(minutes=1)


def test_a_full_disk_takes_the_oldest_finished_studies_until_there_is_room(make_town: Make) -> None:
    town = make_town(**MARKS)
    several(town, "ABCD")
    town.house.measure = FillingDisk(town, 14)
    town.wait(minutes=10)
    retire(town.house, town.clock)
    left = sorted(path.parent.name for path in files(town, "studies"))
    assert left == ["3"] * 6 + ["4"] * 6 and not files(town, "results")  # results are smaller and delivered: they go first
    study = row_of(town, StudyRow)
    assert "the disk was filled up to retention.high_watermark" in study.removed_reason


def test_a_full_disk_takes_nothing_that_has_just_been_finished(make_town: Make) -> None:
    town = make_town(**MARKS)
    town.house.measure = lambda folder: FULL
    several(town, "A")
    assert look(town, minutes=8) == Swept()
    assert look(town, minutes=2).files == 7


def test_a_full_disk_leaves_the_unfinished_and_takes_what_is_younger(make_town: Make) -> None:
    town = make_town(**MARKS)
    several(town, "ABC")
    park(town)
    town.house.measure = lambda folder: FULL
    look(town, minutes=20)
    assert {path.parent.name for path in files(town, "studies")} == {"1"}


def test_a_look_that_ends_early_is_gone_on_with_at_the_next(make_town: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    town = make_town(**MARKS)
    town.house.measure = lambda folder: ROOM
    several(town, "ABC")
    town.wait(days=15)
    monkeypatch.setattr("pacs_node.journey.retire._SECONDS", 0.0)
    for _ in range(12):
        retire(town.house, town.clock)
    assert not files(town, "studies")


def test_looking_after_the_disk_is_a_duty_of_the_core(town: Town) -> None:
    town.wait(days=15)
    (duty,) = [duty for duty in duties(town.house) if duty.name == "retire"]
    assert duty.every <= timedelta(minutes=10)
    duty.run(town.house)
    assert not files(town, "studies")


# --- while a backup copies ------------------------------------------------------------------------------------------------------


def test_nothing_goes_while_a_backup_holds_the_files(town: Town) -> None:
    town.wait(days=15)
    with pinned(town.house.data):
        assert retire(town.house, town.clock) == Swept()
    assert retire(town.house, town.clock).files == 7


def test_a_disk_about_to_refuse_new_instances_comes_before_a_backup(make_town: Make) -> None:
    town = make_town(**{**MARKS, "reception": {"reserve": "50%"}, "retention": {"high_watermark": "40%"}})
    several(town, "A")
    town.wait(minutes=10)
    with pinned(town.house.data):
        town.house.measure = lambda folder: Disk(free=650, capacity=1000)  # above the watermark only
        assert retire(town.house, town.clock) == Swept()
        town.house.measure = lambda folder: Disk(free=510, capacity=1000)
        assert retire(town.house, town.clock).files == 7


def test_the_retention_section_is_what_the_readme_says() -> None:
    retention = Settings().retention
    assert (retention.keep, retention.unrouted) == (timedelta(days=14), None)
    assert {retention.held, retention.parked, retention.undelivered, retention.aside, retention.quarantine} == {timedelta(days=90)}
