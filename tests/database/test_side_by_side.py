"""Transactions that write at the same time, on real connections: what PostgreSQL allows and SQLite never did."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pacs_node.database import alerts, deliveries, jobs, studies
from pacs_node.database.engine import Store
from pacs_node.database.states import JobState, StudyState
from pacs_node.database.tables import AlertRow, AsideRow, DestinationRow, JobRow, SeriesRow, StudyRow
from pacs_node.errors import DatabaseUnavailable
from pacs_node.records import Arrival, Instance, PatientIdentity, Sender, Series

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=60)
PATIENT = PatientIdentity("P", "", "A^B", "19700101")


def add_study(store: Store, number: int = 1) -> int:
    with store.write() as session:
        row = StudyRow(study_uid=f"1.2.{number}", state=StudyState.COMPLETE, patient_id="P", issuer="", patient_name="", birth_date="", accession="")
        row.description, row.first_arrival, row.last_arrival = "", NOW, NOW
        session.add(row)
        session.flush()
        return row.id


def add_jobs(store: Store, study: int, count: int, **changes: object) -> list[int]:
    facts = {
        "study_id": study, "pipeline": "ct", "series_uids": [], "rules": [], "targets": [], "digest": "", "state": JobState.QUEUED, "priority": 0,
        "complete_reason": "", "partial": False, "not_before": NOW, "created_at": NOW,
    }  # fmt: skip
    with store.write() as session:
        rows = [JobRow(**{**facts, **changes}) for _ in range(count)]
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows]


def in_thread(action: Callable[[], object]) -> Future[object]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(action)
    pool.shutdown(wait=False)
    return future


def test_workers_that_claim_at_once_never_get_one_job_twice(store: Store) -> None:
    waiting = add_jobs(store, add_study(store), 60)

    def work(name: str) -> list[int]:
        mine = []
        while True:
            with store.write() as session:
                job = jobs.claim(session, name, NOW, LEASE)
            if job is None:
                return mine
            mine.append(job.id)

    with ThreadPoolExecutor(6) as pool:
        taken = list(pool.map(work, [f"w{index}" for index in range(6)]))
    assert sorted(job for jobs_of_one in taken for job in jobs_of_one) == waiting


@pytest.fixture
def postgresql(make_database: Callable[..., str]):
    store = Store(make_database("postgresql"))
    yield store
    store.close()


def test_a_worker_in_the_middle_of_a_claim_keeps_nobody_waiting(postgresql: Store) -> None:
    first, second = add_jobs(postgresql, add_study(postgresql), 2)
    with postgresql.write() as slow:
        mine = jobs.claim(slow, "slow", NOW, LEASE)
        begun = time.monotonic()
        with postgresql.write() as quick:
            other = jobs.claim(quick, "quick", NOW, LEASE)
            assert other is not None and other.id == second
        with postgresql.write() as third:
            assert jobs.claim(third, "third", NOW, LEASE) is None
        assert time.monotonic() - begun < 5  # the first transaction is still open
    assert mine is not None and mine.id == first


def both_at_once(store: Store, action: Callable[[Session], object]) -> list[object]:
    """Do the same in two transactions that are open at the same time; the second is let go on before the first commits."""
    with store.write() as first:
        one = action(first)
        second = in_thread(lambda: _in_transaction(store, action))
        time.sleep(0.3)  # it waits for the first, or (SQLite) has not begun
        assert not second.done()
    return [one, second.result(30)]


def _in_transaction(store: Store, action: Callable[[Session], object]) -> object:
    with store.write() as session:
        return action(session)


def count(store: Store, column: object) -> int:
    with store.read() as session:
        return session.scalar(select(func.count(column))) or 0  # type: ignore[arg-type]


def test_an_alert_that_two_raise_at_once_is_raised_once(store: Store) -> None:
    assert both_at_once(store, lambda session: alerts.raise_alert(session, "disk", "data", "full", NOW)) == [True, False]
    assert count(store, AlertRow.id) == 1


def test_an_alert_that_was_cleared_can_be_raised_again(store: Store) -> None:
    for _ in range(2):
        with store.write() as session:
            assert alerts.raise_alert(session, "disk", "data", "full", NOW)
            assert alerts.clear_alert(session, "disk", "data", NOW)
    assert count(store, AlertRow.id) == 2


def test_an_open_alert_says_the_newest(store: Store) -> None:
    with store.write() as session:
        alerts.raise_alert(session, "disk", "data", "almost full", NOW)
        assert not alerts.raise_alert(session, "disk", "data", "full", NOW)
    with store.read() as session:
        assert [alert.message for alert in alerts.open_alerts(session)] == ["full"]


def instance(study_uid: str = "1.2.3") -> Instance:
    return Instance("1.2.3.4", "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1", study_uid, "1.2.3.1", "CT", PATIENT, Path("x"))


ARRIVAL = Arrival(Path("x"), "0001", NOW, Sender("CT1", "NODE"))


def test_a_study_that_two_meet_at_once_is_made_once(store: Store) -> None:
    one, other = both_at_once(store, lambda session: studies.ensure_study(session, instance(), ARRIVAL, {}).id)
    assert one == other
    assert count(store, StudyRow.id) == 1


def test_a_series_of_a_locked_study_is_made_once(store: Store) -> None:
    series = Series("1.2.3.1", "CT", 1, "axial", ())

    def ensure(session: Session) -> int:
        return studies.ensure_series(session, studies.ensure_study(session, instance(), ARRIVAL, {}), series).id

    one, other = both_at_once(store, ensure)
    assert one == other
    assert count(store, SeriesRow.id) == 1


def test_a_destination_that_two_meet_at_once_is_made_once(store: Store) -> None:
    assert both_at_once(store, lambda session: deliveries.destination_row(session, "archive").name) == ["archive", "archive"]
    assert count(store, DestinationRow.name) == 1


def test_a_file_that_two_keep_aside_at_once_is_noted_once(store: Store) -> None:
    def keep(session: Session) -> bool:
        return studies.add_aside(session, AsideRow(kind="quarantine", reason="odd", path="quarantine/1.dcm", received_at=NOW))

    assert both_at_once(store, keep) == [True, False]
    assert count(store, AsideRow.id) == 1


def test_failures_of_a_destination_that_two_note_at_once_are_both_counted(store: Store) -> None:
    def failed(session: Session) -> int:
        row = deliveries.destination_row(session, "archive")
        row.failures += 1
        session.flush()
        return row.failures

    with store.write() as session:
        deliveries.destination_row(session, "archive")
    assert both_at_once(store, failed) == [1, 2]


def test_a_job_that_is_cancelled_while_its_worker_commits_is_either_done_or_cancelled(store: Store) -> None:
    """Whoever comes first has it; the other sees what became of it."""
    (job,) = add_jobs(store, add_study(store), 1)
    with store.write() as session:
        jobs.claim(session, "w", NOW, LEASE)
    with store.write() as session:
        row = jobs.lock(session, job)
        assert row is not None
        jobs.finish(row, JobState.CANCELLED, NOW)
        session.flush()
        late = in_thread(lambda: _in_transaction(store, lambda other: jobs.still_mine(other, job, "w")))
        time.sleep(0.3)
        assert not late.done()
    assert late.result(30) is None


def test_a_job_whose_worker_is_committing_is_not_taken_back(postgresql: Store) -> None:
    (job,) = add_jobs(postgresql, add_study(postgresql), 1)
    with postgresql.write() as session:
        jobs.claim(session, "w", NOW, LEASE)
    with postgresql.write() as session:
        assert jobs.still_mine(session, job, "w") is not None
        with postgresql.write() as reaper:
            assert jobs.expired(reaper, NOW + 2 * LEASE, to_change=True) == []


def test_two_runs_asked_for_at_once_get_numbers_of_their_own(store: Store) -> None:
    study = add_study(store)
    numbers = add_jobs(store, study, 2, state=JobState.PARKED)

    def again(number: int) -> Callable[[Session], int]:
        def rerun(session: Session) -> int:
            job = jobs.lock(session, number)
            assert job is not None
            jobs.rerun(session, job, NOW)
            session.flush()
            return job.run

        return rerun

    with store.write() as session:
        first = again(numbers[0])(session)
        second = in_thread(lambda: _in_transaction(store, again(numbers[1])))
        time.sleep(0.3)
    assert [first, second.result(30)] == [2, 3]


def test_of_two_that_wait_for_each_other_one_gives_way_and_may_try_again(postgresql: Store) -> None:
    one, other = add_study(postgresql, 1), add_study(postgresql, 2)
    met = threading.Barrier(2)

    def crosswise(first: int, second: int) -> bool:
        try:
            with postgresql.write() as session:
                studies.lock(session, [first])
                met.wait(20)
                studies.lock(session, [second])
        except DatabaseUnavailable as error:
            assert "deadlock" in error.reason
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        went = [pool.submit(crosswise, one, other), pool.submit(crosswise, other, one)]
        assert sorted(future.result(60) for future in went) == [False, True]
    assert not postgresql.outage.lasts  # nothing is wrong with the database


def test_a_reading_block_sees_one_moment(store: Store) -> None:
    add_study(store, 1)
    with store.read() as session:
        before = session.scalar(select(func.count(StudyRow.id)))
        add_study(store, 2)
        assert session.scalar(select(func.count(StudyRow.id))) == before
