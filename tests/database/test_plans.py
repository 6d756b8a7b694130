"""How each statement of the daily work is carried out on large tables: by indices, on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.orm import Session

from pacs_node.database import alerts, audit, deliveries, jobs, overview, studies
from pacs_node.database.engine import Store
from pacs_node.database.states import STUCK, DeliveryState, JobState, StudyState
from pacs_node.workbench import tables
from tests.conftest import DATABASES

NOW = datetime(2026, 6, 1, tzinfo=UTC)
STUDIES, INSTANCES, JOBS, DELIVERIES = 2_000, 30_000, 10_000, 20_000
BIG = ("studies", "series", "instances", "jobs", "objects", "deliveries", "alerts")

FILL = (
    # one study in a hundred waits, its jobs are queued or running, its deliveries due; the rest is history
    ("studies", STUDIES, {
        "study_uid": "'1.2.' || i", "state": "CASE WHEN i % 100 = 0 THEN 'receiving' ELSE 'complete' END", "patient_id": "''", "issuer": "''",
        "patient_name": "''", "birth_date": "''", "accession": "'A' || i", "description": "''", "first_arrival": "'2026-01-01 00:00:00'",
        "last_arrival": "CASE WHEN i % 2 = 0 THEN '2026-01-02 00:00:00' ELSE '2026-01-03 00:00:00' END",
        "look_again_at": "CASE WHEN i % 100 = 0 THEN '2026-01-02 00:00:00' END", "waiting_for": "''", "outcome": "''", "held_reason": "''",
        "released_identities": "'[]'", "decisions": "'[]'",
    }),
    ("series", STUDIES, {"study_id": "i", "series_uid": "'1.2.' || i || '.1'", "modality": "'CT'", "number": "1", "description": "''"}),
    ("instances", INSTANCES, {
        "study_id": f"1 + i % {STUDIES}", "series_id": f"1 + i % {STUDIES}", "sop_uid": "'1.2.3.' || i", "sop_class_uid": "'1'", "transfer_syntax_uid": "'1'",
        "version": "1", "identity": "'[]'", "own": "FALSE", "arrival": "'a' || i", "association": "'as' || (i / 20)", "calling_ae": "''", "called_ae": "''",
        "address": "''", "received_at": "'2026-01-01 00:00:00'",
    }),
    ("jobs", JOBS, {
        "study_id": f"1 + i % {STUDIES}", "pipeline": "'ct'", "series_uids": "'[]'", "rules": "'[]'", "targets": "'[]'", "digest": "''",
        "state": "CASE WHEN i % 100 = 0 THEN 'queued' WHEN i % 1000 = 1 THEN 'running' ELSE 'done' END", "priority": "1", "run": "1", "complete_reason": "''",
        "partial": "FALSE", "attempts": "0", "not_before": "'2026-01-01 00:00:00'", "worker": "'w'", "created_at": "'2026-01-01 00:00:00'", "progress": "0",
        "reason": "''", "told": "FALSE", "finding": "'{}'", "turn": "'2026-01-01 00:00:00'",
        "lease_until": "CASE WHEN i % 1000 = 1 THEN '2026-01-01 00:00:00' END",
    }),
    ("objects", DELIVERIES, {
        "job_id": f"1 + i % {JOBS}", "run": "1", "variant": "''", "kind": "'sr'", "sop_uid": "'1.3.' || i", "sop_class_uid": "'1'", "series_uid": "'1'",
        "transfer_syntax_uid": "'1'", "path": "'p' || i", "sha256": "''", "position": "1", "faults": "'[]'",
    }),
    ("deliveries", DELIVERIES, {
        "object_id": "i", "job_id": f"1 + i % {JOBS}", "study_id": f"1 + (1 + i % {JOBS}) % {STUDIES}", "destination": "'archive'", "position": "1",
        "state": "CASE WHEN i % 500 = 0 THEN 'waiting' WHEN i % 500 = 1 THEN 'sending' ELSE 'delivered' END", "attempts": "1",
        "next_attempt_at": "'2026-01-01 00:00:00'", "message": "''",
    }),
    ("alerts", 5_000, {
        "raised_at": "'2026-01-01 00:00:00'", "cleared_at": "CASE WHEN i % 500 = 0 THEN NULL ELSE '2026-01-02 00:00:00' END", "kind": "'parked'",
        "subject": "'job ' || i", "message": "''",
    }),
)  # fmt: skip


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Give a database that has been in use for long."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'node.db'}"
    else:
        server = request.getfixturevalue("postgres")
        server.execute("CREATE DATABASE plans")
        url = server.url("plans")
    with closing(Store(url)) as store:
        store.upgrade()
        with store.write() as session:
            for table, count, columns in FILL:
                session.execute(text(fill(table, count, columns, store.kind)))
            session.execute(text("ANALYZE"))
        yield store
    if request.param == "postgresql":
        server.execute("DROP DATABASE plans WITH (FORCE)")


def fill(table: str, count: int, columns: dict[str, str], kind: str) -> str:
    typed = {name: typed_for(kind, name, expression) for name, expression in columns.items()}
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
    return f"INSERT INTO {table} ({', '.join(typed)}) {numbers} SELECT {', '.join(typed.values())} FROM n"


def typed_for(kind: str, name: str, expression: str) -> str:
    if kind == "sqlite":  # SQLAlchemy writes microseconds there, and texts are compared
        return expression.replace(":00'", ":00.000000'")
    if name.endswith(("_at", "_arrival", "_until", "turn", "not_before")):
        return f"CAST({expression} AS timestamp)"
    return f"CAST({expression} AS json)" if expression in ("'[]'", "'{}'") else expression


def plans(store: Store, work: Callable[[Session], object]) -> dict[str, str]:
    """Return how each statement that ``work`` issues is carried out, by statement; nothing is changed."""
    issued: list[tuple[str, Any]] = []

    def note(_connection: Connection, _cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE")):
            issued.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    try:
        with pytest.raises(Undone), store.write() as session:
            work(session)
            session.flush()
            raise Undone
    finally:
        event.remove(store.engine, "before_cursor_execute", note)
    assert issued
    explain = "EXPLAIN QUERY PLAN " if store.kind == "sqlite" else "EXPLAIN "
    found = {}
    with store.read() as session:
        for statement, parameters in issued:
            rows = session.connection().exec_driver_sql(explain + statement, parameters)
            found[statement] = "\n".join(str(row[-1]) for row in rows)
    return found


class Undone(Exception):
    """Ends a transaction without a commit."""


def walks_a_table(plan: str) -> list[str]:
    """Return the steps that read one of the large tables from its beginning to its end."""
    steps = [step.strip() for step in plan.splitlines()]
    whole = [step for step in steps if step.startswith("SCAN ") and "USING" not in step and step.split()[1].split("_")[0] in BIG]
    return whole + [step for step in steps if "Seq Scan on" in step and step.split("Seq Scan on ")[1].split()[0] in BIG]


def claim(session: Session) -> object:
    return jobs.claim(session, "w", NOW, timedelta(seconds=60))


WORK: dict[str, Callable[[Session], object]] = {
    "claim": claim,
    "is there a job": lambda session: jobs.something_waits(session, NOW),
    "untold": jobs.untold,
    "expired": lambda session: jobs.expired(session, NOW, to_change=True),
    "left behind": lambda session: jobs.left_behind(session, NOW),
    "running of a worker": lambda session: jobs.running_of(session, "w"),
    "beat": lambda session: jobs.beat(session, 1, "w", NOW, 0.5),
    "commit of a job": lambda session: jobs.still_mine(session, 1001, "w"),
    "jobs of a study": lambda session: jobs.jobs_of(session, 7, to_change=True),
    "last run": lambda session: jobs.highest_run(session, 7, "ct"),
    "newest jobs": jobs.list_jobs,
    "cancel the jobs of a study": lambda session: jobs.cancel_unfinished(session, 7, NOW, "x"),
    "due studies": lambda session: studies.due_studies(session, NOW, timedelta(hours=2)),
    "a whole study": lambda session: studies.get_study(session, 7, to_change=True),
    "known instances": lambda session: studies.find_instances(session, [f"1.2.3.{number}" for number in range(1, 20)]),
    "known arrivals": lambda session: studies.known_arrivals(session, [f"a{number}" for number in range(1, 20)]),
    "what an association brought": lambda session: studies.brought_by(session, "as7"),
    "has a sender sent of a study": lambda session: studies.has_sent(session, 7, "CT1"),
    "end of the audit trail": audit.last,
    "studies of an association": lambda session: studies.studies_of_association(session, "as7"),
    "due group": lambda session: deliveries.due_group(session, "archive", NOW),
    "start": lambda session: deliveries.start(session, [500, 1000], NOW),
    "left sending": lambda session: deliveries.left_sending(session, "archive"),
    "one delivery": lambda session: deliveries.get(session, 500),
    "newest deliveries": deliveries.list_deliveries,
    "deliveries of a job": lambda session: deliveries.list_deliveries(session, 1000, 7),
    "cancel the deliveries of a study": lambda session: deliveries.cancel_unfinished(session, 7, "x"),
    "delivered of a study": lambda session: deliveries.delivered_count(session, 7),
    "open alerts": alerts.open_alerts,
    "raise an alert": lambda session: alerts.raise_alert(session, "parked", "job 500", "again", NOW),
    "clear an alert": lambda session: alerts.clear_alert(session, "parked", "job 500", NOW),
    "newest studies": lambda session: tables.study_rows(session, 5),
    "results that came back": tables._came_back,
    "a further page of studies": lambda session: overview.newest_studies(session, 50, after=overview.Mark(datetime(2026, 1, 2, tzinfo=UTC), 900)),
    "held studies": lambda session: overview.newest_studies(session, 50, state=StudyState.HELD),
    "complete studies": lambda session: overview.newest_studies(session, 50, state=StudyState.COMPLETE),
    "a study by accession or UID": lambda session: overview.find_studies(session, "A7"),
    "a study by instance": lambda session: overview.find_studies(session, "1.2.3.7"),
    "a study by result": lambda session: overview.find_studies(session, "1.3.7"),
    "intake rate": lambda session: overview.intake_rate(session, NOW, timedelta(minutes=10)),
    "studies of a day": lambda session: overview.arrivals_by_hour(session, NOW, 24),
    "studies that wait": overview.waiting_studies,
    "jobs that wait": overview.waiting_jobs,
    "running jobs": lambda session: overview.newest_jobs(session, 50, state=JobState.RUNNING),
    "a further page of jobs": lambda session: overview.newest_jobs(session, 50, before=500),
    "stuck deliveries": lambda session: overview.newest_deliveries(session, 50, destinations=["archive"], states=STUCK),
    "a further page of deliveries": lambda session: overview.newest_deliveries(session, 50, before=500),
    "originals of a study": lambda session: overview.originals_of(session, 7),
    "recent findings": lambda session: overview.recent_findings(session, 500),
}


@pytest.mark.parametrize("name", WORK)
def test_no_large_table_is_read_as_a_whole(filled: Store, name: str) -> None:
    if filled.kind == "postgresql" and name in ("a further page of studies", "complete studies", "recent findings"):
        pytest.skip("PostgreSQL sorts a table of so few rows, of which most are asked for, rather than walk an index")
    for statement, plan in plans(filled, WORK[name]).items():
        if "WHERE" not in statement and "LIMIT" in statement:
            continue  # the newest by number: the table itself is in that order, and the reading stops at the limit
        assert walks_a_table(plan) == [], f"{statement}\n{plan}"


def test_the_claim_needs_no_sorting(filled: Store) -> None:
    statement, plan = next((statement, plan) for statement, plan in plans(filled, claim).items() if statement.startswith("UPDATE jobs"))
    assert "ix_jobs_claim" in plan, statement
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan


def test_counting_the_outbox_reads_an_index_and_no_row(filled: Store) -> None:
    with filled.read() as session:
        if filled.kind == "postgresql":
            pytest.skip("PostgreSQL reads the table of deliveries as a whole to count them all for the status page")
        counted = session.execute(text("EXPLAIN QUERY PLAN SELECT destination, state, count(*) FROM deliveries GROUP BY destination, state"))
        assert "COVERING INDEX" in " ".join(str(row[-1]) for row in counted)


@pytest.mark.parametrize("count", [overview.studies_by_state, overview.jobs_by_state])
def test_counting_studies_and_jobs_reads_an_index_and_no_row(filled: Store, count: Callable[[Session], object]) -> None:
    if filled.kind == "postgresql":
        pytest.skip("PostgreSQL may read a whole table to count it")
    assert all("COVERING INDEX" in plan for plan in plans(filled, count).values())


def test_the_test_would_see_a_table_that_is_read_as_a_whole(filled: Store) -> None:
    def by_message(session: Session) -> object:
        return session.execute(text("SELECT id FROM deliveries WHERE message = 'x'")).all()

    (plan,) = plans(filled, by_message).values()
    assert walks_a_table(plan)


def test_the_tables_are_as_large_as_said(filled: Store, tmp_path: Path) -> None:
    with filled.read() as session:
        assert session.scalar(text("SELECT count(*) FROM instances")) == INSTANCES
        waiting = text(f"SELECT count(*) FROM deliveries WHERE state = '{DeliveryState.WAITING.value}'")
        assert session.scalar(waiting) == DELIVERIES // 500
