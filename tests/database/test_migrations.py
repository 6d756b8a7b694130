"""Databases of every former schema, with rows in every table, come to the newest one: nothing is lost, and the code can read it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import pacs_node.database.migrations
from pacs_node.database.engine import Store
from pacs_node.database.tables import Base
from pacs_node.errors import ConfigError

ROWS = 3
FOLDER = Path(pacs_node.database.migrations.__file__).parent


def history() -> list[str]:
    """Return the revisions, oldest first."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))]


def upgrade_to(store: Store, revision: str) -> None:
    with store.engine.connect().execution_options(writes=True) as connection:
        config = Config()
        config.set_main_option("script_location", str(FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()


def words_of(column: sa.Column) -> list[str] | None:
    """Return the words that a column may hold, where the code knows them: none is ever taken out of use."""
    table = Base.metadata.tables.get(column.table.name)
    now = table.columns.get(column.name) if table is not None else None
    return list(now.type.enums) if now is not None and isinstance(now.type, sa.Enum) else None


def value(column: sa.Column, number: int) -> object:
    """Return some value for a column of the ``number``-th row."""
    if column.foreign_keys:
        return None if column.nullable and column.name == "predecessor_id" else number
    if (words := words_of(column)) is not None:
        return words[0]
    if isinstance(column.type, sa.JSON):
        return []
    if isinstance(column.type, sa.DateTime):
        return datetime(2026, 1, number, 12, 30)
    if isinstance(column.type, sa.Boolean) or (column.name in ("priority",)):
        return number % 2
    if isinstance(column.type, sa.Float):
        return 0.5
    if isinstance(column.type, sa.Integer):
        return number
    if isinstance(column.type, sa.LargeBinary):
        return bytes([number] * 256)
    return f"{column.name} {number}"[: getattr(column.type, "length", None)]


def fill(store: Store) -> dict[str, int]:
    """Put rows into every table there is, as they could stand there; returns how many by table."""
    tables = sa.MetaData()
    tables.reflect(store.engine)
    counts = {}
    with store.engine.connect().execution_options(writes=True) as connection:
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            rows = [{column.name: value(column, number) for column in table.columns} for number in range(1, ROWS + 1)]
            for row in rows:
                row.update({name: bool(row[name]) for name, column in table.columns.items() if isinstance(column.type, sa.Boolean)})
            connection.execute(table.insert(), rows)
            counts[table.name] = ROWS
        connection.commit()
    return counts


@pytest.mark.parametrize("revision", history())
def test_a_filled_database_of_a_former_schema_is_upgraded(kind: str, make_database: Callable[..., str], revision: str) -> None:
    store = Store(make_database(kind, empty=True))
    upgrade_to(store, revision)
    before = fill(store)
    assert store.upgrade() == (revision, history()[-1])
    with store.read() as session:
        assert {name: session.scalar(sa.select(sa.func.count()).select_from(sa.table(name))) for name in before} == before
        for mapper in Base.registry.mappers:
            for row in session.scalars(sa.select(mapper.class_)):  # every column is read through its type
                assert row is not None
        if kind == "sqlite":
            assert session.execute(sa.text("PRAGMA foreign_key_check")).all() == []
        assert compare_metadata(MigrationContext.configure(session.connection()), Base.metadata) == []
    store.close()


def test_there_is_one_newest_revision_and_each_has_one_before_it() -> None:
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1
    assert history() == sorted(history())


def test_nodes_that_upgrade_at_once_do_it_one_after_the_other(kind: str, make_database: Callable[..., str]) -> None:
    url = make_database(kind, empty=True)

    def upgrade(_: int) -> tuple[str | None, str | None]:
        store = Store(url)
        try:
            return store.upgrade()
        finally:
            store.close()

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(upgrade, range(4)))
    newest = history()[-1]
    assert sorted(done, key=str) == sorted([(None, newest), *[(newest, newest)] * 3], key=str)


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(kind: str, make_database: Callable[..., str]) -> None:
    store = Store(make_database(kind))
    store.upgrade()
    with store.write() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer version of pacs-node"):
        store.upgrade()
    with store.read() as session:
        assert session.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"
    store.close()
