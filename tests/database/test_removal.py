"""Tombstones in both databases: what may be looked at, what still needs files, and what is written when they go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pacs_node.database import deliveries, removal, studies
from pacs_node.database.engine import Store
from pacs_node.database.states import ENDED, STUCK, DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, DeliveryRow, InstanceRow, JobRow, ObjectRow, RemovalRow, SeriesRow, StudyRow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def study(session: Session, number: int, *, age: int = 20, state: StudyState = StudyState.COMPLETE, count: int = 2) -> StudyRow:
    """Add a study with instances whose last arrival was so many days ago."""
    at = NOW - timedelta(days=age)
    text = {"patient_id": "P", "issuer": "", "patient_name": "", "birth_date": "", "accession": "", "description": ""}
    row = StudyRow(study_uid=f"1.2.{number}", state=state, first_arrival=at, last_arrival=at, **text)
    session.add(row)
    session.flush()
    series = SeriesRow(study_id=row.id, series_uid=f"1.2.{number}.1", modality="CT", number=1, description="")
    session.add(series)
    session.flush()
    for index in range(count):
        facts = {"sop_class_uid": "1.2.840", "transfer_syntax_uid": "1.2", "identity": ["P", "", "", ""], "received_at": at, "version": 1, "copy": 1}
        uid = f"1.2.{number}.1.{index}"
        session.add(InstanceRow(study_id=row.id, series_id=series.id, sop_uid=uid, arrival=f"a{number}-{index}", **facts))
    session.flush()
    return row


def job(session: Session, of: StudyRow, state: JobState = JobState.DONE, *, age: int = 20, told: bool = True) -> JobRow:
    at = NOW - timedelta(days=age)
    row = JobRow(
        study_id=of.id, pipeline="p", series_uids=[f"{of.study_uid}.1"], rules=[], targets=[], digest="d", state=state, priority=1, complete_reason="",
        partial=False, not_before=at, created_at=at, finished_at=at, told=told, turn=at, reason="broken",
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def result(session: Session, of: JobRow, *states: DeliveryState, kind: str = "sr") -> ObjectRow:
    row = ObjectRow(
        job_id=of.id, run=1, variant="v", kind=kind, sop_uid=f"9.{of.id}.{kind}", sop_class_uid="1", series_uid="2", transfer_syntax_uid="3",
        path=f"results/{of.id}/{kind}.dcm", sha256="", position=0,
    )  # fmt: skip
    session.add(row)
    session.flush()
    for number, state in enumerate(states):
        deliveries.add(session, row, f"archive{number}", NOW).state = state
    session.flush()
    return row


def paths(session: Session, of: StudyRow) -> dict[str, str]:
    return {studies.instance_path(row): "f" * 64 for row in removal.files_of(session, of.id)}


def test_ripe_studies_come_oldest_first_and_page_by_page(store: Store) -> None:
    with store.write() as session:
        for number, age in enumerate((20, 40, 30, 5, 40)):
            study(session, number, age=age)
        study(session, 9, age=90, state=StudyState.RECEIVING)
        study(session, 10, age=80).removed_at = NOW
    with store.read() as session:
        before, place, seen = NOW - timedelta(days=14), None, []
        while page := removal.ripe_studies(session, before, place, 2):
            seen += [row.id for row in page]
            place = page[-1].last_arrival, page[-1].id
        assert seen == [2, 5, 3, 1]


@pytest.mark.parametrize(
    ("state", "told", "needed"),
    [
        (JobState.QUEUED, True, True), (JobState.RUNNING, True, True), (JobState.PARKED, False, True), (JobState.PARKED, True, False),
        (JobState.DONE, True, False), (JobState.NOT_ANALYSED, True, False), (JobState.CANCELLED, True, False),
    ],
)  # fmt: skip
def test_a_job_that_goes_on_needs_its_originals(store: Store, state: JobState, told: bool, needed: bool) -> None:
    with store.write() as session:
        row = study(session, 1)
        job(session, row, state, told=told)
        assert bool(removal.needed_by(session, row.id)) is needed


@pytest.mark.parametrize("state", DeliveryState)
def test_an_original_to_be_forwarded_is_needed_until_its_way_has_ended(store: Store, state: DeliveryState) -> None:
    with store.write() as session:
        row = study(session, 1)
        sent = removal.files_of(session, row.id)[0]
        facts = {"study_id": row.id, "instance_id": sent.id, "version": 1, "destination": "archive", "position": 0, "next_attempt_at": NOW}
        session.add(DeliveryRow(state=state, **facts))
        session.flush()
        assert (removal.needed_by(session, row.id) == ("forwarding",)) is (state not in (*ENDED, *STUCK))
        assert removal.unforwarded(session, row.id) is (state in STUCK)


def test_results_that_wait_need_no_originals(store: Store) -> None:
    with store.write() as session:
        row = study(session, 1)
        result(session, job(session, row), DeliveryState.WAITING)
        assert removal.needed_by(session, row.id) == ()


def test_a_retired_study_keeps_its_rows_and_lists_its_files(store: Store) -> None:
    with store.write() as session:
        row = study(session, 1)
        files = paths(session, row)
        assert removal.retire_study(session, row, files, NOW, "because")
    with store.read() as session:
        kept = session.get_one(StudyRow, row.id)
        assert (kept.removed_at, kept.removed_reason) == (NOW, "because")
        assert {instance.fingerprint for instance in session.scalars(select(InstanceRow))} == {"f" * 64}
        assert removal.files_of(session, row.id) == [] and removal.gone(session, row.id) == 2
        assert removal.gone(session, row.id, ["1.2.1.1"]) == 2 and removal.gone(session, row.id, ["another"]) == 0
        assert set(removal.listed(session)) == set(files)
    with store.write() as session:
        removal.strike(session, list(files))
        assert removal.listed(session) == []


def test_a_study_is_not_retired_where_other_files_came_meanwhile(store: Store) -> None:
    with store.write() as session:
        row = study(session, 1)
        files = paths(session, row)
        removal.files_of(session, row.id)[0].version = 2
        session.flush()
        assert not removal.retire_study(session, row, files, NOW, "because")
        assert row.removed_at is None and removal.listed(session) == []


def test_what_can_go_on_no_more_is_cancelled_with_the_files(store: Store) -> None:
    with store.write() as session:
        row = study(session, 1, state=StudyState.HELD)
        parked, done = job(session, row, JobState.PARKED), job(session, row)
        result(session, done, DeliveryState.WAITING)
        assert removal.retire_study(session, row, paths(session, row), NOW, "because")
    with store.read() as session:
        cancelled = session.get_one(JobRow, parked.id)
        assert cancelled.state is JobState.CANCELLED and cancelled.reason == "broken; then its files were removed: because"
        assert session.get_one(JobRow, done.id).state is JobState.DONE
        assert [sent.state for sent in session.scalars(select(DeliveryRow))] == [DeliveryState.CANCELLED]


def test_the_outbox_of_a_job_is_counted_by_what_is_to_come(store: Store) -> None:
    with store.write() as session:
        row = job(session, study(session, 1))
        states = list(DeliveryState)
        result(session, row, *states)
        session.scalars(select(DeliveryRow).where(DeliveryRow.state == DeliveryState.DELIVERED)).one().delivered_at = NOW
        session.flush()
        going_on, stuck, arrived = removal.outbox_of(session, row.id)
        assert (going_on, stuck, arrived) == (len(states) - len(ENDED) - len(STUCK), len(STUCK), NOW)


def test_a_refused_object_in_whose_place_another_is_to_be_made_goes_on(store: Store) -> None:
    with store.write() as session:
        row = job(session, study(session, 1))
        result(session, row, DeliveryState.REFUSED)
        session.scalars(select(DeliveryRow)).one().fallback = "enhanced-sr"
        session.flush()
        assert removal.outbox_of(session, row.id) == (1, 0, None)


def test_retired_results_keep_their_rows_and_end_what_was_stuck(store: Store) -> None:
    with store.write() as session:
        row = job(session, study(session, 1))
        sent = result(session, row, DeliveryState.DELIVERED, DeliveryState.REFUSED)
        assert removal.retire_results(session, row, NOW, "because") == [sent.path]
        assert row.removed_at == NOW and sent.removed_at == NOW
    with store.read() as session:
        assert [one.state for one in session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))] == [DeliveryState.DELIVERED, DeliveryState.CANCELLED]
        assert removal.ripe_jobs(session, NOW, None, 10) == []


def test_a_path_is_never_listed_twice(store: Store) -> None:
    with store.write() as session:
        session.add(RemovalRow(path="studies/0000/1/1.1.dcm"))
    with pytest.raises(IntegrityError), store.write() as session:
        session.add(RemovalRow(path="studies/0000/1/1.1.dcm"))


def test_a_quarantined_file_goes_with_its_note(store: Store) -> None:
    with store.write() as session:
        row = AsideRow(kind="quarantine", reason="", path="quarantine/a.dcm", received_at=NOW - timedelta(days=100))
        session.add(row)
        session.flush()
        assert [one.id for one in removal.ripe_aside(session, ["quarantine"], NOW, 10)] == [row.id]
        assert removal.retire_aside(session, row, NOW) == ["quarantine/a.dcm", "quarantine/a.json"]
        assert removal.ripe_aside(session, ["quarantine"], NOW, 10) == []


def test_no_two_copies_of_an_instance_share_a_path(store: Store) -> None:
    row = InstanceRow(id=7, study_id=12_345, version=1, copy=1)
    first = studies.instance_path(row)
    row.copy = 2
    second = studies.instance_path(row)
    row.version = 2
    assert [first, second, studies.instance_path(row)] == [
        "studies/0012/12345/7.1.dcm", "studies/0012/12345/7.1.2.dcm", "studies/0012/12345/7.2.2.dcm",
    ]  # fmt: skip
