"""When to try again: pure decisions on values. Exponential back-off with jitter, and a circuit breaker for each destination.

::

    breaker:  closed ──(failures in a row reach the limit)──► open until T ──(T has come)──► half open: one try
                 ▲                                               ▲                             │ fails
                 └───────────────────── succeeds ────────────────┴─────────────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """How patient we are."""

    first: timedelta = timedelta(seconds=10)  # wait after the first failed attempt
    factor: float = 2.0  # each wait is this many times the one before
    longest: timedelta = timedelta(hours=1)
    jitter: float = 0.25  # a wait is shortened or lengthened by up to this share of it
    give_up_after: timedelta = timedelta(days=3)  # of waiting in all; then the delivery is parked
    breaker_after: int = 5  # failures in a row that open the breaker

    def wait(self, attempts: int) -> timedelta:
        """Return the wait after ``attempts`` failed attempts (1, 2, …), without jitter."""
        doublings = min(attempts - 1, 64)  # beyond that the power alone is longer than any limit
        return min(timedelta(seconds=min(self.first.total_seconds() * self.factor**doublings, 1e9)), self.longest)


def next_attempt(attempts: int, now: datetime, policy: Policy, random: Callable[[], float]) -> datetime | None:
    """Return when to try again after ``attempts`` failed attempts; None: park the delivery.

    ``random`` gives numbers in [0, 1). The limit counts the waits that the policy prescribes, not the calendar: a node that was
    switched off for a week does not park what it never tried.
    """
    waited = sum((policy.wait(attempt) for attempt in range(1, attempts + 1)), timedelta())
    if waited > policy.give_up_after:
        return None
    return now + _jittered(policy.wait(attempts), policy, random)


def _jittered(wait: timedelta, policy: Policy, random: Callable[[], float]) -> timedelta:
    return wait * (1 + policy.jitter * (2 * random() - 1))


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is remembered of a destination: how often it failed in a row, and until when it is left alone."""

    failures: int = 0
    open_until: datetime | None = None


def allows(breaker: Breaker, now: datetime) -> bool:
    """Tell whether the destination may be tried; after its rest one try decides."""
    return breaker.open_until is None or now >= breaker.open_until


def succeeded(breaker: Breaker) -> Breaker:
    """Return the breaker after the destination answered: whatever it said about objects, it is there."""
    return replace(breaker, failures=0, open_until=None)


def failed(breaker: Breaker, now: datetime, policy: Policy, random: Callable[[], float]) -> Breaker:
    """Return the breaker after the destination could not be had."""
    failures = breaker.failures + 1
    if failures < policy.breaker_after:
        return Breaker(failures)
    rest = policy.wait(failures - policy.breaker_after + 1)
    return Breaker(failures, now + _jittered(rest, policy, random))


def rest_until(breaker: Breaker, now: datetime, asked: timedelta | None, longest: timedelta) -> datetime | None:
    """Return until when a destination is left alone: as the breaker says, or longer where it ``asked`` for more, but no longer than ``longest``."""
    moments = [moment for moment in (breaker.open_until, None if asked is None else now + min(asked, longest)) if moment is not None]
    return max(moments, default=None)
