"""Every test of a store runs over both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pacs_node.database.engine import Store
from tests.conftest import DATABASES


@pytest.fixture(params=DATABASES)
def kind(request: pytest.FixtureRequest) -> str:
    """Give the kind of database of this run of the test."""
    return str(request.param)


@pytest.fixture
def url(kind: str, make_database: Callable[..., str]) -> str:
    """Give the URL of a fresh database."""
    return make_database(kind)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """Give a fresh database with the newest schema."""
    made = Store(url)
    made.upgrade()
    yield made
    made.close()
