from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pacs_node.config import Settings
from pacs_node.database.engine import Store
from pacs_node.monitoring.sources import Sources
from pacs_node.node import make_house


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
