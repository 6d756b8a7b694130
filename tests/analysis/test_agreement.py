"""Half precision only where the processor has it and this bundle, with these weights, has been seen to agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pacs_node.analysis import agreement, pipeline
from pacs_node.analysis.bundle import load
from pacs_node.autoencoder import scoring
from pacs_node.records import Algorithm
from tests.analysis.conftest import make_bundle, volume
from tests.analysis.test_pipeline import TODAY

ALGORITHM = Algorithm("tiny", "1", "us", bundle_hash="a", config_hash="b", calibration_hash="c", device_uid="1.2")


def seen(**changes: object) -> agreement.Agreement:
    usual = {"bundle_hash": "a", "calibration_hash": "c", "studies": 40, "score": 0.02, "percentile": 0.3, "faster": True}
    return agreement.Agreement.model_validate(usual | changes)


@pytest.mark.parametrize(
    ("content", "capable", "expected"),
    [
        (seen(), True, True),
        (seen(), False, False),
        (seen(percentile=0.6), True, False),
        (seen(studies=5), True, False),
        (seen(faster=False), True, False),
        (seen(bundle_hash="other"), True, False),
        (seen(calibration_hash="other"), True, False),
        (None, True, False),
    ],
    ids=["agrees", "another processor", "disagrees", "hardly measured", "does not pay", "other weights", "another calibration", "never measured"],
)
def test_a_bundle_computes_in_bfloat16_only_where_that_is_known_to_be_harmless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: agreement.Agreement | None, capable: bool, expected: bool
) -> None:
    monkeypatch.setattr(agreement, "has_bfloat16", lambda device: capable)
    if content is not None:
        (tmp_path / agreement.AGREEMENT).write_text(content.model_dump_json())
    assert agreement.is_half(tmp_path, ALGORITHM, "cpu") is expected


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"studies": 40}'])
def test_a_damaged_record_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    monkeypatch.setattr(agreement, "has_bfloat16", lambda device: True)
    (tmp_path / agreement.AGREEMENT).write_text(damage)
    assert agreement.is_half(tmp_path, ALGORITHM, "cpu") is False


def test_both_precisions_see_nearly_the_same_and_say_it_in_float32(tmp_path: Path) -> None:
    """bfloat16 has 8 significant bits: what leaves the network differs by about a hundredth of its range."""
    bundle = load(make_bundle(tmp_path / "tiny"))
    prepared = pipeline.prepare(volume(), bundle.manifest)
    whole, half = (scoring.look(bundle.network, prepared.x, half=choice) for choice in (False, True))
    assert half.mean.dtype == half.log_variance.dtype == half.embedding.dtype == torch.float32
    assert not torch.equal(whole.mean, half.mean)
    assert (whole.mean - half.mean).abs().max() < 0.05 * whole.mean.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_says_what_the_processor_says(tmp_path: Path) -> None:
    """Convolutions of a GPU add up in another order, so that z values differ in their fourth digit."""
    bundle = load(make_bundle(tmp_path / "tiny"))
    cpu, gpu = (pipeline.analyse_volume(volume(slices=40), bundle, device, today=TODAY) for device in ("cpu", "cuda"))
    assert gpu.score == pytest.approx(cpu.score, abs=2e-3)
    np.testing.assert_allclose(gpu.slice_scores, cpu.slice_scores, atol=5e-3)
    np.testing.assert_allclose(gpu.heat, cpu.heat, atol=5e-3)
