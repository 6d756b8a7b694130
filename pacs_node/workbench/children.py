"""A node in a process of its own, for as long as somebody at the workbench needs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STOP_SECONDS = 60.0


@contextmanager
def running_node(config: Path, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``pacs-node run`` with what it says in ``log``; it is asked to stop at the end, and killed where it does not within a minute."""
    command = [sys.executable, "-m", "pacs_node.cli", "run", "--config", str(config), *options]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env={**os.environ, "NO_COLOR": "1"})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
