"""How full the disk is, and what is done about it: a pure decision.

::

    free bytes   ──────────────────────────────────────────────────────────────────────────────►  0
                   NORMAL   │   WARN    │    SWEEP     │      REJECT       │      REFUSE
                            │ it is said│ what may go  │ no new            │ no new instance
                            │           │ is removed   │ association       │ (0xA700)
                                 high watermark   reserve + a quarter   reserve: jobs go on and write their results from it

Each step includes those before it. The way back up is the same: nothing is remembered, so intake resumes as soon as there is room.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from pacs_node.config import Settings

_WARN_AHEAD = 0.05  # of the capacity, before the high watermark
_RUNNING = 0.25  # of the reserve, kept for associations that are open already: a study should not end in its middle


class Pressure(IntEnum):
    """What the disk's state asks for; a higher one includes the lower ones."""

    NORMAL = 0
    WARN = 1
    SWEEP = 2
    REJECT = 3
    REFUSE = 4


WORDS = {
    Pressure.NORMAL: "there is room",
    Pressure.WARN: "the disk is almost filled up to retention.high_watermark",
    Pressure.SWEEP: "the disk is filled up to retention.high_watermark: what may go is removed",
    Pressure.REJECT: "the disk is almost filled up to reception.reserve: new associations are asked to come later",
    Pressure.REFUSE: "the disk is filled up to reception.reserve: new instances are refused until there is room",
}
"""What each step means, for people."""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk in bytes: what an ordinary user may still take, and all."""

    free: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Marks:
    """Bytes: kept free for results, and the occupation above which things are removed."""

    reserve: int
    watermark: int


def mark_of(step: Pressure, reserve: int) -> int:
    """Return the free bytes at or below which new associations are rejected, or new instances refused."""
    return int(reserve * (1 + _RUNNING)) if step is Pressure.REJECT else reserve


def decide(disk: Disk, marks: Marks) -> Pressure:
    """Decide what a disk's state asks for."""
    for step in (Pressure.REFUSE, Pressure.REJECT):
        if disk.free <= mark_of(step, marks.reserve):
            return step
    used = disk.capacity - disk.free
    if used >= marks.watermark:
        return Pressure.SWEEP
    return Pressure.WARN if used >= marks.watermark - disk.capacity * _WARN_AHEAD else Pressure.NORMAL


def measure(folder: Path) -> Disk:
    """Look at the disk of a folder."""
    disk = os.statvfs(folder)
    return Disk(disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def pressure_of(settings: Settings, disk: Disk) -> Pressure:
    """Return what a disk's state asks for by the configuration."""
    marks = Marks(settings.reception.reserve.bytes_of(disk.capacity), settings.retention.high_watermark.bytes_of(disk.capacity))
    return decide(disk, marks)
