"""What `/live`, `/ready` and `/metrics` of a running node say while something is wrong with it, and afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pacs_node.delivery.archive import FolderArchive
from tests.journey.support import ct_study
from tests.node.support import NodeProcess, free_port, wait_until
from tests.node.test_page import ask, process_named
from tests.node.test_processes import send, write

Make = Callable[..., NodeProcess]
pytestmark = pytest.mark.slow


class Watched:
    """A node as a monitoring system sees it."""

    def __init__(self, node: NodeProcess, port: int) -> None:
        self.node, self.port = node, port

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample of `/metrics`, None where there is none."""
        answer = ask(self.port, "/metrics")
        for family in text_string_to_metric_families(answer.text) if answer is not None else ():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None

    def health(self, path: str) -> tuple[int, dict[str, Any]]:
        answer: httpx.Response | None = ask(self.port, path)
        return (answer.status_code, answer.json()) if answer is not None else (0, {})

    def is_ready(self) -> bool:
        return self.health("/ready")[0] == 200


@pytest.fixture
def watched(make_node: Make) -> Callable[..., Watched]:
    def make(**changes: Any) -> Watched:
        port = free_port()
        node = make_node(monitoring={"port": port, "hangs_after": "6s"}, **changes).start()
        found = Watched(node, port)
        wait_until(found.is_ready, "the node is ready", 120)
        return found

    return make


def test_a_stopped_destination_and_killed_and_hanging_processes_show_and_so_does_their_end(watched: Callable[..., Watched], tmp_path: Path) -> None:
    port = free_port()
    archive = {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port, "accepts_research": True}
    seen = watched(destinations={"research": archive}, reception={"processes": 1})

    acknowledged: list[str] = []
    for number in range(3):  # three jobs: three failures in a row
        send(seen.node, write(tmp_path / f"in{number}", ct_study(2, study=f"S{number}", patient=f"P{number}")), acknowledged)
    assert len(acknowledged) == 6
    wait_until(lambda: seen.value("pacs_node_destination_up", destination="research") == 0, "the destination is seen to be down", 90)
    assert (seen.value("pacs_node_delivery_attempts_total", destination="research", outcome="failed") or 0) >= 3
    assert (seen.value("pacs_node_deliveries", destination="research", state="waiting") or 0) >= 1
    status, said = seen.health("/ready")
    assert (status, said["checks"]["destinations"]["ok"], said["checks"]["destinations"]["reason"]) == (200, False, "down: research")
    assert seen.value("pacs_node_alerts_open", kind="destination") == 1

    assert seen.value("pacs_node_instances_answered_total", answer="stored") == 6
    assert seen.value("pacs_node_spool_sync_seconds_count") == 6
    assert seen.value("pacs_node_associations_ended_total", how="released") == seen.value("pacs_node_associations_accepted_total")
    assert (seen.value("pacs_node_received_bytes_total") or 0) > 6 * 100
    assert seen.value("pacs_node_jobs_ended_total", bundle="notice", outcome="not_analysed") == 3
    assert seen.value("pacs_node_job_step_seconds_count", step="build") == 3

    with FolderArchive(tmp_path / "archive", "ARCHIVE", port):
        _kill_and_stop(seen)
        wait_until(lambda: seen.value("pacs_node_destination_up", destination="research") == 1, "the destination is seen to be up", 90)
        wait_until(lambda: seen.value("pacs_node_deliveries", destination="research", state="delivered") == 3, "everything is delivered")
    assert seen.health("/ready")[1]["checks"]["destinations"]["ok"]


def _kill_and_stop(seen: Watched) -> None:
    killed = process_named(seen.node, "worker-0")
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: seen.value("pacs_node_process_deaths_total", process="worker-0") == 1, "the worker's death is counted")
    wait_until(lambda: process_named(seen.node, "worker-0") != killed, "it is replaced")
    core = process_named(seen.node, "core")
    os.kill(core, signal.SIGSTOP)
    try:
        wait_until(lambda: seen.health("/live")[0] == 503, "the core is seen to hang")
        assert any(reason.startswith("core: no sign of life") for reason in seen.health("/live")[1]["reasons"])
        status, said = seen.health("/ready")
        assert status == 503
        assert any(reason.startswith("core: ") for reason in said["reasons"])
    finally:
        os.kill(core, signal.SIGCONT)
    wait_until(lambda: seen.health("/live")[0] == 200, "the core is seen to live")
    wait_until(seen.is_ready, "the node is ready again")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_shows_until_there_is_room(watched: Callable[..., Watched], small_disk: Path, tmp_path: Path) -> None:
    seen = watched(node={"data": str(small_disk / "data")}, reception={"reserve": "8MB", "processes": 1}, retention={"high_watermark": "100%"})
    assert (seen.value("pacs_node_disk_pressure"), seen.value("pacs_node_disk_reserve_bytes")) == (0, 8e6)

    filler = small_disk / "filler"
    filler.write_bytes(b"\0" * (_free(small_disk) - 4_000_000))
    wait_until(lambda: seen.value("pacs_node_disk_pressure") == 4, "the disk is seen to be full")
    status, said = seen.health("/ready")
    assert status == 503
    assert any(re.match(r"disk: 0\.0 GB free: .*reception\.reserve", reason) for reason in said["reasons"])
    assert seen.health("/live")[0] == 200
    refused: list[str] = []
    send(seen.node, write(tmp_path / "in", ct_study(2)), refused)
    assert refused == []
    wait_until(lambda: seen.value("pacs_node_associations_rejected_total", reason="disk"), "the rejection is counted")
    wait_until(lambda: seen.value("pacs_node_alerts_open", kind="disk") == 1, "the core has said it")

    filler.unlink()
    wait_until(seen.is_ready, "the node is ready again")
    wait_until(lambda: seen.value("pacs_node_disk_pressure") == 0, "the disk is seen to have room")
    send(seen.node, write(tmp_path / "in", ct_study(2)), refused)
    assert len(refused) == 2
    assert seen.value("pacs_node_instances_answered_total", answer="stored") == 2


def _free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
