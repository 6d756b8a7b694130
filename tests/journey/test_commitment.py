"""Storage commitment decides what is delivered: an archive that reports early, late, twice, on a new association, or never."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from sqlalchemy import select

from pacs_node.database import deliveries
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import CommitmentRow, DeliveryRow
from pacs_node.delivery import backoff, commitment
from pacs_node.dicom.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reference, Report, report_dataset
from pacs_node.journey import commit
from pacs_node.journey.operate import retry_parked
from pacs_node.reception.conversation import NoteRequest
from pacs_node.records import Sender
from pacs_node.workbench import tables
from tests.delivery.committing import CommittingArchive
from tests.journey.support import Town, ct_slice, ct_study
from tests.journey.test_adversity import alert_kinds
from tests.journey.test_archive import messages
from tests.node.support import free_port

RULES = """
rules:
  - name: head CT
    when: {Modality: CT, BodyPartExamined: HEAD}
    pipeline: ct-test
    send_to: [archive]
"""
PARAMETRIC_MAP, CAPTURE, REPORT = "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.88.34"
Make = Callable[..., Town]


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment, "LINGER", 0.5)


@pytest.fixture
def archive() -> Iterator[CommittingArchive]:
    with CommittingArchive() as one:
        yield one


def town_with(make_town: Make, port: int, rules: str = RULES, **keys: object) -> Town:
    target = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True, "commitment": True, **keys}
    return make_town(rules=rules, destinations={"archive": target})


def ask(town: Town, **span: float) -> int:
    """Let time pass, then do what is due about commitment; returns for how many objects."""
    town.wait(**(span or {"seconds": 4}))
    count = 0
    while done := commit.commit(town.house, "archive", town.clock):
        count += done
    return count


def rows(town: Town) -> list[DeliveryRow]:
    with town.house.store.read() as session:
        return list(deliveries.list_deliveries(session))


def states(town: Town) -> set[DeliveryState]:
    return {row.state for row in rows(town)}


def stored(make_town: Make, archive: CommittingArchive, **keys: object) -> Town:
    """A study whose three results lie in the archive."""
    town = town_with(make_town, archive.port, **keys)
    town.send(ct_study())
    town.settle()
    assert [row.state for row in rows(town)] == [DeliveryState.UNCOMMITTED] * 3 and len(archive.kept) == 3
    return town


def encoded(dataset: Dataset) -> bytes:
    """Return a dataset in implicit VR little endian."""
    return bytes(encode(dataset, True, True) or b"")


def bring(town: Town, report: Report, calling: str = "ARCHIVE") -> None:
    """Let a report come to a receiver, and the core take it in."""
    content = encoded(report_dataset(report))
    request = NoteRequest("n-event-report", PUSH_MODEL, PUSH_MODEL_INSTANCE, report.event_type, ImplicitVRLittleEndian, content)
    town.house.spool.note(Sender(calling, "PACS_NODE", "127.0.0.1:104", "report"), "commitment-report", request)
    town.gather()


def test_an_object_is_delivered_only_when_the_archive_has_committed_to_it(make_town: Make, archive: CommittingArchive) -> None:
    town = stored(make_town, archive)
    shown = {row["name"]: row for row in tables.status_tables(town.settings)["destinations"]}["archive"]
    assert (shown["uncommitted"], shown["waiting"], shown["delivered"]) == (3, 3, 0)
    assert {row["state"] for row in tables.job_page(town.settings, 1)["objects"]} == {"uncommitted"}
    assert ask(town) == 3
    (request,) = archive.requests
    assert {reference.sop_uid for reference in request.references} == set(archive.kept)
    assert states(town) == {DeliveryState.DELIVERED} and archive.answers == [0x0000]
    assert {row["state"] for row in tables.delivery_rows(town.settings, 10)} == {"delivered"}
    assert all(row.committed_at is not None for row in rows(town))
    assert ask(town, days=2) == 0 and len(archive.sent) == 3


def test_a_report_before_the_response_counts_as_well(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "before"
    town = stored(make_town, archive)
    ask(town)
    assert states(town) == {DeliveryState.DELIVERED}
    assert ask(town, days=2) == 0


def test_a_report_on_an_association_of_the_archives_own_counts_once_however_often_it_comes(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive)
    ask(town)
    assert states(town) == {DeliveryState.UNCOMMITTED}
    town.restart()
    report = archive.verdict(archive.requests[0])
    for _ in range(2):
        bring(town, report)
        assert states(town) == {DeliveryState.DELIVERED}
    assert alert_kinds(town) == [] and not list(town.house.spool.new.rglob("*.note"))


def test_each_instance_decides_about_itself(make_town: Make, archive: CommittingArchive) -> None:
    archive.reasons, archive.silent_about = {PARAMETRIC_MAP: 0x0122}, {CAPTURE}
    town = stored(make_town, archive)
    ask(town)
    found = {row.sop_class_uid: row.state for row in rows(town)}
    assert found == {PARAMETRIC_MAP: DeliveryState.REFUSED, CAPTURE: DeliveryState.UNCOMMITTED, REPORT: DeliveryState.DELIVERED}
    assert any("commits no objects of this SOP class" in message and "retry delivery" in message for message in messages(town))


@pytest.mark.parametrize("reason", [0x0110, 0x0112])
def test_what_the_archive_has_lost_is_sent_again(make_town: Make, archive: CommittingArchive, reason: int) -> None:
    archive.reasons = {REPORT: reason}
    town = stored(make_town, archive)
    ask(town)
    assert sorted(row.state for row in rows(town)) == [DeliveryState.DELIVERED, DeliveryState.DELIVERED, DeliveryState.WAITING]
    archive.reasons = {}
    town.wait(hours=1)
    town.post()
    assert len(archive.sent) == 4
    ask(town)
    assert states(town) == {DeliveryState.DELIVERED}
    assert len(archive.requests[-1].references) == 1


@pytest.mark.slow
def test_what_the_archive_loses_again_and_again_is_parked_and_said_and_one_command_sends_it(make_town: Make, archive: CommittingArchive) -> None:
    archive.reasons = {REPORT: 0x0112}
    town = stored(make_town, archive)
    for _ in range(60):
        ask(town)
        town.wait(hours=2, minutes=40)
        town.post()
        if DeliveryState.PARKED in states(town):
            break
    assert DeliveryState.PARKED in states(town) and 5 < len(archive.sent) < 40
    assert alert_kinds(town) == ["parked"]
    archive.reasons = {}
    retry_parked(town.house.store, town.clock)
    town.post()
    ask(town)
    assert states(town) == {DeliveryState.DELIVERED} and alert_kinds(town) == []


def test_a_transaction_uid_in_use_brings_a_new_one(make_town: Make, archive: CommittingArchive) -> None:
    archive.reasons = dict.fromkeys([REPORT, CAPTURE, PARAMETRIC_MAP], 0x0131)
    town = stored(make_town, archive)
    ask(town)
    assert states(town) == {DeliveryState.UNCOMMITTED}
    archive.reasons = {}
    ask(town, minutes=10)
    first, second = archive.requests
    assert first.transaction_uid != second.transaction_uid and len(archive.sent) == 3
    assert states(town) == {DeliveryState.DELIVERED}


def test_without_a_report_in_time_a_query_tells_and_it_is_said(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive, commitment_within="2h")
    ask(town)
    assert ask(town, hours=1) == 0
    ask(town, hours=2)
    assert states(town) == {DeliveryState.DELIVERED} and len(archive.sent) == 3
    assert all(row.committed_at is None for row in rows(town))
    assert any("does not report" in message and "set its commitment to false" in message for message in messages(town))


def test_an_object_that_no_query_finds_is_sent_again(make_town: Make, archive: CommittingArchive) -> None:
    archive.when, archive.forgets = "never", {REPORT}
    town = town_with(make_town, archive.port)
    town.send(ct_study())
    town.settle()
    ask(town)
    ask(town, hours=25)
    assert {row.sop_class_uid: row.state for row in rows(town)}[REPORT] == DeliveryState.WAITING
    archive.when, archive.forgets = "after", set()
    town.wait(hours=2)
    town.post()
    ask(town)
    assert states(town) == {DeliveryState.DELIVERED} and len(archive.sent) == 4


def test_where_no_query_can_tell_it_is_asked_again_and_parked_in_the_end(make_town: Make, archive: CommittingArchive) -> None:
    archive.when, archive.finds = "never", False
    archive.__exit__()
    archive.__enter__()
    town = stored(make_town, archive)
    for asked in range(1, commit.MOST_SILENT + 1):
        ask(town, hours=25)
        ask(town)
        assert len(archive.requests) == asked
    ask(town, hours=25)
    assert states(town) == {DeliveryState.PARKED} and len(archive.requests) == commit.MOST_SILENT
    assert alert_kinds(town) == ["parked"] * 3
    bring(town, archive.verdict(archive.requests[0]))  # better late than never, and on the first transaction
    assert states(town) == {DeliveryState.DELIVERED} and alert_kinds(town) == []


def test_an_archive_that_takes_no_commitment_is_said_with_the_remedy_and_nothing_is_delivered_in_silence(
    make_town: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commit, "POLICY", backoff.Policy(give_up_after=timedelta(hours=4)))
    with CommittingArchive(commits=False) as archive:
        town = stored(make_town, archive)
        ask(town)
        assert states(town) == {DeliveryState.UNCOMMITTED}
        assert any("set destinations.archive.commitment to false" in message for message in messages(town))
        for _ in range(20):
            ask(town, hours=2)
            if states(town) == {DeliveryState.PARKED}:
                break
        assert states(town) == {DeliveryState.PARKED} and len(archive.kept) == 3


def test_commitment_that_is_no_longer_asked_for_is_no_longer_waited_for(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive)
    destinations = {"archive": town.settings.destinations["archive"].model_copy(update={"commitment": False})}
    town.settings = town.settings.model_copy(update={"destinations": destinations})
    town.restart()
    commit.recover(town.house, town.clock)
    assert states(town) == {DeliveryState.DELIVERED}


def test_a_request_that_is_refused_is_made_again_later(make_town: Make, archive: CommittingArchive) -> None:
    archive.status = 0x0213
    town = stored(make_town, archive)
    ask(town)
    assert states(town) == {DeliveryState.UNCOMMITTED} and "0x0213" in " ".join(messages(town))
    archive.status = 0x0000
    ask(town, minutes=5)
    assert states(town) == {DeliveryState.DELIVERED} and messages(town) == []


def test_an_archive_that_is_off_is_asked_once_it_is_back(make_town: Make) -> None:
    port = free_port()
    with CommittingArchive(port=port) as archive:
        town = stored(make_town, archive)
        kept = archive.kept
    ask(town)
    assert states(town) == {DeliveryState.UNCOMMITTED}
    with CommittingArchive(port=port) as archive:
        archive.kept = kept
        ask(town, minutes=5)
        assert states(town) == {DeliveryState.DELIVERED} and archive.sent == []


def test_a_duplicate_that_no_query_can_tell_is_delivered_when_the_archive_commits_to_it(make_town: Make) -> None:
    with CommittingArchive(finds=False, store_status=0x0111) as archive:
        town = stored(make_town, archive)
        assert {row.status for row in rows(town)} == {0x0111}
        ask(town)
        assert states(town) == {DeliveryState.DELIVERED} and all(row.committed_at is not None for row in rows(town))


# --- crashes -----------------------------------------------------------------------------------------------------------------


def test_a_crash_after_the_request_was_taken_loses_nothing_the_report_is_known(
    make_town: Make, archive: CommittingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.when = "never"
    town = stored(make_town, archive)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_asked", die)
        with pytest.raises(KeyboardInterrupt):
            ask(town)
    town.restart()
    bring(town, archive.verdict(archive.requests[0]))
    assert states(town) == {DeliveryState.DELIVERED}
    assert ask(town, days=2) == 0 and len(archive.sent) == 3


def test_a_crash_before_the_request_went_out_has_it_made_again(make_town: Make, archive: CommittingArchive, monkeypatch: pytest.MonkeyPatch) -> None:
    town = stored(make_town, archive)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commitment, "ask", die)
        with pytest.raises(KeyboardInterrupt):
            ask(town)
    town.restart()
    assert archive.requests == []
    ask(town, minutes=10)
    assert states(town) == {DeliveryState.DELIVERED}


def test_a_crash_before_a_report_is_kept_leaves_it_unanswered_and_the_objects_waiting(
    make_town: Make, archive: CommittingArchive, monkeypatch: pytest.MonkeyPatch
) -> None:
    town = stored(make_town, archive)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commit, "_committed", die)
        with pytest.raises(KeyboardInterrupt):
            ask(town)
    archive.settle()
    assert archive.answers == [None]
    town.restart()
    ask(town, hours=1)
    assert states(town) == {DeliveryState.DELIVERED}


# --- odd reports -------------------------------------------------------------------------------------------------------------


def test_a_report_on_an_unknown_transaction_or_on_strangers_changes_nothing(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive)
    ask(town)
    known, uid = archive.requests[0].references, archive.requests[0].transaction_uid
    bring(town, Report("1.2.3.4", known))
    bring(town, Report(uid, (Reference(known[0].sop_class_uid, "1.2.3"),), {Reference("1.2.3", known[0].sop_uid): 0x0122}))
    assert states(town) == {DeliveryState.UNCOMMITTED} and alert_kinds(town) == []
    assert not list(town.house.spool.new.rglob("*.note"))


def test_a_report_from_another_ae_title_counts_for_its_transaction(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive)
    ask(town)
    bring(town, archive.verdict(archive.requests[0]), calling="ARCHIVE_2")
    assert states(town) == {DeliveryState.DELIVERED}


def test_a_late_failure_on_an_older_transaction_does_not_undo_the_newer(make_town: Make, archive: CommittingArchive) -> None:
    archive.reasons = dict.fromkeys([REPORT, CAPTURE, PARAMETRIC_MAP], 0x0131)
    town = stored(make_town, archive)
    ask(town)
    archive.when = "never"
    ask(town, minutes=10)
    old, new = archive.requests
    bring(town, Report(old.transaction_uid, (), dict.fromkeys(old.references, 0x0122)))
    assert states(town) == {DeliveryState.UNCOMMITTED}
    archive.reasons = {}
    bring(town, archive.verdict(new))
    assert states(town) == {DeliveryState.DELIVERED}


def test_a_report_that_names_no_transaction_is_kept_aside(make_town: Make, archive: CommittingArchive) -> None:
    town = stored(make_town, archive)
    bring(town, Report("", ()))
    assert alert_kinds(town) == ["quarantine"] and states(town) == {DeliveryState.UNCOMMITTED}


# --- corrections and originals -------------------------------------------------------------------------------------------


def test_results_that_await_commitment_count_as_out_when_the_patient_is_corrected(make_town: Make, archive: CommittingArchive) -> None:
    archive.when = "never"
    town = stored(make_town, archive)
    ask(town)
    town.send([ct_slice(index, patient="P2") for index in range(6)])
    town.gather()
    assert "identity" in alert_kinds(town)
    assert states(town) == {DeliveryState.CANCELLED}
    bring(town, archive.verdict(archive.requests[0]))
    assert states(town) == {DeliveryState.CANCELLED}  # the archive keeps it: the alert says what to do


def test_forwarded_originals_wait_for_commitment_in_requests_of_bounded_size(
    make_town: Make, archive: CommittingArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pacs_node.database import commitments, originals

    monkeypatch.setattr(commitments, "MOST_REFERENCES", 4)
    rules = "rules:\n  - name: all\n    when: {Modality: CT}\n    pipeline: null\n    results: []\n    forward: [archive]\n"
    town = town_with(make_town, archive.port, rules)
    town.send(ct_study())
    town.settle()
    assert states(town) == {DeliveryState.UNCOMMITTED} and len(rows(town)) == 6
    with town.house.store.read() as session:
        assert originals.studies_that_need_originals(session, [1]) == {1}
    ask(town)
    assert [len(request.references) for request in archive.requests] == [4, 2]
    assert states(town) == {DeliveryState.DELIVERED}
    with town.house.store.read() as session:
        assert originals.studies_that_need_originals(session, [1]) == set()
        assert {row.destination for row in session.scalars(select(CommitmentRow))} == {"archive"}
