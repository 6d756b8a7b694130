"""Receivers to measure: a node with the role `receiver` in a folder of its own, and what the system says of its processes."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pacs_node.config import DicomDestination
from pacs_node.delivery.cstore import probe
from pacs_node.errors import StartError
from pacs_node.workbench.children import running_node

AE_TITLE = "PACS_NODE"
_START_SECONDS = 60.0


@dataclass(frozen=True)
class Receivers:
    """Running receivers: where they listen, and their process numbers."""

    port: int
    pids: tuple[int, ...]

    def memory(self) -> list[dict[str, float]]:
        """Return for each process what it occupies in megabytes: ``rss``, and ``pss``, its fair share of what several use. Empty off Linux."""
        return [found for pid in self.pids if (found := _memory(pid))]

    def cpu_seconds(self) -> float:
        """Return the processor time that they have used so far; 0 off Linux."""
        return sum(_cpu_seconds(pid) for pid in self.pids)


@contextmanager
def running_receivers(folder: Path, **reception: Any) -> Iterator[Receivers]:
    """Start a node that only receives, on a free port, with its data in ``folder``; raises `StartError` where it does not come up."""
    port = free_port()
    config = folder / "node.yaml"
    settings = {
        "node": {"address": "127.0.0.1", "port": port, "ae_titles": [AE_TITLE], "data": str(folder / "data"), "rules": None},
        "reception": {"reserve": "100MB", **reception},
    }
    config.write_text(yaml.safe_dump(settings))
    log = folder / "node.log"
    with running_node(config, log, "--role", "receiver") as process:
        wait_until_ready(process, port, log)
        yield Receivers(port, tuple(_children(process.pid)))


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a node answers C-ECHO on its port; raises `StartError` where it ends before that, or takes longer than a minute."""
    destination = DicomDestination(kind="dicom", ae_title=AE_TITLE, address="127.0.0.1", port=port, accepts_research=True)
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if not probe(destination, "BENCH", ()).problem:
            return
        time.sleep(0.1)
    last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    raise StartError(f"the receivers to be measured did not come up: {last[0]}")


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probing:
        probing.bind(("127.0.0.1", 0))
        return int(probing.getsockname()[1])


def _children(parent: int) -> list[int]:
    try:
        entries = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
    return [pid for pid in entries if (fields := _stat(pid)) and int(fields[1]) == parent]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the name; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def _memory(pid: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return {}
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if name in ("Rss", "Pss")}
    return {name.lower(): kilobytes[name] * 1024 / 1e6 for name in ("Rss", "Pss")}
