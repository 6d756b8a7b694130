"""The two databases a node can use: how each is opened, what may be shown of its address, which of its errors pass by themselves."""

from __future__ import annotations

import json
import math
import sqlite3
import time
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, OperationalError, TimeoutError

from pacs_node.errors import ConfigError

_BUSY_SECONDS = 30
_SERVER_SETTINGS = (
    "-c lock_timeout=30s",  # as SQLite's busy timeout
    "-c idle_in_transaction_session_timeout=60s",  # the server lets go of what a machine that vanished had locked
)
_READER_SETTINGS = ("-c default_transaction_read_only=on", "-c statement_timeout=15s")
_COLLISIONS = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock timeout
_CONNECTION = {"connect_timeout": 5, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}


def make_engine(url: str, *, reads_only: bool = False) -> Engine:
    """Return the engine for a URL; connects to nothing yet. Raises `ConfigError` for a URL that no driver here understands."""
    if url.startswith("sqlite:"):
        return _sqlite_engine(url, reads_only=reads_only)
    if not url.startswith("postgresql+psycopg:"):
        raise _not_understood(url)
    return _postgresql_engine(url, reads_only=reads_only)


def shown(url: str) -> str:
    """Return a database's URL as it may be shown and logged: without the password."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        return "the URL"
    secrets = [name for name in parsed.query if "pass" in name.lower()]
    return parsed.difference_update_query(secrets).render_as_string(hide_password=True)


def reason_of(error: BaseException) -> str:
    """Return what the database or its driver said, in one line."""
    said = str(getattr(error, "orig", None) or error)
    return "; ".join(line.strip() for line in said.splitlines() if line.strip())[:500]


def is_unavailable(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether an error is the database's state (away, locked, full, damaged) and not a fault of the statement."""
    away = isinstance(error, (OperationalError, InterfaceError, TimeoutError)) or type(error) is DatabaseError
    return away or (isinstance(error, DBAPIError) and error.connection_invalidated)


def is_collision(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether a transaction had to give way to another one, while the database is well (PostgreSQL's error codes)."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) in _COLLISIONS


def _sqlite_engine(url: str, *, reads_only: bool) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}, json_serializer=as_json)

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_SECONDS * 1000}"):
            connection.execute(f"PRAGMA {pragma}")
        if reads_only:
            connection.execute("PRAGMA query_only=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def _write_ahead(connection: Any) -> None:
    """Turn WAL on. Of those that open a new file at once one turns it on; SQLite tells the others that it is locked, without waiting."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)


def _postgresql_engine(url: str, *, reads_only: bool) -> Engine:
    settings = (*_SERVER_SETTINGS, *(_READER_SETTINGS if reads_only else ()))
    try:
        engine = create_engine(
            url, pool_pre_ping=True, max_overflow=20, isolation_level="READ COMMITTED", json_serializer=as_json,
            connect_args={**_CONNECTION, "application_name": "pacs-node", "options": " ".join(settings)},
        )  # fmt: skip
    except ModuleNotFoundError as error:
        problem = "the driver for PostgreSQL is not installed: pip install 'pacs-node[postgres]'"
        raise ConfigError("configuration", None, "database.url", problem) from error
    except ArgumentError as error:
        raise _not_understood(url) from error

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def _no_nul(_connection: object, _cursor: object, statement: str, parameters: Any, _context: object, _many: bool) -> tuple[str, Any]:
        return statement, _without_nul(parameters)

    return engine


def _not_understood(url: str) -> ConfigError:
    problem = f"{shown(url)} is not understood: write postgresql+psycopg://user@host/database, or leave it null for SQLite"
    return ConfigError("configuration", None, "database.url", problem)


def _without_nul(parameters: Any) -> Any:
    """Take the NUL characters out of texts, which headers may hold and PostgreSQL's text cannot."""
    if isinstance(parameters, str):
        return parameters.replace("\0", "") if "\0" in parameters else parameters
    if isinstance(parameters, dict):
        return {name: _without_nul(value) for name, value in parameters.items()}
    if isinstance(parameters, (list, tuple)):
        return type(parameters)(_without_nul(value) for value in parameters)
    return parameters


def as_json(value: object) -> str:
    """Write JSON as the standard has it: no NaN and no infinities, which Python would write and PostgreSQL refuse."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
