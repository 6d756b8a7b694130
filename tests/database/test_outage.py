"""A database that goes away and comes back: said once, asked again with pauses, one error whatever the reason."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import select
from structlog.testing import capture_logs

from pacs_node.database import drivers
from pacs_node.database.engine import Store
from pacs_node.database.outage import Outage, pause_after
from pacs_node.database.tables import AlertRow, StudyRow
from pacs_node.errors import ConfigError, DatabaseUnavailable
from tests.postgresql import PostgresServer, binaries


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """Give a server that a test may stop."""
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    own = PostgresServer(programs)
    try:
        yield own.start()
    finally:
        own.remove()


def test_an_outage_is_said_once_and_its_end_too() -> None:
    outage = Outage("x")
    with capture_logs() as lines:
        for _ in range(5):
            outage.failed("gone", writes=False)
        assert outage.lasts and outage.resting
        outage.worked(writes=False)
        outage.worked(writes=True)
    assert [(line["event"], line["log_level"]) for line in lines] == [("database away", "error"), ("database back", "warning")]
    assert not outage.lasts


def test_what_failed_in_writing_is_over_with_a_write() -> None:
    outage = Outage("x", speaks=False)
    outage.failed("locked", writes=True)
    outage.worked(writes=False)  # a locked database still answers queries
    assert outage.lasts
    outage.worked(writes=True)
    assert not outage.lasts


def test_how_long_an_outage_is_over_is_known() -> None:
    outage = Outage("x", speaks=False)
    assert outage.over_for() is None
    outage.failed("gone", writes=False)
    assert outage.over_for() == 0.0
    outage.worked(writes=False)
    assert 0.0 <= (outage.over_for() or 0.0) < 60


def test_the_pauses_grow_to_a_limit() -> None:
    assert [pause_after(count) for count in (1, 2, 3, 4, 5, 1000)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_a_server_that_was_stopped_is_used_again_when_it_is_back(server: PostgresServer, how: signal.Signals) -> None:
    store = Store(server.url("postgres"))
    store.upgrade()
    with capture_logs() as lines:
        server.stop(how)
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable, match="start the server"), store.read() as session:
                session.scalars(select(StudyRow)).all()
        server.start()
        with store.read() as session:
            assert session.scalars(select(StudyRow)).all() == []
    store.close()
    assert [line["event"] for line in lines] == ["database away", "database back"]


def test_a_server_that_goes_away_in_the_middle_of_a_transaction_undoes_it(server: PostgresServer) -> None:
    store = Store(server.url("postgres"), speaks=False)
    store.upgrade()
    with pytest.raises(DatabaseUnavailable), store.write() as session:
        session.add(AlertRow(raised_at=datetime.now(UTC), kind="k", subject="s", message="m"))
        session.flush()
        server.stop(signal.SIGQUIT)
    server.start()
    with store.read() as session:
        assert session.scalars(select(AlertRow)).all() == []
    store.close()


def test_a_sqlite_file_that_another_program_keeps_locked_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drivers, "_BUSY_SECONDS", 0)
    store = Store(f"sqlite:///{tmp_path / 'node.db'}")
    store.upgrade()
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with capture_logs() as lines:
        for _ in range(2):
            with pytest.raises(DatabaseUnavailable, match="keeps it locked"), store.write():
                pass
            with store.read() as session:  # goes on
                assert session.scalars(select(StudyRow)).all() == []
        other.execute("ROLLBACK")
        with store.write():
            pass
    other.close()
    store.close()
    assert [line["event"] for line in lines] == ["database away", "database back"]


def test_a_damaged_sqlite_file_is_an_outage_too(tmp_path: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"no database" * 1000)
    store = Store(f"sqlite:///{tmp_path / 'node.db'}", speaks=False)
    with pytest.raises(DatabaseUnavailable, match="not a database"), store.read() as session:
        session.scalars(select(StudyRow)).all()
    store.close()


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda url: url.replace("/postgres?", "/nowhere?"), "make it on the server"),
        (lambda url: url.replace("//postgres@", "//nobody@"), "make the user on the server"),
        (lambda url: url.split("?")[0] + "?host=/nowhere", "start the server"),
        (lambda url: "postgresql+psycopg://u@127.0.0.1:1/db", "start the server"),
    ],
    ids=["database", "user", "socket", "port"],
)
def test_why_a_server_cannot_be_used_is_said_with_the_remedy(postgres: PostgresServer, change: Callable[[str], str], remedy: str) -> None:
    store = Store(change(postgres.url("postgres")), speaks=False)
    with pytest.raises(DatabaseUnavailable, match=remedy), store.read():
        pass
    store.close()


@pytest.mark.parametrize("url", ["postgresql+psycopg://u:sesame@h/db", "postgresql+psycopg://u@h/db?password=sesame", "mysql://u:sesame@h/db"])
def test_a_password_is_never_shown(url: str) -> None:
    assert "sesame" not in drivers.shown(url)
    try:
        Store(url, speaks=False)
    except ConfigError as error:
        assert "sesame" not in str(error)
        assert "postgresql+psycopg://" in str(error)


@pytest.mark.parametrize("url", ["mysql://h/db", "postgresql://h/db", "sqlite3.db"])
def test_a_url_that_is_not_understood_is_refused_with_the_right_form(url: str) -> None:
    with pytest.raises(ConfigError, match=r"write postgresql\+psycopg://user@host/database"):
        Store(url)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pacs-node\[postgres\]"):
        Store("postgresql+psycopg://u@h/db")
