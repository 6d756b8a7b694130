from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import StatementError

from pacs_node.database.engine import Store, database_url
from pacs_node.database.tables import AlertRow, Base


def alert(message: str, at: datetime | None = None) -> AlertRow:
    return AlertRow(raised_at=at or datetime.now(UTC), kind="test", subject="x", message=message)


def test_the_migrations_make_exactly_the_tables_of_the_code(store: Store) -> None:
    with store.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_upgrading_twice_changes_nothing(store: Store) -> None:
    with store.write() as session:
        session.add(alert("kept"))
    store.upgrade()
    with store.read() as session:
        assert session.scalars(select(AlertRow)).one().message == "kept"


def test_sqlite_is_durable_and_writes_ahead(tmp_path: Path) -> None:
    store = Store(database_url(None, tmp_path))
    with store.read() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA synchronous")) == 2  # FULL
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
    store.close()


def test_a_block_that_raises_commits_nothing(store: Store) -> None:
    with pytest.raises(RuntimeError), store.write() as session:
        session.add(alert("lost"))
        session.flush()
        raise RuntimeError("on purpose")
    with store.read() as session:
        assert session.scalars(select(AlertRow)).all() == []


def test_a_reading_block_changes_nothing(store: Store) -> None:
    with store.read() as session:
        session.add(alert("lost"))
        session.flush()
    with store.read() as session:
        assert session.scalars(select(AlertRow)).all() == []


def test_times_come_back_aware_and_in_utc(store: Store) -> None:
    there = datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with store.write() as session:
        session.add(alert("when", there))
    with store.read() as session:
        back = session.scalars(select(AlertRow)).one().raised_at
    assert back == there
    assert back.utcoffset() == timedelta(0)


def test_a_time_without_timezone_is_refused(store: Store) -> None:
    with pytest.raises(StatementError, match="without timezone"), store.write() as session:
        session.add(alert("naive", datetime(2026, 1, 1)))
        session.flush()


def test_processes_that_read_and_then_write_never_fail_for_a_lock_of_sqlite(make_database: Callable[..., str]) -> None:
    store = Store(make_database("sqlite"))
    store.upgrade()
    script = """
import sys
from collections.abc import Callable
from datetime import datetime, UTC
from sqlalchemy import select, func
from pacs_node.database.engine import Store
from pacs_node.database.tables import AlertRow
store = Store(sys.argv[1])
for _ in range(40):
    with store.write() as session:
        count = session.scalar(select(func.count(AlertRow.id)))
        session.add(AlertRow(raised_at=datetime.now(UTC), kind='n', subject=str(count), message=''))
"""
    running = [subprocess.Popen([sys.executable, "-c", script, store.url]) for _ in range(3)]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    with store.read() as session:
        subjects = [int(row.subject) for row in session.scalars(select(AlertRow).order_by(AlertRow.id))]
    assert subjects == list(range(120))  # each saw what the one before had committed
    store.close()
