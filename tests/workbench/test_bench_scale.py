"""A long history costs nothing: what is measured, and that the claim never looks at it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.config import Settings
from pacs_node.database import jobs, overview
from pacs_node.database.engine import Store, database_url
from pacs_node.database.states import DeliveryState, JobState
from pacs_node.database.tables import DeliveryRow, InstanceRow, JobRow, StudyRow
from pacs_node.journey import now
from pacs_node.workbench.filling import fill


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    """Give a database with a history of 600 studies, and 30 jobs that wait."""
    store = Store(database_url(None, tmp_path))
    store.upgrade()
    fill(store, 600, 3, queued=30)
    yield store
    store.close()


def test_a_history_is_made_in_bulk(full: Store) -> None:
    with full.read() as session:
        counts = {table.__tablename__: session.scalar(select(func.count()).select_from(table)) for table in (StudyRow, InstanceRow, JobRow, DeliveryRow)}
        waiting = session.scalar(select(func.count()).where(JobRow.state == JobState.QUEUED))
    assert counts == {"studies": 600, "instances": 1800, "jobs": 630, "deliveries": 600}
    assert waiting == 30


def test_the_claim_as_it_is_sent_to_the_database_walks_its_index_and_sorts_nothing(full: Store) -> None:
    """Its very statement is explained, with the history in place."""
    sent: list[tuple[str, Any]] = []
    event.listen(full.engine, "before_cursor_execute", lambda connection, cursor, statement, values, *_: sent.append((statement, values)))
    with full.write() as session:
        assert jobs.claim(session, "w", now(), timedelta(seconds=60)) is not None
    statement, values = next(pair for pair in sent if pair[0].startswith("UPDATE jobs"))
    with full.read() as session:
        steps = [row[3] for row in session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert any("jobs USING INDEX ix_jobs_claim (state=?)" in step or "jobs USING COVERING INDEX ix_jobs_claim (state=?)" in step for step in steps), steps
    assert not [step for step in steps if step.startswith("SCAN") or "TEMP B-TREE" in step], steps


def test_the_status_counts_deliveries_in_their_index(full: Store, tmp_path: Path) -> None:
    sent: list[tuple[str, Any]] = []
    settings = Settings.model_validate({"node": {"data": str(tmp_path)}, "database": {"url": full.url}})
    with full.read() as session:
        event.listen(full.engine, "before_cursor_execute", lambda connection, cursor, statement, values, *_: sent.append((statement, values)))
        places = overview.places(session, settings.destinations)
        plans = [
            session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all() for statement, values in list(sent) if "count(" in statement
        ]
    assert {place.name: place.counts[DeliveryState.DELIVERED] for place in places}["archive"] == 600
    steps = [step[3] for plan in plans for step in plan]
    assert len(plans) == 2 and all("INDEX ix_deliveries_due" in step for step in steps if "deliveries" in step), steps


@pytest.mark.slow
def test_rates_with_a_short_and_a_long_history_and_the_claim_are_measured(tmp_path: Path) -> None:
    figures, work = tmp_path / "scale.json", tmp_path / "work"
    work.mkdir()
    line = ["bench", "journey", "--scale", "--many", "40", "--instances", "1000", "--rounds", "1", "--work", str(work), "--json", str(figures)]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 0, done.output
    found = json.loads(figures.read_text())
    assert (found["few"], found["many"], found["claim"]["instances"]) == (10, 40, 1000)
    assert [row["stage"] for row in found["ms"]][:5] == ["index", "assemble", "claim, run, commit", "deliver", "all stages"]
    assert all(row["few"] > 0 and row["many"] > 0 for row in found["ms"])
    assert 0 < found["claim"]["claim_ms_median"] <= found["claim"]["transaction_ms_median"]
    assert list(work.iterdir()) == []
