"""What comes again after retention removed it, and removals that were interrupted: nothing is lost, nothing is analysed twice unsaid."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from pacs_node import crash
from pacs_node.assembly import grouping
from pacs_node.database import studies
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AsideRow, InstanceRow, JobRow, RemovalRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.journey import index as indexing
from pacs_node.journey import operate
from pacs_node.journey.receive import receive
from pacs_node.journey.reconcile import catch_up
from pacs_node.journey.retire import retire
from pacs_node.workbench.fsck import examine
from tests.journey.retired import MARKS, ROOM, alerts, files, look, row_of, rows, whats
from tests.journey.support import Town, ct_slice, ct_study
from tests.journey.test_rejected import rejection

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


# --- what comes again --------------------------------------------------------------------------------------------------------------


def test_the_same_study_sent_again_is_here_again_and_makes_no_new_job(town: Town) -> None:
    look(town, days=15)
    town.send(ct_study(6))
    town.settle()
    assert len(files(town, "studies")) == 6 and len(rows(town, InstanceRow)) == 6
    assert [job.state for job in rows(town, JobRow)] == [JobState.DONE] and town.engine.calls == ["ct-test"]
    study = row_of(town, StudyRow)
    assert study.state is StudyState.COMPLETE and study.removed_at is None and study.outcome == "ct-test: job 1"
    assert whats(town) == []
    assert "queued again" in operate.retry_job(town.house.store, 1, town.clock)
    town.work()
    town.post()
    assert town.engine.calls == ["ct-test", "ct-test"]
    assert look(town, days=15).files == 7  # and it grows old like any other


def test_a_part_of_the_same_study_sent_again_is_kept_and_makes_no_new_job(town: Town) -> None:
    look(town, days=15)
    town.send(ct_study(6)[:2])
    town.settle()
    assert len(files(town, "studies")) == 2 and town.engine.calls == ["ct-test"]
    with pytest.raises(InputError, match="4 files of its series were removed"):
        operate.retry_job(town.house.store, 1, town.clock)


def test_a_late_instance_of_a_retired_study_is_analysed_alone_and_called_partial(town: Town) -> None:
    look(town, days=15)
    town.send([ct_slice(6), ct_slice(7)])
    town.settle()
    first, late = rows(town, JobRow)
    assert first.state is JobState.DONE and late.state is JobState.DONE
    assert late.partial and "6 of its 8 instances are not looked at" in late.complete_reason and late.predecessor_id == first.id
    assert "queued again" in operate.retry_job(town.house.store, late.id, town.clock), "what it looked at is all there"
    town.work()
    town.send(ct_study(6))
    town.settle()
    whole = rows(town, JobRow)[-1]
    assert whole.id == 3 and not whole.partial, "with the rest of it the study is whole, and analysed as such"


def test_an_instance_that_comes_again_with_other_bytes_is_another_version(town: Town) -> None:
    look(town, days=15)
    changed = ct_study(6)
    changed[0].PixelData = bytes(512)
    town.send(changed)
    town.settle()
    assert [row.version for row in rows(town, InstanceRow)] == [2, 1, 1, 1, 1, 1]
    _, again = rows(town, JobRow)
    assert again.predecessor_id == 1 and not again.partial and town.engine.calls == ["ct-test", "ct-test"]


def test_a_retired_study_that_comes_again_under_another_patient_is_said_and_analysed_again(town: Town) -> None:
    look(town, days=15)
    town.send(ct_study(6, patient="P2"))
    town.settle()
    assert any("delivered under a patient identity that has been corrected" in message for message in alerts(town, "identity"))
    assert town.engine.calls == ["ct-test", "ct-test"]
    assert {str(result.PatientID) for result in town.results()} == {"P1", "P2"}


def test_a_part_of_a_retired_study_under_another_patient_is_held(town: Town) -> None:
    look(town, days=15)
    town.send([ct_slice(0, patient="P2")])
    town.settle()
    assert row_of(town, StudyRow).state is StudyState.HELD and town.engine.calls == ["ct-test"]


def test_an_object_with_a_retired_uid_in_another_study_is_a_conflict(town: Town) -> None:
    look(town, days=15)
    town.send([ct_slice(0, StudyInstanceUID="1.2.3")])
    town.settle()
    assert [row.kind for row in rows(town, AsideRow)] == ["conflict"] and files(town, "aside")


def test_our_own_results_that_come_back_twice_are_dropped_even_when_the_first_was_removed(town: Town) -> None:
    own = [dcmread(path) for path in sorted((town.folder / "out").rglob("*.dcm"))]
    town.send(own)
    town.settle()
    look(town, days=30)
    assert not files(town, "studies")
    town.send(own)
    town.settle()
    assert not files(town, "studies") and not list(town.house.spool.new.rglob("*.dcm"))


def test_a_study_that_is_retired_while_a_repeat_is_compared_takes_the_repeat_in(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    town.wait(days=15)
    town.send(ct_study(6)[:1])
    real = grouping.compare

    def slowly(old: Path, new: Path) -> grouping.Repeat:
        found = real(old, new)
        retire(town.house, town.clock)
        return found

    monkeypatch.setattr(grouping, "compare", slowly)
    town.gather()
    assert len(files(town, "studies")) == 1, "it was acknowledged, and nothing else of it is here"
    assert whats(town) == []


def test_a_rejected_instance_that_may_come_again_counts_again_after_its_removal(town: Town) -> None:
    look(town, days=15)
    town.send([rejection(ct_study(6)[:1], "113039")])
    town.settle()
    assert [row.rejected for row in rows(town, InstanceRow)][:2] == ["113039", ""]
    town.send(ct_study(6)[:1])
    town.settle()
    assert rows(town, InstanceRow)[0].rejected == ""


def test_a_rejected_instance_that_was_wrong_stays_rejected_when_it_comes_again_after_its_removal(town: Town) -> None:
    look(town, days=15)
    town.send([rejection(ct_study(6)[:1], "113037")])
    town.settle()
    town.send(ct_study(6)[:1])
    town.settle()
    assert rows(town, InstanceRow)[0].rejected == "113037"
    assert town.engine.calls == ["ct-test"]


# --- killed in between ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """What a SIGKILL is to the code behind it."""


@pytest.mark.parametrize(("step", "count"), [("retired", 1), ("retired", 2), ("swept", 3)])
def test_a_process_killed_between_row_and_file_leaves_nothing_behind(town: Town, monkeypatch: pytest.MonkeyPatch, step: str, count: int) -> None:
    passes = itertools.count(1)

    def die(passed: str) -> None:
        if passed == step and next(passes) == count:
            raise Killed

    town.wait(days=15)
    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(Killed):
            retire(town.house, town.clock)
    assert rows(town, RemovalRow)
    town.restart()
    town.house.measure = lambda folder: ROOM
    assert catch_up(town.house) == 0, "what was given up is no stranger"
    assert whats(town) == ["removal that was interrupted"]
    retire(town.house, town.clock)
    assert not files(town, "studies") and not files(town, "results") and rows(town, RemovalRow) == []
    assert whats(town) == []


def test_a_repeat_that_comes_before_an_interrupted_removal_is_finished_is_not_removed(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(passed: str) -> None:
        if passed == "retired" and not files(town, "results"):
            raise Killed  # the originals are given up, and all there

    town.wait(days=15)
    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(Killed):
            retire(town.house, town.clock)
    assert len(files(town, "studies")) == 6
    town.send(ct_study(6))
    town.gather()
    assert len(files(town, "studies")) == 12
    retire(town.house, town.clock)
    with town.house.store.read() as session:
        kept = {town.house.data / studies.instance_path(row) for row in session.scalars(select(InstanceRow))}
    assert set(files(town, "studies")) == kept and len(kept) == 6
    assert whats(town) == []


def test_fsck_finishes_an_interrupted_removal(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(passed: str) -> None:
        raise Killed

    town.wait(days=15)
    with monkeypatch.context() as patch:
        patch.setattr(crash, "passed", die)
        with pytest.raises(Killed):
            retire(town.house, town.clock)
    town.house.store.close()
    report = examine(town.settings, repair=True, deep=False)
    assert [finding.outcome(True) for finding in report.findings] == ["finished"]
    assert whats(town) == []


def test_a_file_that_a_crash_left_in_the_spool_keeps_its_study(make_town: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    town = make_town(**MARKS)
    town.house.measure = lambda folder: ROOM
    town.send(ct_study(2))
    with monkeypatch.context() as patch:
        patch.setattr(indexing, "_carry_out", lambda house, batch: None)  # killed between commit and move
        receive(town.house, town.clock)
    town.wait(days=20)
    with town.house.store.write() as session:
        session.get_one(StudyRow, 1).state = StudyState.COMPLETE
    assert look(town, days=0).files == 0 and row_of(town, StudyRow).removed_at is None
    town.gather()
    assert len(files(town, "studies")) == 2
    assert look(town, days=15).files >= 2
