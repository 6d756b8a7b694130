"""What `check`, `status` and `db upgrade` say of a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_node.config import Settings
from pacs_node.errors import DatabaseUnavailable, InputError
from pacs_node.workbench import check, tables
from tests.conftest import DATABASES
from tests.postgresql import PostgresServer


def settings(folder: Path, url: str | None) -> Settings:
    return Settings.model_validate({"node": {"data": str(folder / "data")}, "database": {"url": url}})


def lines(given: Settings) -> list[tuple[str, str]]:
    return list(check._database(given))


@pytest.mark.parametrize("kind", DATABASES)
def test_an_empty_database_is_made_ready_by_one_command(kind: str, make_database: Callable[..., str], tmp_path: Path) -> None:
    given = settings(tmp_path, make_database(kind, empty=True))
    assert [mark for mark, _ in lines(given)] == ["ok"]
    assert "its tables were made" in tables.upgrade_database(given)
    assert "has the newest schema" in tables.upgrade_database(given)
    assert lines(given) == [("ok", "database: reachable, 0 studies")]
    assert tables.status_tables(given)["studies"] == []


def test_what_has_no_tables_yet_is_said(make_database: Callable[..., str], tmp_path: Path) -> None:
    given = settings(tmp_path, make_database("postgresql", empty=True))
    with pytest.raises(InputError, match="start the node once"):
        tables.status_tables(given)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql+psycopg://u:sesame@127.0.0.1:1/db", "database.url: the database postgresql+psycopg://u:***@127.0.0.1:1/db cannot be used"),
        ("oracle://u:sesame@h/db", "database.url: oracle://u:***@h/db is not understood: write postgresql+psycopg://"),
    ],
)
def test_a_database_that_cannot_be_used_is_a_fault_that_names_the_key(tmp_path: Path, url: str, said: str) -> None:
    ((mark, text),) = lines(settings(tmp_path, url))
    assert mark == "fault"
    assert text.startswith(said)
    assert "sesame" not in text


def test_commands_say_in_one_sentence_that_the_server_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DatabaseUnavailable, match="start the server"):
        tables.status_tables(settings(tmp_path, "postgresql+psycopg://u:sesame@127.0.0.1:1/db"))
    assert capsys.readouterr() == ("", "")  # the command line prints the sentence


def test_a_database_in_another_encoding_is_a_fault(postgres: PostgresServer, tmp_path: Path) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    ((mark, text),) = lines(settings(tmp_path, postgres.url("latin")))
    postgres.execute("DROP DATABASE latin WITH (FORCE)")
    assert (mark, "encoded in LATIN1" in text) == ("fault", True)
