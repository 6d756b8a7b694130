"""How long encoding may take: asked before a method begins, and again while it works."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")
_BEFORE_JUDGING = 4  # items, whose mean time is then taken for that of each


class OutOfTime(Exception):
    """Encoding takes, or would take, longer than it may."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Until when something has to be done; ``clock`` gives seconds that only rise."""

    ends_at: float = math.inf
    clock: Callable[[], float] = time.monotonic

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.ends_at - self.clock()

    def check(self) -> None:
        """Raise `OutOfTime` where none are."""
        if self.left <= 0:
            raise OutOfTime

    def share(self, part: float) -> Pace:
        """Return the pace for a part (0…1) of what is still to be done."""
        return Pace(self.clock() + part * self.left, self.clock) if self.ends_at < math.inf else self

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items as long as there is time; raises `OutOfTime`."""
        for item in items:
            self.check()
            yield item

    def foresee(self, items: Iterable[Item], count: int, after: int = 0) -> Iterator[Item]:
        """Yield ``count`` items that take about the same time each; raises `OutOfTime` as soon as they will not all be done, with ``after`` more."""
        begun = self.clock()
        for done, item in enumerate(items):
            if done >= _BEFORE_JUDGING and (self.clock() - begun) / done * (count + after - done) > self.left:
                raise OutOfTime
            self.check()
            yield item


UNHURRIED = Pace()
