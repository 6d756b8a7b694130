from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.support import NodeProcess


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., NodeProcess]]:
    """Give a function that makes a node (not started); all are stopped at the end."""
    made: list[NodeProcess] = []

    def make(**changes: object) -> NodeProcess:
        folder = tmp_path / f"node{len(made)}"
        folder.mkdir()
        made.append(NodeProcess(folder, **changes))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for node in made:
        node.stop()
