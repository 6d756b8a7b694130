from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from pacs_node.config import Settings
from pacs_node.database.engine import Store
from pacs_node.monitoring.sources import Sources
from pacs_node.monitoring.web import pages
from pacs_node.node import make_house
from tests.journey.support import Town


@pytest.fixture
def make_town(tmp_path: Path) -> Iterator[Callable[..., Town]]:
    """Give a function that builds a house with other rules or settings."""
    built: list[Town] = []

    def make(**changes: object) -> Town:
        folder = tmp_path / f"town{len(built)}"
        folder.mkdir()
        built.append(Town(folder, **changes))  # type: ignore[arg-type]
        return built[-1]

    yield make
    for town in built:
        town.house.store.close()


@pytest.fixture
def town(make_town: Callable[..., Town]) -> Town:
    """Give a house with one destination folder and a moved clock."""
    return make_town()


def sources_of(town: Town) -> Sources:
    """Return what the pages read of a house."""
    return Sources(town.settings, town.house.store, clock=lambda: town.clock)


class Browser:
    """Asks an application as a browser would over HTTP, without a socket; redirects are not followed."""

    def __init__(self, application: Starlette, root_path: str = "") -> None:
        self._transport = httpx.ASGITransport(application, raise_app_exceptions=True, root_path=root_path)

    def request(self, method: str, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        async def ask() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, params=params)

        return asyncio.run(ask())

    def get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        return self.request("GET", path, params)


@pytest.fixture
def browse() -> Callable[[Town], Browser]:
    """Give a function that returns a browser on the pages of a house."""
    return lambda town: Browser(Starlette(routes=pages(sources_of(town))))


@pytest.fixture
def make_sources(tmp_path: Path) -> Callable[..., Sources]:
    """Give a function that makes the sources of a node that has just been set up; what is named is its `monitoring` section."""

    def make(**monitoring: object) -> Sources:
        (tmp_path / "counts").mkdir(exist_ok=True)
        settings = Settings.model_validate({"node": {"data": tmp_path / "data"}, "reception": {"reserve": "1kB"}, "monitoring": monitoring})
        house = make_house(settings)
        house.store.upgrade()
        house.store.close()
        return Sources(settings, Store(house.store.url, reads_only=True), counts=tmp_path / "counts")

    return make
