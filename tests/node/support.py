"""A real node as its own process tree, on free ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from pacs_node.config import DicomDestination, Settings, load_settings
from pacs_node.delivery.cstore import probe
from pacs_node.errors import InputError
from pacs_node.workbench import tables

NOTICE_RULES = """
rules:
  - name: tell
    when: {Modality: CT}
    pipeline: null
    results: [notice]
    send_to: [research]
  - name: anything else
    otherwise: true
    pipeline: null
    results: []
"""


def free_port() -> int:
    with socket.socket() as probe_socket:
        probe_socket.bind(("127.0.0.1", 0))
        return int(probe_socket.getsockname()[1])


def wait_until(holds: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = holds()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"not in {seconds:.0f} s: {what}")


class NodeProcess:
    """`pacs-node run` with a configuration of its own."""

    def __init__(self, folder: Path, rules: str = NOTICE_RULES, **changes: dict[str, Any]) -> None:
        self.folder, self.port = folder, free_port()
        (folder / "rules.yaml").write_text(rules)
        config: dict[str, Any] = {
            "node": {"name": "test", "address": "127.0.0.1", "port": self.port, "data": str(folder / "data"), "rules": str(folder / "rules.yaml")},
            "reception": {"reserve": "0B"},
            "assembly": {"quiet": "1s"},
            "monitoring": {"port": None},  # several nodes run side by side
            "destinations": {"research": {"kind": "folder", "path": str(folder / "out")}},
        }
        for section, values in changes.items():
            config[section] = {**config.get(section, {}), **values}
        self.config = folder / "node.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load_settings(self.config)

    @property
    def address(self) -> DicomDestination:
        return DicomDestination(kind="dicom", ae_title="PACS_NODE", address="127.0.0.1", port=self.port)

    def command(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run another command on this node's configuration."""
        line = [sys.executable, "-m", "pacs_node.cli", *arguments, "--config", str(self.config)]
        return subprocess.run(line, capture_output=True, text=True, timeout=seconds, env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"})

    def start(self, *, ready: bool = True) -> NodeProcess:
        line = [sys.executable, "-m", "pacs_node.cli", "run", "--config", str(self.config)]
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=log)
        if ready:
            wait_until(lambda: probe(self.address, "TEST", ()).reachable or self._ended(), "the node answers C-ECHO")
        return self

    def _ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the node ended: {self.log()[-2000:]}")
        return False

    def log(self) -> str:
        return (self.folder / "node.log").read_text()

    def children(self) -> list[int]:
        """Return the process numbers of the node's children."""
        assert self.process is not None
        return [int(number) for number in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()]

    def terminate(self, seconds: float = 60) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End all processes of the node at once."""
        assert self.process is not None
        family = [self.process.pid, *self.children()]
        for number in family:
            os.kill(number, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End the node, whatever its state."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()

    def has_tables(self) -> bool:
        try:
            return self.status() is not None
        except InputError:
            return False  # no core has run yet

    def status(self) -> dict[str, Any]:
        return tables.status_tables(self.settings, 1000)

    def jobs(self) -> list[dict[str, Any]]:
        return tables.job_rows(self.settings, 1000)

    def settled(self) -> bool:
        """Tell whether nothing waits: no file, no study, no job, no delivery; asked in the order in which one makes the next."""
        if not self.has_tables() or any((self.folder / "data" / "spool" / "new").rglob("*.dcm")):
            return False
        studies = self.status()["studies"]
        if not studies or any(study["state"] == "receiving" for study in studies):
            return False
        if any(job["state"] in ("queued", "running") for job in self.jobs()):
            return False
        return not any(item["waiting"] for item in self.status()["destinations"])
