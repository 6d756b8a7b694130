"""One engine a process, write transactions that start as such, migrations.

SQLite: ``BEGIN IMMEDIATE`` for every transaction that writes (a deferred one that turns into a writer fails at once when
another process wrote meanwhile, whatever the busy timeout says), WAL, ``synchronous=FULL``, local disk only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

_BUSY_SECONDS = 30


def database_url(url: str | None, data: Path) -> str:
    """Return the configured URL, or that of the SQLite file in the data folder."""
    return url or f"sqlite:///{(data / 'node.db').resolve()}"


class Store:
    """The database as the journey uses it: `read` and `write` give sessions whose transaction ends with the block."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = _sqlite_engine(url) if url.startswith("sqlite") else create_engine(url, pool_pre_ping=True)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session for queries; what it changes is rolled back."""
        with self.engine.connect() as connection, Session(bind=connection, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session whose changes are committed at the end of the block, or not at all where it raises."""
        with (
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
            Session(bind=connection, expire_on_commit=False) as session,
        ):
            yield session
            session.flush()

    def upgrade(self) -> None:
        """Bring the database to the newest schema (creates it where there is none)."""
        with self.engine.connect().execution_options(writes=True) as connection:
            config = Config()
            config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def _sqlite_engine(url: str) -> Engine:
    engine = create_engine(url, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver must not open transactions of its own
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_SECONDS * 1000}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine
