"""Named points at which a test may kill, suspend or hang the process, to show that nothing is lost there. Without the variable they do nothing.

``PACS_NODE_CRASH`` holds a folder and, after a colon, ``step=count`` pairs separated by commas: the process ends by SIGKILL when it
passes a step for the count-th time. A file named after the step is made in the folder first; where it is there already, the step is
passed unharmed, so that each fires once, whatever process gets there. Example: ``/tmp/crash:renamed=3,claimed=1``. After ``+`` may stand
what else is to happen there: ``analysed=1+stop`` suspends the process until somebody sends SIGCONT, ``analysed=1+hang`` lets the thread sleep.
"""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

VARIABLE = "PACS_NODE_CRASH"

STEPS = (
    "received", "part-written", "file-synced", "renamed", "folder-synced", "answered",  # reception
    "indexed", "moved", "noted", "claimed", "analysed", "built", "stored", "sent", "committed", "retired", "swept", "told",  # journey
)  # fmt: skip


ACTIONS: dict[str, Callable[[], object]] = {
    "": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hang": lambda: time.sleep(3600),
}


def _nothing(step: str) -> None:
    """Pass a step: what happens wherever nobody tests."""


def armed(order: str) -> Callable[[str], None]:
    """Return the function that kills the process as ``order`` says; raises ValueError for an order that cannot be meant."""
    folder, _, pairs = order.rpartition(":")
    wanted = {step: rest.partition("+") for step, _, rest in (pair.partition("=") for pair in pairs.split(","))}
    limits = {step: int(count) for step, (count, _, _) in wanted.items()}
    if not folder or not limits.keys() <= set(STEPS) or any(action not in ACTIONS for _, _, action in wanted.values()):
        raise ValueError(f"{VARIABLE}={order!r}: write FOLDER:STEP=COUNT,… with steps of {', '.join(STEPS)}")
    counters: dict[str, Iterator[int]] = {step: itertools.count(1) for step in limits}

    def passed(step: str) -> None:
        if step in limits and next(counters[step]) >= limits[step]:
            _act_once(Path(folder) / step, ACTIONS[wanted[step][2]])

    return passed


def _act_once(mark: Path, action: Callable[[], object]) -> None:
    try:
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    action()


passed: Callable[[str], None] = armed(os.environ[VARIABLE]) if VARIABLE in os.environ else _nothing
"""Call with the name of a step that has just been done."""
