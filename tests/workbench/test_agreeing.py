"""Agreement of the two precisions is measured at the threshold, on studies of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pacs_node.analysis import agreement
from pacs_node.analysis.bundle import load
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.workbench import agreeing
from tests.analysis.conftest import make_bundle

SCORES = np.linspace(0, 10, 201).tolist()  # 20 studies a unit: ten percentile points


@pytest.mark.parametrize(
    ("shifts", "points"),
    [([0.0], 0.0), ([0.05, -0.01], 0.4975), ([-0.1, 0.05], 0.995), ([], 0.0), ([99.0], 4.975)],
    ids=["none", "up", "down", "no study", "out"],
)
def test_the_largest_move_of_a_score_at_the_threshold_counts(shifts: list[float], points: float) -> None:
    assert agreeing.moved_percentile(SCORES, 9.5, shifts) == pytest.approx(points, abs=1e-3)


@pytest.mark.slow
def test_a_bundle_is_measured_and_the_record_is_its_own(tmp_path: Path) -> None:
    bundle = replace(load(shipped("models") / "ct-head"), folder=tmp_path)
    found = agreeing.measure(bundle, 3, "cpu", faster=True)
    assert 1 <= found.studies <= 3
    assert 0 < found.score < 1
    assert not found.holds  # on so few studies
    agreeing.record(bundle, found)
    assert agreement.Agreement.model_validate_json((tmp_path / agreement.AGREEMENT).read_bytes()) == found
    assert not agreement.is_half(tmp_path, bundle.algorithm, "cpu")


def test_a_bundle_without_a_threshold_has_nothing_to_agree_about(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="calibrate"):
        agreeing.measure(load(make_bundle(tmp_path / "tiny")), 3, "cpu", faster=True)
