"""`pacs-node audit`, as an auditor runs it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.database import audit
from pacs_node.database.engine import Store, database_url
from tests.certificates import Authority
from tests.monitoring.audit_structure import faults
from tests.monitoring.collector import Collector

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text(f"node: {{data: {tmp_path / 'data'}}}\n")
    return path


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "data").mkdir()
    with closing(Store(database_url(None, tmp_path / "data"))) as made:
        made.upgrade()
        with made.write() as session:
            for number in range(8):
                audit.note(session, "ada", "retry", f"job {number}", {"run": number}, NOW)
        yield made


def run(config: Path, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["audit", *arguments, "--config", str(config)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return 1, str(done.exception)
    return done.exit_code, done.output


def test_a_whole_trail_is_said_with_its_anchor(config: Path, store: Store) -> None:
    code, said = run(config, "verify")
    with store.read() as session:
        number, anchor = audit.last(session)
    assert (code, number) == (0, 8)
    assert f"8 rows, anchor {anchor}" in said
    assert run(config, "verify", "--anchor", anchor.upper())[0] == 0
    code, said = run(config, "verify", "--json")
    assert json.loads(said) == {"length": 8, "head": anchor, "bad": None, "fault": ""}


def test_the_first_bad_row_is_named_and_the_exit_code_is_1(config: Path, store: Store) -> None:
    with store.write() as session:
        session.execute(text("DROP TRIGGER audit_no_update"))
        session.execute(text("UPDATE audit SET actor = 'eve' WHERE id = 4"))
    code, said = run(config, "verify")
    assert code == 1
    assert "does NOT hold: row 4 of 2026-03-01 12:00:00 UTC (retry job 3, by eve)" in said
    assert "3 rows before are whole" in said


def test_a_trail_without_its_end_fails_with_the_anchor(config: Path, store: Store) -> None:
    with store.read() as session:
        _, anchor = audit.last(session)
    with store.write() as session:
        session.execute(text("DROP TRIGGER audit_no_delete"))
        session.execute(text("DELETE FROM audit WHERE id > 6"))
    assert run(config, "verify")[0] == 0
    code, said = run(config, "verify", "--anchor", anchor)
    assert code == 1
    assert "rows at the end were removed" in said


def test_what_is_no_anchor_is_refused(config: Path, store: Store) -> None:
    code, said = run(config, "verify", "--anchor", "latest")
    assert code == 1
    assert "is no anchor" in said


def test_reading_the_trail_is_audited_itself(config: Path, store: Store) -> None:
    code, said = run(config, "list", "--limit", "3", "--json")
    assert code == 0
    assert [(row["number"], row["action"]) for row in json.loads(said)] == [(9, "audit read"), (8, "retry"), (7, "retry")]
    assert "job 7" in run(config, "list")[1]


def test_an_export_holds_every_row_and_can_be_checked_without_the_node(config: Path, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "audit.jsonl"
    assert run(config, "export", "--out", str(out))[0] == 0
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["number"] for line in lines] == list(range(1, 10))
    with store.read() as session:
        assert [line["hash"] for line in lines] == [entry.hash for entry in audit.every(session)]
    code, said = run(config, "export")
    assert code == 0
    assert [json.loads(line)["number"] for line in said.splitlines()] == list(range(1, 11))


def test_an_export_may_be_of_dicom_messages(config: Path, store: Store) -> None:
    code, said = run(config, "export", "--form", "dicom")
    assert code == 0
    assert len(said.splitlines()) == 9
    assert all(faults(line) == [] for line in said.splitlines())
    assert run(config, "export", "--form", "xml")[0] == 2


def test_an_export_never_overwrites_a_file(config: Path, store: Store, tmp_path: Path) -> None:
    out = tmp_path / "audit.jsonl"
    out.write_text("kept")
    assert run(config, "export", "--out", str(out))[0] == 1
    assert out.read_text() == "kept"


def test_check_says_whether_the_collector_can_be_had(config: Path, store: Store, tmp_path: Path, tool: Callable[[str], str]) -> None:
    authority = Authority(tmp_path / "pki", tool("openssl"))
    collector = Collector(authority.sign("collector"))
    data = config.read_text()
    syslog = f"syslog: {{host: 127.0.0.1, port: {collector.port}, tls: {{ca: {authority.file}}}}}"
    config.write_text(f"{data}audit: {{{syslog}}}\n")
    try:
        said = CliRunner().invoke(app, ["check", "--echo", "--config", str(config)]).output
        assert f"audit collector 127.0.0.1:{collector.port} answers" in said
    finally:
        collector.stop()
    done = CliRunner().invoke(app, ["check", "--echo", "--config", str(config)])
    assert done.exit_code == 1
    assert "cannot be reached" in done.output
    config.write_text(f"{data}audit: {{{syslog.replace(str(authority.file), '/nowhere.pem')}}}\n")
    done = CliRunner().invoke(app, ["check", "--config", str(config)])
    assert done.exit_code == 1
    assert "audit.syslog.tls.ca" in done.output
