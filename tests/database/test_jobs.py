from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text

from pacs_node.database import deliveries, jobs
from pacs_node.database.engine import Store
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import HEAD_START, JobRow, ObjectRow, StudyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)


@pytest.fixture
def store(store: Store) -> Store:
    with store.write() as session:
        session.add(
            StudyRow(
                study_uid="1.2", state=StudyState.COMPLETE, patient_id="P", issuer="", patient_name="", birth_date="", accession="", description="",
                first_arrival=NOW, last_arrival=NOW,
            )
        )  # fmt: skip
    return store


def add_job(store: Store, **changes: object) -> int:
    facts = {
        "study_id": 1, "pipeline": "ct", "series_uids": ["1.2.3"], "rules": ["r"], "targets": [], "digest": "d", "state": JobState.QUEUED, "priority": 1,
        "complete_reason": "quiet", "partial": False, "not_before": NOW, "created_at": NOW,
    }  # fmt: skip
    with store.write() as session:
        job = JobRow(**{**facts, **changes})
        session.add(job)
        session.flush()
        return job.id


def claim(store: Store, worker: str = "w", now: datetime = NOW) -> int | None:
    with store.write() as session:
        job = jobs.claim(session, worker, now, LEASE)
        return job.id if job else None


def test_the_most_urgent_and_then_the_oldest_job_is_claimed_first(store: Store) -> None:
    night, first, second, urgent = (add_job(store, priority=priority) for priority in (2, 1, 1, 0))
    assert [claim(store) for _ in range(5)] == [urgent, first, second, night, None]


def test_a_steady_stream_of_urgent_jobs_starves_no_night_job(store: Store) -> None:
    night, normal = add_job(store, priority=2), add_job(store, priority=1)
    claimed: dict[int | None, timedelta] = {}
    for minutes in range(0, 24 * 60, 10):  # a worker that needs ten minutes a job, and an urgent one every ten minutes
        moment = NOW + timedelta(minutes=minutes)
        add_job(store, priority=0, created_at=moment, not_before=moment)
        claimed[claim(store, now=moment)] = timedelta(minutes=minutes)
    assert HEAD_START[1] <= claimed[normal] <= HEAD_START[1] + timedelta(minutes=20)
    assert HEAD_START[2] <= claimed[night] <= HEAD_START[2] + timedelta(minutes=20)


def test_a_job_that_is_run_again_takes_its_turn_anew(store: Store) -> None:
    first = add_job(store, state=JobState.PARKED)
    second = add_job(store, created_at=NOW + timedelta(hours=1))
    with store.write() as session:
        jobs.rerun(session, session.get_one(JobRow, first), NOW + timedelta(hours=2))
    assert [claim(store, now=NOW + timedelta(hours=2)) for _ in range(2)] == [second, first]


def test_a_turn_given_by_a_clock_that_was_set_back_is_given_again(store: Store) -> None:
    lost = add_job(store, created_at=NOW + timedelta(days=400))
    fresh = add_job(store, created_at=NOW + timedelta(minutes=1))
    with store.write() as session:
        assert [job.id for job in jobs.left_behind(session, NOW)] == [lost]
        assert jobs.line_up(session, NOW) == 1
        assert jobs.line_up(session, NOW) == 0
    assert [claim(store), claim(store)] == [lost, fresh]


def test_a_job_is_claimed_once(store: Store) -> None:
    add_job(store)
    assert (claim(store, "one"), claim(store, "two")) == (1, None)


def test_a_job_waits_for_its_time(store: Store) -> None:
    add_job(store, not_before=NOW + timedelta(seconds=5))
    assert claim(store) is None
    assert claim(store, now=NOW + timedelta(seconds=5)) == 1


def test_the_jobs_of_a_held_study_wait(store: Store) -> None:
    add_job(store)
    with store.write() as session:
        session.get_one(StudyRow, 1).state = StudyState.HELD
    assert claim(store) is None


