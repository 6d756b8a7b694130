"""Too fast a sender is slowed, never refused: each gets an even share of ``reception.rate`` (the generic cell rate algorithm, ITU-T I.371).

For each sender one number is kept, the moment until which what it has sent is paid for. It lies in memory that all receivers share, so
that ten associations of one sender, spread over several processes, get one share. Writes are not locked: two that meet may forget one
object, which makes the sender a little faster for a moment and nothing worse.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, MutableSequence

SLOTS = 256  # senders told apart; two that fall on one slot share a share
SLOT_BYTES = 8

_BURST = 1.0  # seconds' worth that a sender may send at once before it is slowed
_LONGEST = 10.0  # seconds that one answer may be held back: senders wait 30 s and more for it
_ACTIVE = 1.0  # seconds after its last object for which a sender counts among those that share


def pause(paid_until: float, size: int, rate: float, now: float) -> tuple[float, float]:
    """Return (paid_until after an object of ``size`` bytes at ``rate`` bytes a second, seconds to wait before it is answered)."""
    until = max(paid_until, now) + size / rate
    return until, min(max(until - now - _BURST, 0.0), _LONGEST)


class Pacer:
    """Slows the senders of one node.

    Parameters
    ----------
    rate
        bytes a second of all senders together
    paid
        `SLOTS` moments of the monotonic clock, shared by all receivers of the node
    now, sleep
        the clock, moved in tests
    """

    def __init__(
        self, rate: int, paid: MutableSequence[float], now: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._rate, self._paid, self._now, self._sleep = rate, paid, now, sleep

    def took(self, calling_ae: str, host: str, size: int) -> float:
        """Note ``size`` bytes of a sender, which are kept already, and wait as long as its share demands; returns the seconds waited."""
        slot, now = zlib.crc32(f"{calling_ae}@{host}".encode()) % SLOTS, self._now()
        sharing = sum(1 for index, paid in enumerate(self._paid) if paid > now - _ACTIVE and index != slot) + 1
        self._paid[slot], seconds = pause(self._paid[slot], size, self._rate / sharing, now)
        if seconds > 0:
            self._sleep(seconds)
        return seconds
