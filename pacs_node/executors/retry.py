"""What becomes of a job whose run ended badly: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

MAX_ATTEMPTS = 3
_FIRST_PAUSE = timedelta(seconds=5)
_NO_ROOM_PAUSE = timedelta(seconds=30)


class Fault(StrEnum):
    """How a run ended."""

    WORKER_DIED = "worker died"  # no sign of life for a whole lease, or its process ended
    CRASHED = "crashed"  # an unexpected exception
    UNUSABLE = "unusable"  # a missing or damaged bundle: time does not mend it
    NO_ROOM = "no room"  # the disk took no more: the job is not the cause


@dataclass(frozen=True, slots=True)
class Again:
    """Run the job again, not before ``at``."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Park:
    """Leave the job to an operator."""

    why: str


def decide(fault: Fault, attempts: int, message: str, now: datetime) -> Again | Park:
    """Decide after the run number ``attempts`` (1 for the first) ended with ``fault``.

    A job whose worker dies is run again like any other, but not for ever: the third time it counts as the cause. A full disk never does.
    """
    if fault is Fault.NO_ROOM:
        return Again(now + _NO_ROOM_PAUSE)
    if fault is Fault.UNUSABLE:
        return Park(message)
    if attempts >= MAX_ATTEMPTS:
        return Park(f"{fault} in {attempts} attempts, the last time: {message}")
    return Again(now + _FIRST_PAUSE * 4 ** (attempts - 1))
