"""Processes of this machine: started with what they need, watched, replaced, stopped. Used for receivers, core and workers alike.

A child gets its orders (pickled, of our own making) over its standard input, which then stays open as the line of life: when the
parent is gone, however it went, the line ends and the child stops by itself.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_RESTART_PAUSES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before the n-th restart in a row
_ORPHAN_SECONDS = 20.0  # that a child goes on after its parent is gone
_STABLE_SECONDS = 60.0  # a child that lived this long starts again at the first pause


def restart_pause(restarts: int) -> float:
    """Return how many seconds to wait before restarting a child for the n-th time in a row (0 for the first)."""
    return _RESTART_PAUSES[min(restarts, len(_RESTART_PAUSES) - 1)]


@dataclass
class Child:
    """One child process and how to start it again."""

    name: str
    orders: object  # pickled to the child
    files: tuple[int, ...]  # file descriptors it inherits
    environment: dict[str, str] = field(default_factory=dict)  # beside the parent's
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    restarts: int = 0
    due: float = field(default=0.0)  # monotonic time of the next start

    def start(self) -> None:
        """Start the process and hand it its orders."""
        # start_new_session: Ctrl-C in a terminal reaches the parent only, which then stops its children in order
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pacs_node.node", self.name],
            stdin=subprocess.PIPE,
            pass_fds=self.files,
            start_new_session=True,
            env={**os.environ, **self.environment},
        )
        self.started = time.monotonic()
        line = self.process.stdin
        assert line is not None
        data = pickle.dumps(self.orders)
        try:
            line.write(len(data).to_bytes(8, "big") + data)
            line.flush()
        except BrokenPipeError:
            return  # it died at once: `Children.watch` starts it again

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)


class Children:
    """All children of one parent."""

    def __init__(self, children: Sequence[Child]) -> None:
        self.children = list(children)

    def start(self) -> None:
        """Start all."""
        for child in self.children:
            child.start()

    def watch(self, died: Callable[[Child, int], None]) -> None:
        """Look after the children once: replace those that ended. ``died(child, exit code)`` is called for each."""
        for child in self.children:
            process = child.process
            if process is not None and process.poll() is not None:
                lived = time.monotonic() - child.started
                child.restarts = 0 if lived > _STABLE_SECONDS else child.restarts + 1
                child.due = time.monotonic() + restart_pause(child.restarts - 1 if child.restarts else 0)
                child.process = None
                died(child, process.returncode)
            if child.process is None and time.monotonic() >= child.due:
                child.start()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the child of this name."""
        for child in self.children:
            if child.name == name:
                child.signal(number)

    def stop(self, seconds: float) -> list[str]:
        """Ask all to stop, wait, end by force what is left; returns the names of those that had to be forced."""
        for child in self.children:
            child.signal(signal.SIGTERM)
        end = time.monotonic() + seconds
        forced = []
        for child in self.children:
            if child.process is None:
                continue
            try:
                child.process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
                forced.append(child.name)
        return forced


def receive_orders(stop: threading.Event) -> object:
    """In a child: read the orders, then set ``stop`` when the parent's line ends."""
    line = sys.stdin.buffer
    size = int.from_bytes(line.read(8), "big")
    orders = pickle.loads(line.read(size))  # noqa: S301 - written by our parent process over its own pipe

    def listen() -> None:
        while os.read(line.fileno(), 64):
            pass
        stop.set()
        time.sleep(_ORPHAN_SECONDS)
        os._exit(70)  # still here: what was under way is found again by the next start

    threading.Thread(target=listen, name="line of life", daemon=True).start()
    return orders


def work(run_one: Callable[[], bool], stop: threading.Event, idle_seconds: float = 0.5) -> None:
    """Run the worker's loop: claim and run jobs until ``stop``; ``run_one`` returns False where nothing waited."""
    while not stop.is_set():
        if not run_one():
            stop.wait(idle_seconds)


def end_process_after(seconds: float | None) -> None:
    """End this process after so many seconds, whatever it does then, and write where it hung to standard error; None: not after all.

    The timer runs outside of Python: it fires also where a library holds the interpreter's lock.
    """
    if seconds is None:
        faulthandler.cancel_dump_traceback_later()
    else:
        faulthandler.dump_traceback_later(seconds, exit=True)


def devices(wanted: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return the torch devices to start one worker on each: every GPU, or the CPU, for ``auto``."""
    if not isinstance(wanted, str):
        return tuple(wanted)
    found = [f"cuda:{index}" for index in range(_cuda_devices())]
    return tuple(found) or ("cpu",)


def _cuda_devices() -> int:
    """Count GPUs without loading torch into the parent: the driver's device files are enough to know that there are none."""
    return len([name for name in os.listdir("/dev") if name.startswith("nvidia") and name[6:].isdigit()]) if os.path.isdir("/dev") else 0
