"""Images without a unit are brought to one scale."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pacs_node.analysis import gate, intensity
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import prepare
from pacs_node.errors import OutOfScope
from pacs_node.records import Volume
from tests.analysis.conftest import volume


def mr(gain: float = 1.0, offset: float = 0.0, slices: int = 4) -> Volume:
    """A bright ellipse with dark fluid inside, in noise."""
    rng = np.random.default_rng(1)
    source = volume(slices=slices)
    head = np.where(source.pixels > -500, rng.normal(300, 30, source.pixels.shape), np.abs(rng.normal(0, 5, source.pixels.shape)))
    head[:, 44:52, 44:52] = 20
    return replace(source, pixels=(head * gain + offset).astype(np.float32), unit="1", modality="MR")


def test_the_percentiles_of_what_is_imaged_come_to_fixed_values() -> None:
    scaled = intensity.by_foreground(mr()).pixels
    inside = volume(slices=4).pixels > -500
    assert np.percentile(scaled[inside], [1, 99]) == pytest.approx([intensity.LOW, intensity.HIGH], abs=4)


def test_gain_and_offset_of_a_scanner_do_not_matter() -> None:
    assert np.allclose(intensity.by_foreground(mr()).pixels, intensity.by_foreground(mr(7.5, 100)).pixels, atol=0.01)


def test_fluid_inside_stays_darker_than_tissue_and_air_darker_still_than_half() -> None:
    scaled = intensity.by_foreground(mr()).pixels
    assert scaled[0, 48, 48] < 15 < 60 < np.median(scaled[0, 30:40, 44:52])
    assert scaled[0, 2, 2] < 10


def test_a_few_bright_pixels_do_not_decide() -> None:
    odd = mr()
    odd.pixels[0, 60, 60] = 30_000
    assert np.nanmedian(intensity.by_foreground(odd).pixels) == pytest.approx(np.nanmedian(intensity.by_foreground(mr()).pixels), abs=1)


def test_padding_takes_no_part_and_stays() -> None:
    padded = mr()
    padded.pixels[:, :20] = np.nan
    scaled = intensity.by_foreground(padded).pixels
    assert np.isnan(scaled[:, :20]).all()
    assert np.isfinite(scaled[:, 20:]).all()


@pytest.mark.parametrize("value", [0.0, 17.0, np.nan])
def test_a_blank_series_is_out_of_scope(value: float) -> None:
    with pytest.raises(OutOfScope, match="blank"):
        intensity.by_foreground(replace(volume(), pixels=np.full((5, 64, 64), value, dtype=np.float32)))


def test_training_and_node_see_the_same_whatever_the_scanners_gain(made_once: Path, tmp_path: Path) -> None:
    text = (made_once / "model.yaml").read_text().replace("modality: CT", "modality: MR").replace("body_above: -500", "body_above: 8\n  scaling: foreground")
    text = text.replace("physical: [-1000, 0, 100, 2000]", "physical: [-20, 0, 50, 120]").replace("between: [-10, 100]", "between: [20, 120]")
    (tmp_path / "model.yaml").write_text(text)
    manifest = read_manifest(tmp_path)
    quiet, loud = prepare(mr(slices=6), manifest), prepare(mr(9.0, slices=6), manifest)
    assert quiet.foreground.any()
    assert np.allclose(quiet.x, loud.x, atol=1e-3)


def test_a_bundle_for_one_weighting_refuses_others(made_once: Path) -> None:
    manifest = read_manifest(made_once)
    only = manifest.model_copy(update={"modality": "MR", "scope": manifest.scope.model_copy(update={"weightings": ("FLAIR",)})})
    with pytest.raises(OutOfScope, match=r"weighted otherwise \(T1\), expected FLAIR"):
        gate.check(replace(mr(slices=6), weighting="T1"), only)
    with pytest.raises(OutOfScope, match="of unknown weighting, expected FLAIR"):
        gate.check(replace(mr(slices=6), weighting="unknown"), only)
