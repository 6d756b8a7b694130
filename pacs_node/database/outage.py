"""Whether the database answers: said once when it stops answering and once when it does again, however many threads meet it."""

from __future__ import annotations

import threading
import time

import structlog

_LONGEST_PAUSE = 5.0  # seconds


def pause_after(failures: int) -> float:
    """Return how many seconds to wait after the n-th failure in a row (1 for the first) before the database is asked again."""
    return min(0.5 * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE)


class Outage:
    """What a process knows of its database: whether it answers, since when not, when it came back. Times are monotonic seconds.

    A database that is locked, full or read-only still answers queries: what failed in writing is over with the next successful write.
    """

    def __init__(self, database: str, *, speaks: bool = True) -> None:
        self._database, self._speaks = database, speaks
        self._lock = threading.Lock()
        self._since: float | None = None
        self._writing = False
        self._over: float | None = None
        self._failures = 0
        self._ask_again = 0.0
        self.reason = ""

    @property
    def lasts(self) -> bool:
        """Whether the last that was asked of the database failed."""
        return self._since is not None

    @property
    def resting(self) -> bool:
        """Whether the database failed a moment ago, so that what can wait does not ask it again yet."""
        with self._lock:
            return self._since is not None and time.monotonic() < self._ask_again

    def over_for(self) -> float | None:
        """Return how many seconds ago the last outage ended; None where there was none, 0 while it lasts."""
        with self._lock:
            if self._since is not None:
                return 0.0
            return None if self._over is None else time.monotonic() - self._over

    def failed(self, reason: str, *, writes: bool) -> None:
        """Note a failure; the first in a row is an ERROR line in the log."""
        with self._lock:
            first = self._since is None
            if first:
                self._since, self._writing = time.monotonic(), False
            self._writing, self.reason = self._writing or writes, reason
            self._failures += 1
            self._ask_again = time.monotonic() + pause_after(self._failures)
        if first and self._speaks:
            structlog.get_logger().error(
                "database away", database=self._database, reason=reason, meanwhile="reception goes on; everything else waits and resumes by itself"
            )

    def worked(self, *, writes: bool) -> None:
        """Note a success; where it ends an outage, it is said."""
        with self._lock:
            if self._since is None or (self._writing and not writes):
                return
            lasted, self._over = time.monotonic() - self._since, time.monotonic()
            self._since, self._failures, self.reason = None, 0, ""
        if self._speaks:
            structlog.get_logger().warning("database back", database=self._database, away_seconds=round(lasted, 1))
