"""A model is loaded once for all jobs of a worker, and again when an administrator has changed it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pacs_node.analysis.bundle import Bundle
from pacs_node.journey.run_job import Bundles
from tests.analysis.conftest import make_bundle


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {name: make_bundle(tmp_path / name) for name in ("one", "other")}


def loaded(engine: Bundles, folders: dict[str, Path]) -> list[Bundle]:
    return [engine.bundle(folders, name) for name in folders]


def test_a_bundle_stays_loaded_from_job_to_job_whatever_runs_in_between(folders: dict[str, Path]) -> None:
    engine = Bundles("cpu")
    first, again = loaded(engine, folders), loaded(engine, folders)
    assert [one is other for one, other in zip(first, again, strict=True)] == [True, True]


def test_a_bundle_that_was_changed_is_loaded_again_and_the_former_let_go(folders: dict[str, Path]) -> None:
    engine = Bundles("cpu")
    one, other = loaded(engine, folders)
    file = folders["one"] / "weights.safetensors"
    later = file.stat().st_mtime + 5
    os.utime(file, (later, later))
    assert engine.bundle(folders, "one") is not one
    assert engine.bundle(folders, "other") is other
    assert len(engine.warm) == 2
