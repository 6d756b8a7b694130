from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.journey.support import Town


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    """Give a house with one destination folder and a moved clock."""
    built = Town(tmp_path)
    yield built
    built.house.store.close()


@pytest.fixture
def make_town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    """Give a function that builds a house with other rules or settings."""
    built: list[Town] = []

    def make(**settings: object) -> Town:
        built.append(Town(tmp_path, **settings))  # type: ignore[arg-type]
        return built[-1]

    yield make
    for one in built:
        one.house.store.close()
