"""`kill -9` at every named step of the journey: nothing acknowledged is lost, nothing is stuck, nothing comes out twice.

The sender is dcmtk's storescu. As a PACS would, it sends what was not acknowledged again, until all is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select

from pacs_node import crash
from pacs_node.database import removal
from pacs_node.database.tables import DeliveryRow, InstanceRow, ObjectRow
from pacs_node.records import Parcel
from pacs_node.workbench.fsck import examine
from pacs_node.workbench.tables import open_store
from tests.journey.support import ct_study
from tests.node.support import NodeProcess, wait_until
from tests.node.test_processes import assert_kept, stored, write

Make = Callable[..., NodeProcess]
Tool = Callable[[str], str]

COUNT = 8  # instances of the study
RECEPTION = ("received", "part-written", "file-synced", "renamed", "folder-synced", "answered")
INDEX = ("indexed", "moved")
LEFT_BEHIND = {"half-written file, never acknowledged", "result file of a run that was not committed"}
WORK = ("claimed", "analysed", "built", "stored", "sent", "committed")


def order(folder: Path, steps: Sequence[str], count: int = 1) -> str:
    """Return the value of the variable that lets each step kill its process once."""
    folder.mkdir(exist_ok=True)
    return f"{folder}:{','.join(f'{step}={count}' for step in steps)}"


def fired(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def store(tool: Tool, node: NodeProcess, parcels: Sequence[Parcel]) -> list[str]:
    """Send over one association with storescu, as far as it gets; returns the SOP Instance UIDs that were acknowledged with success."""
    names = {str(parcel.path): parcel.sop_uid for parcel in parcels}
    line = [tool("storescu"), "-v", "-aec", "PACS_NODE", "-ta", "20", "-td", "20", "127.0.0.1", str(node.port), *names]
    said = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    acknowledged, sending = [], ""
    for row in (said.stdout + said.stderr).splitlines():
        if match := re.search(r"Sending file: (.*)", row):
            sending = match[1].strip()
        elif "Received Store Response (Success)" in row:
            acknowledged.append(names[sending])
    return acknowledged


def send_until_all_are_acknowledged(tool: Tool, node: NodeProcess, parcels: Sequence[Parcel]) -> list[str]:
    acknowledged: list[str] = []

    def all_are() -> bool:
        if len(acknowledged) == len(parcels):
            return True
        acknowledged.extend(store(tool, node, [parcel for parcel in parcels if parcel.sop_uid not in acknowledged]))
        return len(acknowledged) == len(parcels)

    wait_until(all_are, "all is acknowledged")
    return acknowledged


def assert_whole(node: NodeProcess, parcels: Sequence[Parcel]) -> None:
    """Everything is there once, byte for byte; no job is stuck; each result went out once; fsck agrees."""
    wait_until(node.settled, "the study is through")
    assert len(stored(node)) == len(parcels)
    assert_kept(node, parcels, [parcel.sop_uid for parcel in parcels])
    assert {job["state"] for job in node.jobs()} <= {"not_analysed", "cancelled"}
    with open_store(node.settings) as database, database.read() as session:
        assert len(session.scalars(select(InstanceRow)).all()) == len(parcels)
        objects = {row.sop_uid for row in session.scalars(select(ObjectRow))}
        assert {row.state.value for row in session.scalars(select(DeliveryRow))} <= {"delivered", "cancelled"}
    finished = [job for job in node.jobs() if job["state"] == "not_analysed"]
    out = sorted((node.folder / "out").rglob("*.dcm"))
    assert len(out) == len(finished) and {path.stem for path in out} <= objects
    assert node.terminate() == 0
    report = examine(node.settings, repair=True, deep=True)
    assert {finding.what for finding in report.findings} <= LEFT_BEHIND
    assert examine(node.settings, repair=False, deep=True).findings == []


@pytest.mark.slow
@pytest.mark.peers
def test_reception_killed_at_each_of_its_steps_goes_on_in_the_next_process(make_node: Make, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(reception={"processes": 3})
    monkeypatch.setenv(crash.VARIABLE, order(node.folder / "crashes", RECEPTION))
    node.start()
    parcels = write(node.folder / "in", ct_study(COUNT))
    send_until_all_are_acknowledged(tool, node, parcels)
    assert fired(node.folder / "crashes") == set(RECEPTION)
    assert_whole(node, parcels)


@pytest.mark.slow
@pytest.mark.peers
def test_core_and_worker_killed_again_and_again_go_on_in_the_next_process(make_node: Make, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {*INDEX, *WORK} - {"analysed", "built"}  # a job whose worker dies three times is parked: those two have their turn below
    node = make_node(reception={"processes": 1})
    monkeypatch.setenv(crash.VARIABLE, order(node.folder / "crashes", sorted(steps)))
    node.start()
    parcels = write(node.folder / "in", ct_study(COUNT))
    send_until_all_are_acknowledged(tool, node, parcels)
    wait_until(lambda: fired(node.folder / "crashes") == steps, "every step was passed", 120)
    assert_whole(node, parcels)


@pytest.mark.slow
@pytest.mark.peers
@pytest.mark.parametrize("steps", [RECEPTION, (*INDEX, *WORK)], ids=["reception", "journey"])
def test_the_whole_node_killed_at_each_step_goes_on_at_its_next_start(
    make_node: Make, tool: Tool, monkeypatch: pytest.MonkeyPatch, steps: Sequence[str]
) -> None:
    node = make_node(reception={"processes": 1})
    crashes, parcels, acknowledged = node.folder / "crashes", list[Parcel](), list[str]()
    for step in steps:
        parcels += write(node.folder / f"in-{step}", ct_study(COUNT, study=step[:8], patient=step[:8]))
        with monkeypatch.context() as patch:
            patch.setenv(crash.VARIABLE, order(crashes, [step], 5 if step in RECEPTION else 1))
            node.start()
        new = store(tool, node, [parcel for parcel in parcels if parcel.sop_uid not in acknowledged])
        assert new or step not in RECEPTION  # some get through before the fifth is hit
        acknowledged += new
        wait_until(lambda step=step: step in fired(crashes), f"the step {step} is passed")  # type: ignore[misc]
        node.kill()
    node.start()
    acknowledged += send_until_all_are_acknowledged(tool, node, [parcel for parcel in parcels if parcel.sop_uid not in acknowledged])
    assert len(acknowledged) == len(parcels)
    assert_whole(node, parcels)


@pytest.mark.slow
@pytest.mark.peers
def test_a_start_killed_while_it_sweeps_half_files_sweeps_them_the_next_time(make_node: Make, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(reception={"processes": 1, "reserve": "0B"}, retention={"high_watermark": "0%"})  # always above it: swept at once
    for number in range(3):
        leftover = node.folder / f"data/results/0000/{number}.part"
        leftover.parent.mkdir(parents=True, exist_ok=True)
        leftover.write_bytes(b"half")
        os.utime(leftover, (1_000_000_000, 1_000_000_000))
    monkeypatch.setenv(crash.VARIABLE, order(node.folder / "crashes", ["swept"], 2))
    node.start()
    parcels = write(node.folder / "in", ct_study(COUNT))
    send_until_all_are_acknowledged(tool, node, parcels)
    wait_until(lambda: fired(node.folder / "crashes") == {"swept"} and not list((node.folder / "data/results").rglob("*.part")), "all are swept")
    assert_whole(node, parcels)


def test_a_step_kills_once_and_only_where_it_is_ordered(tmp_path: Path) -> None:
    code = "from pacs_node import crash\nfor _ in range(3): crash.passed('claimed')\nprint('alive')"
    environment = {"PATH": "/usr/bin", "PYTHONPATH": str(Path(crash.__file__).parents[1])}

    def run(**more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment | more, check=False)

    assert run().stdout == "alive\n"
    ordered = {crash.VARIABLE: f"{tmp_path}:claimed=3"}
    assert (killed := run(**ordered)).returncode == -9 and killed.stdout == ""
    assert run(**ordered).stdout == "alive\n"  # it has fired
    assert run(**{crash.VARIABLE: f"{tmp_path}:claimed=4"}).stdout == "alive\n"
    assert "write FOLDER:STEP=COUNT" in run(**{crash.VARIABLE: f"{tmp_path}:claimd=1"}).stderr


@pytest.mark.slow
@pytest.mark.peers
def test_a_removal_killed_between_row_and_file_is_finished_in_the_next_process(make_node: Make, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    node = make_node(reception={"processes": 1}).start()
    parcels = write(node.folder / "in", ct_study(COUNT))
    send_until_all_are_acknowledged(tool, node, parcels)
    wait_until(node.settled, "the study is through")
    assert node.terminate() == 0
    out = sorted((node.folder / "out").rglob("*.dcm"))
    node.config.write_text(node.config.read_text() + "retention: {keep: 1s}\n")
    with monkeypatch.context() as patch:
        patch.setenv(crash.VARIABLE, order(node.folder / "crashes", ["retired", "swept"], 2))
        node.start()
    wait_until(lambda: fired(node.folder / "crashes") == {"retired", "swept"}, "both steps were passed", 120)
    wait_until(lambda: not files_kept(node) and not removals(node), "all that was given up is off the disk", 120)
    assert node.terminate() == 0
    assert sorted((node.folder / "out").rglob("*.dcm")) == out
    with open_store(node.settings) as database, database.read() as session:
        assert all(row.removed_at is not None for row in session.scalars(select(InstanceRow)))
        assert len(session.scalars(select(InstanceRow)).all()) == len(parcels)
    assert examine(node.settings, repair=False, deep=True).findings == []


def files_kept(node: NodeProcess) -> list[Path]:
    return [path for name in ("studies", "results") for path in (node.folder / "data" / name).rglob("*.dcm")]


def removals(node: NodeProcess) -> list[str]:
    with open_store(node.settings) as database, database.read() as session:
        return removal.listed(session)
