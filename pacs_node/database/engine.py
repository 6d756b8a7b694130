"""One engine a process, write transactions that start as such, migrations.

Concurrency, the rule that every function of this package keeps:

* **SQLite** (one machine): ``BEGIN IMMEDIATE`` for every transaction that writes, so that one writes at a time (a deferred one that turns
  into a writer fails at once when another process wrote meanwhile, whatever the busy timeout says), WAL, ``synchronous=FULL``, local disk only.
* **PostgreSQL** (several machines): READ COMMITTED, so that transactions that write run side by side. Whoever decides by what a row says
  takes the row's lock first, in the order *study, jobs, deliveries, destination*, each by number: `studies.lock`, `jobs.lock`,
  `deliveries.get`, `deliveries.destination_row`; functions with ``to_change`` lock where it is true. One UPDATE whose
  WHERE names the state needs no lock besides. What must be there once has a unique index and is inserted by `add_new`, which waits for a
  rival and then finds its row. A job is claimed with SKIP LOCKED. A transaction that only reads sees one moment (REPEATABLE READ).
* Assembly and delivery are the core's alone: one core for each database.

A database that is away, locked or full raises `DatabaseUnavailable` from `read` and `write`; `Store.outage` says it once (`database/outage.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, TimeoutError
from sqlalchemy.orm import InstrumentedAttribute, Session

from pacs_node.database.audit import seal
from pacs_node.database.drivers import is_collision, is_unavailable, make_engine, reason_of, shown
from pacs_node.database.outage import Outage
from pacs_node.database.tables import Base
from pacs_node.errors import ConfigError, DatabaseUnavailable

_MIGRATING = 7_302_511_880_146_001  # PostgreSQL's advisory lock of a node that upgrades the schema: any number that no other program uses


def database_url(url: str | None, data: Path) -> str:
    """Return the configured URL, or that of the SQLite file in the data folder."""
    return url or f"sqlite:///{(data / 'node.db').resolve()}"


class Store:
    """The database as the journey uses it: `read` and `write` give sessions whose transaction ends with the block.

    Connects to nothing yet. ``speaks``: whether the beginning and the end of an outage are logged (a command says it by itself).
    ``reads_only``: the database itself refuses what would change it. Raises `ConfigError` for a URL that no driver here understands.
    """

    def __init__(self, url: str, *, speaks: bool = True, reads_only: bool = False) -> None:
        self.url = url
        self.shown = shown(url)
        self.engine = make_engine(url, reads_only=reads_only)
        self.kind = self.engine.dialect.name  # sqlite | postgresql
        self.outage = Outage(self.shown, speaks=speaks)
        # one moment for all queries of a block, which a SQLite transaction gives by itself
        self._reader = self.engine if self.kind == "sqlite" else self.engine.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Give a session for queries; what it changes is rolled back. Raises `DatabaseUnavailable`."""
        with self._watched(writes=False), self._reader.connect() as connection, Session(bind=connection, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Give a session whose changes are committed at the end of the block, or not at all where it raises. Raises `DatabaseUnavailable`."""
        with (
            self._watched(writes=True),
            self.engine.connect().execution_options(writes=True) as connection,
            connection.begin(),
            Session(bind=connection, expire_on_commit=False) as session,
        ):
            yield session
            session.flush()
            seal(session)

    @contextmanager
    def _watched(self, *, writes: bool) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, TimeoutError) as error:
            if not is_unavailable(error):
                raise
            failure = DatabaseUnavailable(self.shown, reason_of(error))
            if is_collision(error):
                structlog.get_logger().warning("transaction gave way to another", reason=failure.reason)
            else:
                self.outage.failed(failure.reason, writes=writes)
            raise failure from error
        self.outage.worked(writes=writes)

    def upgrade(self) -> tuple[str | None, str | None]:
        """Bring the database to the newest schema (creates it where there is none); returns the revisions before and after.

        Two nodes that start at once do it one after the other. Raises `DatabaseUnavailable`; `ConfigError` for a newer database than this version knows.
        """
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with self._watched(writes=True), self.engine.connect().execution_options(writes=True) as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = 0"))  # another node's migration of a large table may take its time
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATING})
            config.attributes["connection"] = connection
            before = revision_of(connection)
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                problem = f"its schema ({before}) is of a newer version of pacs-node ({error}): use that version, or put an older copy of the database back"
                raise ConfigError("configuration", None, "database.url", problem) from error
            after = revision_of(connection)
            connection.commit()
        return before, after

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def revision_of(connection: Connection) -> str | None:
    """Return the revision of the schema, None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return None if found is None else str(found)


def add_new(session: Session, row: Base, *unique: InstrumentedAttribute[Any], where: Any = None) -> int | None:
    """Insert a row unless one with the same ``unique`` columns is there, be it of a transaction that is about to commit; None then.

    ``where``: the condition of a partial unique index. Returns the new row's number; the object itself stays outside the session.
    """
    session.flush()
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    state = inspect(row)
    statement = insert(type(row)).values({name: state.dict[name] for name in state.mapper.column_attrs.keys() if name in state.dict})  # noqa: SIM118
    once = statement.on_conflict_do_nothing(index_elements=[column.key for column in unique], index_where=where)
    return session.scalars(once.returning(*state.mapper.primary_key)).first()
