"""Recipes are compared on the same patients, cell by cell, and a run that was cut short goes on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.pipeline import prepare
from pacs_node.autoencoder import scoring
from pacs_node.autoencoder.normals import Example
from pacs_node.cli.tuning import register
from pacs_node.errors import InputError
from pacs_node.workbench import card, card_tables, material, metrics, tuning, tuning_table
from pacs_node.workbench.grid import Cell, Grid
from pacs_node.workbench.trial import STUDY, Trial, restored
from pacs_node.workbench.tuning import Ledger, Line, Plan, Study, Tuned, split, tune
from tests.analysis.conftest import MODEL_YAML, made_once, tiny, volume

__all__ = ["made_once", "tiny"]

GRID = Grid("g", {}, {"open": {"recipe.rate": 0.002}, "closed": {"network.gates": {"skips": "none", "bottom": "open"}}})
ONE = Plan(folds=2, fold=1, epochs=1)
YAML = MODEL_YAML.replace("slices: 16", "slices: 7")


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tuned]:
    folder = tmp_path_factory.mktemp("tuning") / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(YAML)

    def stop(what: str, fraction: float) -> None:
        if what.startswith("tuning: closed, fold 1: epoch"):
            raise Interrupted

    with pytest.raises(Interrupted):
        tune(folder, grid=GRID, plan=ONE, report=stop)
    assert len((folder / tuning.LEDGER).read_text().split("\n\n")) == 1
    assert list((folder / tuning.WORK).iterdir())
    heard: list[str] = []
    done = tune(folder, grid=GRID, plan=ONE, report=lambda what, fraction: heard.append(what))
    assert not any(what.startswith("tuning: open, fold 1: epoch") for what in heard)  # it was done before the interruption
    assert any(what.startswith("tuning: closed, fold 1: epoch") for what in heard)
    return folder, done


@pytest.mark.slow
def test_each_recipe_is_measured_on_the_fold_it_did_not_see_and_on_planted_lesions(tuned: tuple[Path, Tuned]) -> None:
    done = tuned[1]
    assert {name: len(lines) for name, lines in done.lines.items()} == {"open": 1, "closed": 1}
    for (line,) in done.lines.values():
        assert sum(trial.unusual for trial in line.trials) == 4 * 3 * 3
        assert sum(not trial.unusual for trial in line.trials) in (5, 6)
        assert all((trial.loss is None) == trial.unusual and STUDY in trial.scores for trial in line.trials)
        assert all(set(trial.baselines) >= {"intensity", "components"} for trial in line.trials)
    assert [one.name for one in done.lines["open"][0].trials] == [one.name for one in done.lines["closed"][0].trials]


@pytest.mark.slow
def test_nothing_of_the_bundle_is_changed_and_no_folder_is_left(tuned: tuple[Path, Tuned]) -> None:
    folder = tuned[0]
    assert (folder / "model.yaml").read_text() == YAML
    assert sorted(path.name for path in folder.iterdir()) == ["model.yaml", tuning.LEDGER]


@pytest.mark.slow
def test_what_is_done_is_not_done_again_unless_the_recipe_differs(tuned: tuple[Path, Tuned], tmp_path: Path) -> None:
    copy = shutil.copytree(tuned[0], tmp_path / "tiny")
    heard: list[str] = []
    again = tune(copy, grid=GRID, plan=ONE, report=lambda what, fraction: heard.append(what))
    assert again.lines == tuned[1].lines
    assert set(heard) == {"tuning: open, fold 1", "tuning: closed, fold 1"}

    def stop(what: str, fraction: float) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        tune(copy, grid=Grid("g", {"recipe.rate": [0.003]}), plan=ONE, report=stop)


@pytest.mark.slow
def test_the_table_has_intervals_the_baselines_and_a_winner_whose_keys_are_written(tuned: tuple[Path, Tuned]) -> None:
    folder, done = tuned
    result = tuning_table.table(done, "tiny", "pacs-node tune --bundle tiny")
    assert (result["criterion"], result["set"], result["unusual"]) == ("auroc", "phantoms with planted lesions", 36)
    for row in result["cells"]:
        low, high = row["auroc"]["ci95"]
        assert 0 <= low <= row["auroc"]["value"] <= high <= 1
        assert set(row["parts"]) >= {"peak", "extent", "embedding"}
    assert set(result["baselines"]) >= {"intensity", "components"}
    best = max(result["cells"], key=lambda row: row["auroc"]["value"])
    assert result["best"] == best["name"]
    assert best["difference"] is None
    assert all(row["difference"]["value"] <= 0 for row in result["cells"] if row is not best)
    text = tuning_table.write_tuned(folder, result).read_text()
    (folder / tuning_table.TUNED).unlink()
    assert yaml.safe_load(text) == best["settings"]
    assert "pacs-node tune --bundle tiny" in text
    assert json.loads(json.dumps(result)) == result
    table_lines = [line for line in result["markdown"].splitlines() if line.startswith("|")]
    assert len(table_lines) == 2 + 2 + len(result["baselines"])
    assert len({line.count("|") for line in table_lines}) == 1


@pytest.mark.slow
def test_the_command_prints_the_table_and_says_how_to_apply_the_best(tuned: tuple[Path, Tuned], tmp_path: Path) -> None:
    copy = shutil.copytree(tuned[0], tmp_path / "tiny")
    grid, out = tmp_path / "grid.yaml", tmp_path / "card" / "ablation.json"
    grid.write_text(yaml.safe_dump({"variants": {name: dict(settings) for name, settings in GRID.variants.items()}}, sort_keys=False))
    app = typer.Typer()
    register(app)
    options = ["--bundle", str(copy), "--grid", str(grid), "--folds", "2", "--fold", "1", "--epochs", "1", "--json", str(out)]
    answer = CliRunner().invoke(app, options, env={"COLUMNS": "200"})
    assert answer.exit_code == 0, answer.output
    assert "best by AUROC" in answer.output and "baseline: intensity" in answer.output
    assert "then run pacs-node train" in answer.output.replace("\n", " ")
    assert set(yaml.safe_load((copy / tuning_table.TUNED).read_text())) <= {"recipe", "network"}
    assert "| recipe | AUROC" in json.loads(out.read_text())["markdown"]


@pytest.mark.slow
def test_a_cell_that_does_not_fit_is_named_before_anything_is_trained(tuned: tuple[Path, Tuned], tmp_path: Path) -> None:
    copy = shutil.copytree(tuned[0], tmp_path / "tiny")
    before = (copy / tuning.LEDGER).read_bytes()
    with pytest.raises(InputError, match=r"the grid g, bad: .*unknown gate 'ajar'"):
        tune(copy, grid=Grid("g", {}, {"fine": {}, "bad": {"network.gates": "ajar"}}), plan=ONE)
    assert (copy / tuning.LEDGER).read_bytes() == before


# --- folds -----------------------------------------------------------------------------------------------------------------


def study(number: int, *, unusual: bool = False, patient: str | None = None) -> Study:
    return Study(f"S{number}", patient or f"P{number}", unusual, Example(torch.zeros(1, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool)))


def test_no_patient_is_in_two_parts_of_a_fold() -> None:
    studies = [study(number, patient=f"P{number // 2}") for number in range(40)]
    studies += [study(100, unusual=True), study(101, unusual=True, patient="P3")]  # P3 has normal studies too
    measured: list[str] = []
    for fold in range(4):
        train_on, held_out, rest = split(studies, 4, fold, seed=1, share=0.2)
        groups = [{one.patient for one in part} for part in (train_on, held_out, rest)]
        assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        assert any(one.name == "S100" for one in rest)
        assert any(one.name == "S101" for one in rest) == ("P3" in {one.patient for one in rest if not one.unusual})
        measured += [one.name for one in rest if not one.unusual]
    assert sorted(measured) == sorted(one.name for one in studies if not one.unusual)


def test_too_few_studies_for_the_folds_are_refused() -> None:
    with pytest.raises(InputError, match="too few for 2 folds"):
        split([study(number) for number in range(4)], 2, 0, seed=0, share=0.2)


@pytest.mark.parametrize("plan", [{"folds": 1}, {"folds": 3, "fold": 4}, {"fold": 0}])
def test_folds_that_there_are_not_are_refused(plan: dict[str, int]) -> None:
    with pytest.raises(InputError, match="fold"):
        Plan(**plan)


def test_fewer_studies_are_those_of_fewer_patients_and_everything_unusual() -> None:
    studies = [study(number, patient=f"P{number // 2}") for number in range(20)] + [study(50, unusual=True)]
    kept = tuning.fewer(studies, 4, seed=0)
    assert len(kept) == 4 * 2 + 1
    assert kept == tuning.fewer(studies, 4, seed=0) != tuning.fewer(studies, 4, seed=1)
    assert tuning.fewer(studies, None, seed=0) == studies


def test_the_seeds_of_tuning_are_used_for_nothing_else() -> None:
    others = [first for use, first in material.SEEDS.items() if use != "tune"]
    assert all(abs(material.SEEDS["tune"] - first) >= 1_000_000 for first in others)


# --- ledger and table ------------------------------------------------------------------------------------------------------


def line(key: str, fold: int, scores: list[float], unusual: list[bool], loss: float = 1.0) -> Line:
    trials = [
        Trial(f"{fold}/{number}", f"{fold}/{number}", odd, {STUDY: score}, {"intensity": 0.0}, None if odd else loss, None if odd else 0.1)
        for number, (score, odd) in enumerate(zip(scores, unusual, strict=True))
    ]
    return Line(key, "c", fold, 1.0, 2, trials)


def test_a_line_that_was_cut_short_is_done_again_and_spoils_no_other(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    kept = line("a", 0, [1.0], [False])
    ledger.add(kept)
    with (tmp_path / "l").open("a") as handle:
        handle.write('{"key": "b", "cell"')
    again = Ledger(tmp_path / "l")
    assert again.get("b") is None
    again.add(line("c", 0, [2.0], [True]))
    assert [Ledger(tmp_path / "l").get(key) is not None for key in "abc"] == [True, False, True]
    assert Ledger(tmp_path / "l").get("a") == kept


def result_of(**cells: list[Line]) -> dict[str, object]:
    named = tuple(Cell(name, {}) for name in cells)
    return tuning_table.table(Tuned(Plan(folds=2), named, cells, {name: {} for name in cells}, ()), "b", "cmd")


def test_the_auroc_is_taken_within_folds_since_each_has_a_network_of_its_own() -> None:
    odd = [False, False, True, True]
    first, second = line("a", 0, [0.0, 1.0, 2.0, 3.0], odd), line("b", 1, [100.0, 101.0, 102.0, 103.0], odd)
    result = result_of(only=[first, second])
    assert result["cells"][0]["auroc"]["value"] == 1.0  # type: ignore[index]
    pooled = [trial.scores[STUDY] for one in (first, second) for trial in one.trials]
    assert metrics.auroc(pooled, odd * 2) < 1


def test_a_recipe_that_cannot_be_told_from_the_best_is_said_to_be_so() -> None:
    rng = np.random.default_rng(0)
    odd = [False] * 30 + [True] * 30
    good = [*rng.normal(0, 1, 30), *rng.normal(2, 1, 30)]
    alike = [value + rng.normal(0, 0.05) for value in good]
    bad = list(rng.normal(0, 1, 60))
    result = result_of(good=[line("a", 0, good, odd)], alike=[line("b", 0, alike, odd)], bad=[line("c", 0, bad, odd)])
    assert result["best"] in ("good", "alike")
    assert "not to be told from it here: " in tuning_table.verdict(result)
    assert "bad" not in tuning_table.verdict(result)


def test_a_winner_that_a_baseline_beats_is_said_to_be_beaten() -> None:
    odd = [False] * 4 + [True] * 4
    trials = line("a", 0, [1.0, 2.0, 3.0, 4.0, 2.5, 3.5, 4.5, 5.5], odd).trials
    better = [replace(trial, baselines={"simple": float(trial.unusual), "poor": -float(trial.unusual)}) for trial in trials]
    said = tuning_table.verdict(result_of(only=[Line("a", "c", 0, 1.0, 2, better)]))
    assert said == "best by AUROC: only; not above the baseline simple (1.000)"


def test_without_anything_unusual_the_loss_decides() -> None:
    normal = [False] * 5
    result = result_of(worse=[line("a", 0, [0.0] * 5, normal, loss=2.0)], better=[line("b", 0, [0.0] * 5, normal, loss=-1.0)])
    assert (result["criterion"], result["best"], result["set"], result["baselines"]) == ("loss", "better", "normal studies", {})
    assert result["cells"][0]["auroc"] is None  # type: ignore[index]
    assert "| –" in str(result["markdown"])


def test_the_card_holds_the_table_beside_the_command_that_made_it(tiny: Path) -> None:
    folder = tiny / "card"
    folder.mkdir()
    result = result_of(one=[line("a", 0, [0.0, 1.0], [False, True])])
    (folder / "ablation.json").write_text(json.dumps(result))
    text = "\n".join(card._lines(bundles.load(tiny), card_tables.read_tables(folder)))
    assert "## Recipes compared (ablation)" in text
    assert "| one (best) | 1.000" in text
    assert "Made by `cmd`." in text


def test_restoring_is_measured_as_it_says(tiny: Path) -> None:
    loaded = bundles.load(tiny)
    prepared = prepare(volume(3, slices=40), loaded.manifest)
    x, foreground = prepared.x, torch.from_numpy(prepared.foreground)
    seen = scoring.look(loaded.network, x)
    residual, spread = (x - seen.mean)[foreground].numpy(), seen.log_variance[foreground].numpy()
    loss, error = restored(loaded, x, foreground, ())
    assert error == pytest.approx(np.sqrt((residual**2).mean()), rel=1e-4)
    assert loss == pytest.approx((0.5 * (residual**2 / np.exp(spread) + spread)).mean(), rel=1e-4)
    spoilt = [restored(loaded, x, foreground, ("coarse_noise", "smooth_blobs")) for _ in range(2)]
    assert spoilt[0] == spoilt[1] != (loss, error)