def test_a_beat_renews_the_lease_of_its_own_worker_only(store: Store) -> None:
    job = add_job(store)
    claim(store, "mine")
    with store.write() as session:
        assert jobs.beat(session, job, "mine", NOW + 2 * LEASE, 0.5)
        assert not jobs.beat(session, job, "other", NOW + 9 * LEASE, 0.9)
    with store.read() as session:
        assert list(jobs.expired(session, NOW + 2 * LEASE)) == []
        assert [row.id for row in jobs.expired(session, NOW + 2 * LEASE + timedelta(seconds=1))] == [job]


def test_a_new_run_never_takes_the_number_of_another_job_of_the_pipeline(store: Store) -> None:
    first = add_job(store, state=JobState.PARKED, run=1)
    add_job(store, state=JobState.DONE, run=2)
    with store.write() as session:
        job = jobs.get_job(session, first)
        assert job is not None
        jobs.rerun(session, job, NOW)
        assert job.run == 3


def test_the_claim_walks_an_index_and_not_the_table(make_database: Callable[..., str]) -> None:
    store = Store(make_database("sqlite"))
    store.upgrade()
    plan = "EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE state = 'queued' AND not_before <= '2026-01-01' ORDER BY turn, id LIMIT 1"
    with store.read() as session:
        steps = " ".join(row[3] for row in session.execute(text(plan)))
    assert "USING INDEX ix_jobs_claim" in steps
    assert "TEMP B-TREE" not in steps
    store.close()


def add_delivery(store: Store, job: int, position: int, **changes: object) -> int:
    with store.write() as session:
        obj = ObjectRow(
            job_id=job, run=1, variant="v", kind="sr", sop_uid=f"1.{job}.{position}", sop_class_uid="1", series_uid="1", transfer_syntax_uid="1", path="p",
            sha256="", position=position,
        )  # fmt: skip
        session.add(obj)
        session.flush()
        row = deliveries.add(session, obj, "archive", NOW)
        for name, value in changes.items():
            setattr(row, name, value)
        session.flush()
        return row.id


def due(store: Store, now: datetime = NOW) -> list[int]:
    with store.read() as session:
        return deliveries.due_group(session, "archive", now)


def test_a_group_goes_out_in_the_order_of_its_references(store: Store) -> None:
    job = add_job(store)
    report, picture = add_delivery(store, job, 3), add_delivery(store, job, 1)
    assert due(store) == [picture, report]


def test_an_object_that_waits_holds_back_what_refers_to_it(store: Store) -> None:
    job = add_job(store)
    add_delivery(store, job, 1, next_attempt_at=NOW + timedelta(minutes=1))
    add_delivery(store, job, 3)
    assert due(store) == []
    assert len(due(store, NOW + timedelta(minutes=1))) == 2


@pytest.mark.parametrize("state", [DeliveryState.REFUSED, DeliveryState.PARKED, DeliveryState.DELIVERED])
def test_a_settled_object_holds_nothing_back(store: Store, state: DeliveryState) -> None:
    job = add_job(store)
    add_delivery(store, job, 1, state=state)
    report = add_delivery(store, job, 3)
    assert due(store) == [report]


def test_one_job_that_waits_does_not_hold_back_another(store: Store) -> None:
    first, second = add_job(store), add_job(store)
    add_delivery(store, first, 1, next_attempt_at=NOW + timedelta(minutes=1))
    other = add_delivery(store, second, 1)
    assert due(store) == [other]


def test_what_was_being_sent_at_a_crash_is_sent_again(store: Store) -> None:
    job = add_job(store)
    row = add_delivery(store, job, 1)
    with store.write() as session:
        deliveries.start(session, [row], NOW)
    assert due(store) == []
    with store.write() as session:
        assert deliveries.give_back(session, deliveries.left_sending(session, "archive"), NOW) == 1
    assert due(store) == [row]


def test_what_is_being_sent_is_not_started_twice(store: Store) -> None:
    row = add_delivery(store, add_job(store), 1)
    with store.write() as session:
        assert len(deliveries.start(session, [row], NOW)) == 1
        assert len(deliveries.start(session, [row], NOW)) == 0


def test_job_numbers_are_listed_newest_first(store: Store) -> None:
    made = [add_job(store) for _ in range(3)]
    with store.read() as session:
        assert [job.id for job in jobs.list_jobs(session)] == made[::-1]
        assert session.scalars(select(JobRow.id)).all() == made
