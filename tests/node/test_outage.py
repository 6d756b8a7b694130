"""A node on PostgreSQL as processes: the server is stopped under it and started again."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pacs_node.workbench.fsck import examine
from tests.journey.support import ct_study
from tests.node.support import NodeProcess, wait_until
from tests.postgresql import PostgresServer, binaries

Make = Callable[..., NodeProcess]
Tool = Callable[[str], str]


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


def write(folder: Path, study: str, count: int = 20) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(ct_study(count, study=study)):
        paths.append(folder / f"{study}-{index:04d}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def storescu(tool: Tool, node: NodeProcess, files: Sequence[Path]) -> float:
    """Send files with dcmtk's storescu; returns how many seconds it took. All have to be acknowledged with success."""
    begun = time.monotonic()
    line = [tool("storescu"), "-v", "-aec", "PACS_NODE", "127.0.0.1", str(node.port), *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert (done.stdout + done.stderr).count("Received Store Response (Success)") == len(files)
    return time.monotonic() - begun


def lines(node: NodeProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in node.log().splitlines() if line.startswith("{")]


def said(node: NodeProcess, event: str) -> list[str]:
    """Return which processes said something."""
    return [line["process"] for line in lines(node) if line["event"] == event]


def notices(node: NodeProcess) -> int:
    return len(list((node.folder / "out").rglob("*.dcm")))


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "crashed"])
def test_intake_goes_on_while_postgresql_is_away_and_work_resumes_by_itself(
    make_node: Make, server: PostgresServer, tool: Tool, tmp_path: Path, how: signal.Signals
) -> None:
    node = make_node(database={"url": server.url("postgres")}).start()
    before = storescu(tool, node, write(tmp_path / "in", "A"))
    wait_until(lambda: node.settled() and notices(node) == 1, "the first study is through")
    server.stop(how)
    meanwhile = storescu(tool, node, write(tmp_path / "in", "B"))
    assert meanwhile < before + 2  # no slower: no database stands in the way of a C-STORE
    wait_until(lambda: "core" in said(node, "database away") and "worker-0" in said(node, "database away"), "core and worker have noticed")
    shown = node.command("status")
    assert shown.returncode == 1
    assert "start the server" in shown.stderr
    time.sleep(3)  # some ticks of all duties
    storescu(tool, node, write(tmp_path / "in", "C"))
    assert len(node.children()) == 4
    server.start()
    wait_until(lambda: notices(node) == 3 and node.settled(), "both studies are through")
    assert sorted(said(node, "database away")) == ["core", "worker-0"]  # each process once
    assert sorted(said(node, "database back")) == ["core", "worker-0"]
    assert "Traceback" not in node.log()
    assert [job["state"] for job in node.jobs()] == ["not_analysed"] * 3
    assert len(lines(node)) < 60
    assert node.terminate() == 0


@pytest.mark.slow
def test_a_node_stops_and_starts_in_order_while_postgresql_is_away(make_node: Make, server: PostgresServer) -> None:
    node = make_node(database={"url": server.url("postgres")}).start()
    wait_until(lambda: "core ready" in node.log(), "the core works")
    server.stop()
    wait_until(lambda: said(node, "database away"), "the outage is noticed")
    assert node.terminate() == 0
    again = node.command("run")
    assert again.returncode == 1
    assert again.stderr.strip().splitlines()[-1].startswith("error: the database postgresql+psycopg://postgres@/postgres")
    assert "Traceback" not in again.stderr
    server.start()
    node.start()
    wait_until(lambda: node.log().count("core ready") == 2, "the core works again")


@pytest.mark.slow
@pytest.mark.peers
def test_a_core_that_starts_while_the_server_is_away_waits_for_it(make_node: Make, server: PostgresServer, tool: Tool, tmp_path: Path) -> None:
    node = make_node(database={"url": server.url("postgres")}).start()
    wait_until(lambda: "core ready" in node.log(), "the core works")
    server.stop()
    storescu(tool, node, write(tmp_path / "in", "A"))
    for pid in node.children():
        name = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[-2]
        if name in ("core", "worker-0"):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(said(node, "process died")) == 2 and len(node.children()) == 4, "both are replaced")
    time.sleep(3)
    server.start()
    wait_until(lambda: notices(node) == 1 and node.settled(), "the study is through")
    assert len(said(node, "process died")) == 2  # none died of the outage
    assert "Traceback" not in node.log()


@pytest.mark.slow
@pytest.mark.peers
def test_a_sqlite_file_that_stays_locked_stops_no_intake(make_node: Make, tool: Tool, tmp_path: Path) -> None:
    node = make_node().start()
    before = storescu(tool, node, write(tmp_path / "in", "A"))
    wait_until(lambda: node.settled() and notices(node) == 1, "the first study is through")
    other = sqlite3.connect(node.folder / "data" / "node.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert storescu(tool, node, write(tmp_path / "in", "B")) < before + 2
    wait_until(lambda: "core" in said(node, "database away"), "the core has waited for the busy time", 90)
    other.execute("ROLLBACK")
    other.close()
    wait_until(lambda: notices(node) == 2 and node.settled(), "the second study is through")
    assert "Traceback" not in node.log()
    assert said(node, "database away").count("core") == 1


@pytest.mark.slow
@pytest.mark.peers
def test_a_whole_node_on_postgresql_takes_a_study_and_returns_its_results(
    make_node: Make, make_database: Callable[..., str], tool: Tool, tmp_path: Path
) -> None:
    node = make_node(database={"url": make_database("postgresql", empty=True)}).start()
    storescu(tool, node, write(tmp_path / "in", "A"))
    wait_until(lambda: notices(node) == 1 and node.settled(), "the study is through")
    (study,) = node.status()["studies"]
    assert (study["state"], study["instances"]) == ("complete", 20)
    assert examine(node.settings, repair=False, deep=True).findings == []
    assert not list((node.folder / "data").glob("node.db*"))
    assert node.terminate() == 0
