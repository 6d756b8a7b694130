"""The demonstration and the offline pipeline, as a newcomer runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pacs_node.config import load_settings
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.workbench.demo import run_demo
from pacs_node.workbench.offline import analyse_folder


@pytest.mark.slow
def test_the_demonstration_brings_results_and_pictures_for_each_study(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    assert run_demo([], out, quick=True) == 0
    studies = json.loads((out / "result.json").read_text())["studies"]
    assert len(studies) == 2
    for study in studies:
        assert [kind for kind in sorted(study["jobs"][0]["returned"]) if kind != "seg"] == ["pm", "sc", "sr"]  # a region is not in every study
        assert study["jobs"][0]["verdict"] in ("above the threshold", "not above the threshold")  # synthetic, by a synthetic calibration
    assert len(list((out / "archive").glob("*.dcm"))) == sum(len(study["jobs"][0]["returned"]) for study in studies)
    assert list((out / "previews").rglob("*.png"))


def test_the_demonstration_leaves_a_folder_of_somebody_else_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no demonstration wrote"):
        run_demo([], tmp_path, quick=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.slow
def test_analyse_writes_objects_and_pictures_from_a_folder(tmp_path: Path) -> None:
    write_study(PhantomSpec(region="head", seed=41, slices=10), tmp_path / "in")
    rows = analyse_folder(tmp_path / "in", "ct-head", tmp_path / "out", load_settings(None))
    assert [row["slices"] for row in rows] == [10]
    assert sorted({path.name for path in Path(rows[0]["folder"]).glob("*.dcm")} - {"seg.dcm"}) == ["pm.dcm", "sc.dcm", "sr.dcm"]
    assert len(list(Path(rows[0]["folder"]).glob("*.png"))) >= 2


def test_analyse_names_a_bundle_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ct-haed"):
        analyse_folder(tmp_path, "ct-haed", tmp_path / "out", load_settings(None))
