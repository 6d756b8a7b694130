"""What becomes of a job whose run ended badly: pure decisions. No torch here, so that the core can decide, too.

::

    out of memory ─► 8 slices at a time ─► one ─► one, on the CPU ─► parked
    device lost   ─► a new process ─► on the CPU ─► parked
    worker died   ─► again, a rung down in case the system took its memory back ─► parked after the last attempt
    too slow, or crashed ─► again ─► parked after the last attempt
    no number, unusable  ─► parked

How far down the ladder a job has come stands in its row, so that the death of a worker does not forget it.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pacs_node.errors import BundleError, DatabaseUnavailable, NotFinite

MAX_ATTEMPTS = 3
_FIRST_PAUSE = timedelta(seconds=5)
_NO_ROOM_PAUSE = timedelta(seconds=30)


class Fault(StrEnum):
    """How a run ended."""

    WORKER_DIED = "worker died"  # no sign of life for a whole lease, or its process ended
    CRASHED = "crashed"  # an unexpected exception
    TOO_SLOW = "not done by its deadline"  # hanging, as far as anyone can tell
    NO_MEMORY = "out of memory"
    DEVICE_LOST = "device failed"  # a CUDA error: the process can use the device no more
    NOT_A_NUMBER = "no number"  # the model's output is not finite: the same again would give the same
    UNUSABLE = "unusable"  # a missing or damaged bundle: time does not mend it
    NO_ROOM = "no room"  # the disk took no more: the job is not the cause
    NO_DATABASE = "no database"  # it was away while the job ran: nor is it here


@dataclass(frozen=True, slots=True)
class Effort:
    """How a job is run: how many slices pass through the network at a time, and whether on the CPU whatever the worker's device."""

    batch: int
    on_cpu: bool = False


LADDER = (Effort(32), Effort(8), Effort(1), Effort(1, on_cpu=True))
_CPU = len(LADDER) - 1


@dataclass(frozen=True, slots=True)
class Again:
    """Run the job again, not before ``at``, with the effort of the ladder's ``rung``."""

    at: datetime
    rung: int = 0


@dataclass(frozen=True, slots=True)
class Park:
    """Leave the job to an operator."""

    why: str


def decide(fault: Fault, attempts: int, message: str, now: datetime, rung: int = 0) -> Again | Park:
    """Decide after the run number ``attempts`` (1 for the first), on a rung of the ladder, ended with ``fault``.

    A job whose worker dies is run again like any other, but not for ever: the third time it counts as the cause. A full disk never
    does, nor an absent database.
    """
    if fault in (Fault.NO_ROOM, Fault.NO_DATABASE):
        return Again(now + _NO_ROOM_PAUSE, rung)
    if fault in (Fault.UNUSABLE, Fault.NOT_A_NUMBER):
        return Park(message)
    if fault is Fault.NO_MEMORY:
        return Again(now + _FIRST_PAUSE, rung + 1) if rung < _CPU else Park(f"{fault} even with one slice at a time on the CPU: {message}")
    if fault is Fault.DEVICE_LOST and rung < _CPU:
        return Again(now + _FIRST_PAUSE, rung if attempts == 1 else _CPU)
    if attempts >= MAX_ATTEMPTS:
        return Park(f"{fault} in {attempts} attempts, the last time: {message}")
    lower = max(rung, min(rung + 1, _CPU - 1)) if fault is Fault.WORKER_DIED else rung
    return Again(now + _FIRST_PAUSE * 4 ** (attempts - 1), lower)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "not enough memory")  # of torch, cuDNN and cuBLAS
_DEVICE_LOST = ("cuda error", "cudnn error", "cublas_status", "cudnn_status", "device-side assert")


def fault_of(error: BaseException) -> Fault:
    """Return what kind of fault an exception is; what torch raises is told by name and words, for it is not loaded here."""
    words, names = str(error).casefold(), {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, BundleError):
        return Fault.UNUSABLE
    if isinstance(error, DatabaseUnavailable):
        return Fault.NO_DATABASE
    if isinstance(error, NotFinite):
        return Fault.NOT_A_NUMBER
    if isinstance(error, OSError):
        return {errno.ENOSPC: Fault.NO_ROOM, errno.EDQUOT: Fault.NO_ROOM, errno.ENOMEM: Fault.NO_MEMORY}.get(error.errno or 0, Fault.CRASHED)
    if names & {"MemoryError", "OutOfMemoryError"} or ("RuntimeError" in names and any(word in words for word in _OUT_OF_MEMORY)):
        return Fault.NO_MEMORY
    if "AcceleratorError" in names or ("RuntimeError" in names and any(word in words for word in _DEVICE_LOST)):
        return Fault.DEVICE_LOST
    return Fault.CRASHED
