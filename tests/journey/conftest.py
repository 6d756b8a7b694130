from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import DATABASES
from tests.journey.support import Town

# the modules whose every town stands on each
ON_BOTH_DATABASES = {
    "test_journey",
    "test_adversity",
    "test_durability",
    "test_announced",
    "test_verified",
    "test_operators",
    "test_shadow",
    "test_events",
    "test_heartbeat",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the essentials of the journey on both databases (the second counts as slow), the rest on SQLite."""
    if "database" in metafunc.fixturenames:
        kinds = DATABASES if metafunc.module.__name__.rpartition(".")[2] in ON_BOTH_DATABASES else DATABASES[:1]
        metafunc.parametrize("database", [kinds[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in kinds[1:])], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, make_database: Callable[..., str]) -> dict[str, str]:
    """Give the section `database` of the configuration: nothing for SQLite, which lies in the data folder."""
    return {} if request.param == "sqlite" else {"url": make_database(request.param)}


@pytest.fixture
def town(tmp_path: Path, database: dict[str, str]) -> Iterator[Town]:
    """Give a house with one destination folder and a moved clock."""
    built = Town(tmp_path, database=database)
    yield built
    built.house.store.close()


@pytest.fixture
def make_town(tmp_path: Path, database: dict[str, str]) -> Iterator[Callable[..., Town]]:
    """Give a function that builds a house with other rules or settings."""
    built: list[Town] = []

    def make(**settings: object) -> Town:
        built.append(Town(tmp_path, **{"database": database, **settings}))  # type: ignore[arg-type]
        return built[-1]

    yield make
    for one in built:
        one.house.store.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("stories")
    group.addoption("--story-minutes", type=float, metavar="N", help="tell the node random stories for N minutes, in place of a fixed set")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test may take longer where it fails, to find a short story."""
    minutes = config.getoption("--story-minutes", default=None) or 0.0
    for item in items:
        if item.name.startswith("test_no_story"):
            item.add_marker(pytest.mark.timeout(minutes * 60 + 1800))
