"""A backup of a node that runs and is sent to, restored in another place."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import pytest
from sqlalchemy import select

from pacs_node.database.tables import DeliveryRow, ObjectRow
from pacs_node.workbench.fsck import examine
from pacs_node.workbench.tables import open_store
from tests.journey.support import ct_study
from tests.node.support import NodeProcess, wait_until
from tests.node.test_processes import assert_kept, stored, write

Make = Callable[..., NodeProcess]
Tool = Callable[[str], str]

COUNT = 60  # instances in each of the two studies that come meanwhile


def results(node: NodeProcess) -> dict[str, str]:
    """Return SOP Instance UID → SHA-256 of what a node built."""
    with open_store(node.settings) as store, store.read() as session:
        return {row.sop_uid: row.sha256 for row in session.scalars(select(ObjectRow))}


@pytest.mark.slow
@pytest.mark.peers
def test_a_node_that_is_sent_to_is_copied_and_its_copy_goes_on(make_node: Make, tool: Tool) -> None:
    node = make_node(retention={"keep": "100d"}).start()
    done = write(node.folder / "in-done", ct_study(6))
    subprocess.run([tool("storescu"), "-aec", "PACS_NODE", "127.0.0.1", str(node.port), *(str(one.path) for one in done)], check=True, timeout=60)
    wait_until(node.settled, "the first study is through")
    first = results(node)
    coming = [write(node.folder / f"in-{name}", ct_study(COUNT, study=name, patient=name)) for name in "BC"]
    line = [tool("storescu"), "-aec", "PACS_NODE", "127.0.0.1", str(node.port)]
    with subprocess.Popen([*line, *(str(one.path) for parcels in coming for one in parcels)]) as sender:
        wait_until(lambda: len(stored(node)) > len(done), "the second study is coming")
        said = node.command("backup", "--out", str(node.folder / "copy"))
        assert said.returncode == 0, said.stderr
        assert "files are missing" not in said.stdout
    assert sender.returncode == 0
    wait_until(node.settled, "all of it is through")
    assert len(stored(node)) == 6 + 2 * COUNT

    other = make_node(retention={"keep": "100d"})
    shutil.copytree(node.folder / "copy/data", other.folder / "data")
    assert examine(other.settings, repair=False, deep=True).findings == []
    in_copy = set(stored(other))
    arrivals = len(list((other.folder / "data/spool/new").rglob("*.dcm")))
    other.start()
    wait_until(lambda: not any((other.folder / "data/spool/new").rglob("*.dcm")), "the arrivals of the copy are indexed")
    wait_until(other.settled, "the copy is through")
    there = stored(other)
    assert in_copy <= set(there) and len(there) == len(in_copy) + arrivals
    assert_kept(other, [*done, *coming[0], *coming[1]], list(there))
    assert not {path.stem for path in (other.folder / "out").rglob("*.dcm")} & first.keys(), "what was out is not sent again"
    assert {uid: digest for uid, digest in results(other).items() if uid in first} == first
    with open_store(other.settings) as store, store.read() as session:
        assert {row.state.value for row in session.scalars(select(DeliveryRow))} <= {"delivered", "cancelled"}
    assert other.terminate() == 0 and node.terminate() == 0
    assert examine(other.settings, repair=False, deep=True).findings == []


@pytest.mark.slow
def test_the_command_says_what_it_made_and_what_is_in_the_way(make_node: Make) -> None:
    node = make_node()
    refused = node.command("backup", "--out", str(node.folder / "copy.tar"))
    assert refused.returncode == 1 and "no node has run in the data folder" in refused.stderr
    node.start()
    wait_until(node.has_tables, "the node has a database")
    made = node.command("backup", "--out", str(node.folder / "copy.tar"), "--json")
    assert made.returncode == 0 and '"missing": []' in made.stdout and (node.folder / "copy.tar").is_file()
    again = node.command("backup", "--out", str(node.folder / "copy.tar"))
    assert again.returncode == 1 and "never written over another" in again.stderr
