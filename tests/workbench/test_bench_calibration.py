"""The benchmark of the promise: draws, pool, and a training set with lesions in it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pacs_node.analysis.bundle import load
from pacs_node.cli import app
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.workbench import bench_calibration as bench
from pacs_node.workbench.bench_contamination import Trial, bench_contamination
from tests.analysis.conftest import MODEL_YAML

GUMBEL = np.random.default_rng(1).gumbel(size=2000)
BREAST = shipped("models") / "us-breast"


@pytest.mark.parametrize(("alpha", "n"), [(0.01, 299), (0.05, 59), (0.05, 200), (0.1, 29), (0.1, 87)])
def test_a_right_threshold_keeps_its_promise_and_behaves_on_the_rest_as_is_due(alpha: float, n: int) -> None:
    row = bench.recalibrate(GUMBEL, alpha, n)
    assert row.kept >= bench.KEPT
    assert row.held_out == pytest.approx(row.held_out_due, abs=10)  # three standard deviations of 200 draws
    assert row.median_rate <= alpha < row.largest_rate


def test_a_threshold_that_is_too_low_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.calibration, "threshold", lambda scores, alpha: float(np.quantile(scores, 1 - alpha)))
    assert bench.recalibrate(GUMBEL, 0.05, 200).kept < 150


def test_the_chance_on_a_held_out_set_agrees_with_drawing() -> None:
    rng = np.random.default_rng(3)
    shown = []
    for _ in range(4000):
        scores = rng.random(100 + 150)
        shown.append(np.mean(scores[100:] > bench._threshold(scores[:100], 0.05)) <= 0.05)
    assert bench.chance_on_held_out(100, 150, 0.05) == pytest.approx(np.mean(shown), abs=0.015)
    assert bench.chance_on_held_out(59, 1_000_000, 0.05) == pytest.approx(0.9515, abs=0.001)
    with pytest.raises(ValueError, match="cannot promise"):
        bench.chance_on_held_out(58, 100, 0.05)


def test_sizes_begin_with_the_least_and_leave_two_thirds_to_measure_on() -> None:
    assert bench.sizes(0.05, 600) == [59, 74, 94, 118, 177]
    assert bench.sizes(0.01, 600) == []


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count the phantoms that are scored; their score is their seed."""
    seeds: list[int] = []

    def phantom(part: object, manifest: object, seed: int, **what: object) -> int:
        seeds.append(seed)
        return seed

    monkeypatch.setattr(bench.material, "phantom", phantom)
    monkeypatch.setattr(bench, "score", lambda bundle, seed: float(seed))
    return seeds


def test_the_pool_is_made_once_and_goes_on_after_an_interruption(counted: list[int], tmp_path: Path) -> None:
    bundle, cache = load(BREAST), tmp_path / "scores.jsonl"
    assert len(bench.pool_of(bundle, 5, cache, lambda what, fraction: None)) == 5
    cache.write_text(cache.read_text()[:-4])  # the last line was not written to its end
    pool = bench.pool_of(bundle, 8, cache, lambda what, fraction: None)
    assert pool == [float(bench.FIRST_SEED + index) for index in range(8)]
    assert len(counted) == 5 + 4
    assert bench.pool_of(bundle, 3, cache, lambda what, fraction: None) == pool[:3]
    assert len(counted) == 9


def test_scores_of_another_model_are_refused(counted: list[int], tmp_path: Path) -> None:
    cache = tmp_path / "scores.jsonl"
    bench.pool_of(load(BREAST), 2, cache, lambda what, fraction: None)
    with pytest.raises(InputError, match="holds scores of another model"):
        bench.pool_of(load(shipped("models") / "ct-head"), 2, cache, lambda what, fraction: None)


@pytest.mark.slow
def test_the_command_prints_the_table_of_a_real_pipeline(tmp_path: Path) -> None:
    line = ["bench", "calibration", "--bundle", str(BREAST), "--studies", "100", "--cache", str(tmp_path / "scores.jsonl"), "--json", str(tmp_path / "t.json")]
    done = CliRunner().invoke(app, line)
    found = json.loads((tmp_path / "t.json").read_text())
    assert [(row["alpha"], row["n"]) for row in found["rows"]] == [(0.1, 29)]
    assert done.exit_code == (0 if found["kept"] else 1)
    assert f"{found['rows'][0]['kept']} of 200" in done.output


@pytest.mark.slow
def test_lesions_among_the_training_studies_are_compared_with_none(tmp_path: Path, write: Callable[[str], Path]) -> None:
    found = bench_contamination(write(MODEL_YAML), Trial(train=10, held_out=5, normal=120, lesions=16, epochs=1), tmp_path / "work")
    assert set(found) == {"bundle", "trial", "clean", "contaminated", "lost_points", "lost_points_ci95", "kept"}
    for name in ("clean", "contaminated"):
        assert found[name]["kept"] >= 150  # whatever was learnt, the calibration is right; 190 on average
        assert 0 <= found[name]["sensitivity"] <= 1
    assert found["clean"]["threshold"] != found["contaminated"]["threshold"]
    low, high = found["lost_points_ci95"]
    assert low <= found["lost_points"] <= high
    assert not (tmp_path / "tiny" / "weights.safetensors").exists()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def bundle(text: str) -> Path:
        (tmp_path / "tiny").mkdir()
        (tmp_path / "tiny" / "model.yaml").write_text(text)
        return tmp_path / "tiny"

    return bundle
