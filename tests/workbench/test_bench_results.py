"""The benchmark of building results: what it measures is what the node makes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pacs_node.cli import app
from pacs_node.results import build, check_all
from pacs_node.workbench.bench_results import Size, bench_results, made_up_request

SMALL = Size(slices=12, rows=64, grid=48, regions=9)


def test_the_made_up_study_gives_every_kind_and_passes_the_gate() -> None:
    request = made_up_request(SMALL)
    objects = build(request)
    assert {one.kind for one in objects} >= {"sr", "pm", "seg", "sc", "ko", "denoised"}
    assert check_all(objects, request.sources) == ()


def test_each_kind_is_measured_and_all_regions_are_there(tmp_path: Path) -> None:
    found = bench_results(SMALL, 1, work=tmp_path)
    assert found["regions"] == 9
    assert all(one["build_s"] > 0 and one["write_s"] > 0 and one["mb"] > 0 for one in found["kinds"].values())
    assert found["seconds"]["lowest"] <= found["seconds"]["median"] <= found["seconds"]["highest"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_prints_every_kind(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["bench", "results", "--slices", "12", "--rows", "64", "--grid", "48", "--rounds", "1", "--work", str(tmp_path)])
    assert "together" in ended.output and all(kind in ended.output for kind in ("sr", "pm", "seg", "sc", "ko"))
