"""Trying a property on many inputs: a fixed set of them, or random ones for a time; an input that fails is made small, shown and saved."""

from __future__ import annotations

import ast
import hashlib
import random
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy

_MOST_ADDRESSES = 12 << 30  # bytes; what is loaded takes 2 GiB of them
_BATCH = 400  # random inputs with one seed
_PHASES = (Phase.explicit, Phase.generate, Phase.target, Phase.shrink)


@dataclass
class Explorer:
    """Calls a check with inputs of a strategy; an input is made of tuples, bytes, text and numbers, so that its ``repr`` can be read back.

    Parameters
    ----------
    name
        of the test, under which failing inputs are saved
    found
        the folder for them
    seconds
        how long to try random inputs; None: a fixed set
    replay
        a saved input to be tried in place of all others
    reports
        where a line for people is added
    """

    name: str
    found: Path
    seconds: float | None
    replay: Path | None
    reports: list[str]

    def __call__(self, inputs: SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> None:
        """Try ``check`` on ``examples`` inputs, or as long as was asked for; raises what it raises for the smallest input that fails."""
        if self.replay is not None:
            self._replay(self.replay, check)
            return
        begun, tried = time.monotonic(), 0
        deadline = None if self.seconds is None else begun + self.seconds
        failing: list[object] = []
        number: int | None = None

        def attempt(given_input: object) -> None:
            nonlocal tried
            if deadline is not None and time.monotonic() > deadline and not failing:
                return
            tried += 1
            try:
                check(given_input)
            except BaseException:
                failing[:] = [given_input]
                raise

        try:
            limit_memory()
            if deadline is None:
                _run(inputs, attempt, examples, None)
            while deadline is not None and time.monotonic() < deadline:
                number = random.SystemRandom().getrandbits(48)
                _run(inputs, attempt, _BATCH, number)
        except BaseException as error:
            for value in failing:
                error.add_note(self._saved(value, number))
            raise
        finally:
            took = time.monotonic() - begun
            self.reports.append(f"fuzz: {self.name}: {tried} inputs in {took:.0f} s, {tried / max(took, 0.001):.0f} a second")

    def _saved(self, value: object, number: int | None) -> str:
        content = repr((self.name, value))
        path = self.found / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.txt"
        path.write_text(content)
        of_seed = "" if number is None else f"seed {number}; "
        return f"{of_seed}the input that fails: {repr(value)[:2000]}\ntry it again with: python -m pytest tests/fuzz --fuzz-replay {path}"

    def _replay(self, path: Path, check: Callable[[Any], None]) -> None:
        name, value = ast.literal_eval(path.read_text())
        if name != self.name:
            pytest.skip(f"the saved input is one of {name}")
        check(value)


def _run(inputs: SearchStrategy[Any], attempt: Callable[[Any], None], examples: int, number: int | None) -> None:
    @settings(
        max_examples=examples,
        derandomize=number is None,
        deadline=None,
        database=None,
        phases=_PHASES,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
    )
    @given(inputs)
    def trying(given_input: Any) -> None:
        attempt(given_input)

    (trying if number is None else seed(number)(trying))()


def peak_memory() -> int:
    """Return the most memory that this process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def limit_memory() -> None:
    """Keep a process that fills the memory from taking that of others: beyond the limit it gets a MemoryError."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or hard > _MOST_ADDRESSES:
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_ADDRESSES, hard))
