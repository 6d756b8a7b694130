"""Peers that were refused, counted: a line in the log for each, a marker for the core now and then, however many come.

::

    rejected for who they are, or TLS failed ─► Refusals ─► NAME.refused in the spool ─► a row of the audit trail
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

WINDOW = 60.0  # seconds for which further refusals of the same peer are only counted
MOST_PEERS = 20  # that are told apart within a window; further ones are counted together


@dataclass(frozen=True, slots=True)
class Peer:
    """Who was refused, and why; all "" for those that are counted together."""

    calling_ae: str = ""
    called_ae: str = ""
    host: str = ""
    reason: str = ""


class Refusals:
    """Tells of refusals by ``write`` (peer, how often): of a peer's first at once, of more at the end of the window. Used by several threads."""

    def __init__(self, write: Callable[[Peer, int], object], now: Callable[[], float] = time.monotonic) -> None:
        self._write, self._now = write, now
        self._lock, self._counts, self._until = threading.Lock(), Counter[Peer](), 0.0

    def note(self, peer: Peer) -> None:
        """Count a refusal."""
        self.tell()
        with self._lock:
            known = peer in self._counts
            if not known and len(self._counts) >= MOST_PEERS:
                peer, known = Peer(), Peer() in self._counts
            self._counts[peer] += int(known)
        if not known:
            self._write(peer, 1)

    def tell(self, *, everything: bool = False) -> None:
        """Write what was counted, where the window is over; ``everything``: at the end."""
        with self._lock:
            if not everything and self._now() < self._until:
                return
            counted, self._until = self._counts, self._now() + WINDOW
            self._counts = Counter()
        for peer, count in counted.items():
            if count:
                self._write(peer, count)
