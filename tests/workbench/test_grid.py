"""A grid file becomes recipes, or one sentence that names the key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.workbench.grid import Cell, Grid, cells, manifest_of, nested, read_grid, usual_grid
from tests.analysis.conftest import MODEL_YAML
from tests.conftest import ROOT

CONTENT = yaml.safe_load(MODEL_YAML)
ABLATION = ROOT / "tests" / "benchmarks" / "ablation.yaml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    return path


def test_axes_are_combined_with_each_other_and_with_each_variant(tmp_path: Path) -> None:
    text = "variants: {a: {recipe.seed: 1}, b: {}}\nrecipe.rate: [0.001, 0.002]\nrecipe.batch: [8, 16]\nalways: {recipe.epochs: 3}\n"
    grid = read_grid(written(tmp_path, text))
    found = cells(grid)
    assert [one.name for one in found][:3] == ["a, rate 0.001, batch 8", "a, rate 0.001, batch 16", "a, rate 0.002, batch 8"]
    assert len(found) == 8
    _, manifest = manifest_of(CONTENT, grid, found[0])
    assert (manifest.recipe.seed, manifest.recipe.rate, manifest.recipe.batch, manifest.recipe.epochs) == (1, 0.001, 8, 3)
    _, forced = manifest_of(CONTENT, grid, found[0], {"recipe.epochs": 7})
    assert forced.recipe.epochs == 7


def test_the_bundles_own_content_is_not_touched_and_its_sums_are_left_out() -> None:
    content = {**CONTENT, "files": {"weights.safetensors": "ab"}}
    before = yaml.safe_dump(content)
    changed, _ = manifest_of(content, Grid("g"), Cell("c", {"recipe.phantoms.train": 3, "recipe.augmentation.mirror": True}))
    assert yaml.safe_dump(content) == before
    assert "files" not in changed
    assert changed["recipe"]["phantoms"]["train"] == 3
    assert changed["recipe"]["augmentation"] == {"mirror": True}


@pytest.mark.parametrize(
    ("channels", "gates", "spelled"),
    [
        ([8, 16], "bounded", ["bounded", "bounded"]),
        ([8, 16, 24], {"skips": "none", "bottom": "open"}, ["none", "none", "open"]),
        ([8, 16], ["open", "none"], ["open", "none"]),
    ],
)
def test_gates_are_spelled_out_for_the_depth_of_the_network(channels: list[int], gates: object, spelled: list[str]) -> None:
    cell = Cell("c", {"network.channels": channels, "network.gates": gates})
    changed, manifest = manifest_of(CONTENT, Grid("g"), cell)
    assert list(manifest.architecture.gates) == spelled
    assert nested(changed, cell.settings) == {"network": {"channels": channels, "gates": spelled}}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "holds no keys"),
        ("- a\n", "holds no keys"),
        ("a: [b\n", "cannot be read"),
        ("recipe.rate: 0.1\n", "recipe.rate: must be a list"),
        ("recipe.rate: []\n", "recipe.rate: must be a list"),
        ("variants: [a]\n", "variants: must hold keys"),
        ("variants: {a: 3}\n", "a: must hold keys"),
        ("always: 3\n", "always: must hold keys"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_with_its_key(tmp_path: Path, text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        read_grid(written(tmp_path, text))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"recipe.rat": 1}, r"the grid g, c: recipe\.rat:"),
        ({"recipe.rate": -1}, r"recipe\.rate: input should be greater"),
        ({"network.gates": "closed"}, "unknown gate 'closed'"),
        ({"network.gates": {"skips": "none"}}, "both of skips and bottom"),
        ({"name.first": 1}, "name of model.yaml holds no further keys"),
    ],
)
def test_a_recipe_that_does_not_fit_is_named_with_its_cell_and_key(settings: dict[str, object], word: str) -> None:
    with pytest.raises(InputError, match=word):
        manifest_of(CONTENT, Grid("g"), Cell("c", settings))


def test_no_file_and_far_too_many_cells_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_grid(tmp_path / "nowhere.yaml")
    with pytest.raises(InputError, match="1000 cells, more than 500"):
        cells(Grid("g", {"recipe.seed": list(range(1000))}))


def test_without_a_grid_three_learning_rates_are_tried() -> None:
    assert [one.name for one in cells(usual_grid(Manifest.model_validate(CONTENT)))] == ["rate 0.001", "rate 0.002", "rate 0.004"]


@pytest.mark.parametrize("name", ["ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"])
def test_the_shipped_ablation_fits_every_shipped_bundle(name: str) -> None:
    grid, folder = read_grid(ABLATION), shipped("models") / name
    content, base = yaml.safe_load((folder / "model.yaml").read_text()), read_manifest(folder)
    manifests = {cell.name: manifest_of(content, grid, cell)[1] for cell in cells(grid)}
    assert {"no corruption", "no gate", "neither", "both"} <= set(manifests)
    assert {"plain", "sparse L1", "sparse KL", "denoising", "contractive", "variational", "bounded", "adversarial"} <= set(manifests)
    for one in ("no corruption", "neither"):
        assert manifests[one].recipe.corruptions == ()
    assert len({manifest.model_dump_json() for manifest in manifests.values()}) == len(manifests) - 2  # denoising and bounded have two names
    assert all(len(manifest.architecture.gates) == len(base.architecture.channels) for manifest in manifests.values())


def test_the_grid_of_the_readme_fits_every_shipped_bundle(tmp_path: Path) -> None:
    [block] = re.findall(r"^```yaml\n(variants:.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    grid = read_grid(written(tmp_path, block))
    for path in sorted(shipped("models").glob("*/model.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = [manifest_of(content, grid, cell)[1] for cell in cells(grid)]
        assert len(found) == 4
        assert {set(one.architecture.gates) == {"open"} for one in found} == {True, False}
