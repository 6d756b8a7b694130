"""What makes the analysis fast changes nothing: file by file, slice by slice and all at once, in one thread, it says the same.

The plain way is written down here: values of all slices as float32 arrays, every slice resampled after the other, morphology by scipy, one pass
through the network, the maps of the whole series at once. It follows whatever the bundles hold at present.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from scipy import ndimage

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import grid, pipeline
from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder import scoring, threads
from pacs_node.config import shipped
from pacs_node.phantoms import PhantomSpec
from pacs_node.phantoms.study import write_study
from pacs_node.records import Finding, Volume
from tests.analysis.test_pipeline import TODAY

BUNDLES = {"ct-head": "head", "ct-body": "body", "mr-brain": "brain", "pt-body": "body", "us-breast": "breast"}
PER_Z = 2e-3
"""How far z values, up to 12, may lie apart: sums of float32 in another order, divided by small healthy spreads."""


def plain_foreground(view: np.ndarray, body_above: float) -> np.ndarray:
    result = np.zeros(view.shape, dtype=np.bool_)
    for index, image in enumerate(view):
        labels, count = ndimage.label(ndimage.binary_opening(image > body_above, iterations=2))
        if count:
            sizes = np.bincount(labels.ravel())
            sizes[0] = 0
            kept = np.isin(labels, np.flatnonzero(sizes >= 0.1 * sizes.max()))
            result[index] = ndimage.binary_fill_holes(ndimage.binary_dilation(kept, iterations=1)) & np.isfinite(image)
    return result


def plain_values(files: list[Path], bundle: Bundle) -> Volume:
    """The volume with its values made at once."""
    volume = pipeline.read_series(files, bundle.manifest)
    return replace(volume, pixels=np.stack([np.array(one) for one in volume.pixels]))


def plainly(files: list[Path], bundle: Bundle) -> tuple[scoring.Scores, np.ndarray, pipeline.Prepared]:
    """Judge a series in the plain way: scores, the view, and what the network got."""
    prepared = pipeline.prepare(plain_values(files, bundle), bundle.manifest)
    how, volume = bundle.manifest.preprocessing, prepared.volume
    view = np.stack([grid.sample(image, place.rows, place.columns) for image, place in zip(volume.pixels, grid._layouts(volume, how.grid), strict=True)])
    foreground = plain_foreground(view, how.body_above)
    x = torch.from_numpy(np.where(foreground, how.intensity.to_model(view), np.float32(0)))
    with torch.inference_mode():
        output = bundle.network(scoring.with_neighbours(x, bundle.network.slices))
    change = None if output.change is None else output.change[:, 0]
    seen = scoring.Seen(output.mean[:, 0], output.log_variance[:, 0], output.embedding, change)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_PIECE", len(x))
        patch.setattr(threads, "count", lambda: 1)
        scores = scoring.judge(x, seen, torch.from_numpy(foreground), bundle.normals, bundle.manifest.scoring.fusion, prepared.stratum)
    return scores, view, prepared


def same(finding: Finding, scores: scoring.Scores, view: np.ndarray) -> None:
    np.testing.assert_array_equal(finding.view, view)  # nothing is added up in another order here
    np.testing.assert_allclose(finding.slice_scores, scores.slices.numpy(), atol=PER_Z)
    assert finding.score == pytest.approx(scores.study, abs=5 * PER_Z)
    assert dict(finding.parts) == pytest.approx(dict(scores.parts), abs=5 * PER_Z)


def judged_both_ways(files: list[Path], bundle: Bundle) -> None:
    """Compare the two ways, and the heat map with that of the plain way's z values."""
    finding = pipeline.analyse(files, bundle, today=TODAY)
    scores, view, prepared = plainly(files, bundle)
    same(finding, scores, view)
    tail = bundle.calibration.pixel_tail if finding.heat_calibrated and bundle.calibration else None
    heat = pipeline._heat(scores.z.numpy(), prepared.foreground, tail)
    assert np.abs(finding.heat - heat).max() < 0.05  # the tail rises by up to 10 a unit of z
    assert np.abs(finding.heat - heat).mean() < 1e-4


def study(folder: Path, name: str, **what: object) -> list[Path]:
    modality = {"ct": "CT", "mr": "MR", "pt": "PT", "us": "US"}[name[:2]]
    small = {"slices": 4, "rows": 256} if modality == "US" else {"slices": 20, "rows": 160}  # ultrasound of fewer rows is another field of view
    fields: dict[str, object] = {**small, "lesion": "ellipsoid", "contrast": 3.0, "size": 0.05}
    return write_study(PhantomSpec(modality=modality, region=BUNDLES[name], seed=9_100_000, **(fields | what)), folder)  # type: ignore[arg-type]


def loaded(name: str) -> Bundle:
    return bundles.load(shipped("models") / name)


@pytest.mark.parametrize("name", BUNDLES)
def test_every_bundle_judges_as_in_the_plain_way(tmp_path: Path, name: str) -> None:
    judged_both_ways(study(tmp_path / "study", name), loaded(name))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ct-head", {"tilt": 15.0, "padding": True}),
        ("ct-body", {"enhanced": True}),
        ("mr-brain", {"enhanced": True, "plane": "sagittal", "sequence": "FLAIR"}),
        ("pt-body", {"enhanced": True}),
        ("us-breast", {"colour": True}),
        ("us-breast", {"enhanced": True}),
    ],
    ids=["tilted and padded", "enhanced CT", "enhanced MR", "enhanced PET", "colour ultrasound", "an ultrasound loop"],
)
def test_odd_series_are_judged_as_in_the_plain_way(tmp_path: Path, name: str, what: dict[str, object]) -> None:
    judged_both_ways(study(tmp_path / "study", name, **what), loaded(name))


@pytest.mark.slow
def test_an_irregular_stack_is_judged_as_in_the_plain_way(tmp_path: Path) -> None:
    files = study(tmp_path / "study", "ct-head", slices=24)
    judged_both_ways([file for index, file in enumerate(files) if index not in (3, 4, 11, 17)], loaded("ct-head"))


@pytest.mark.slow
def test_values_are_those_of_the_files(tmp_path: Path) -> None:
    """Stored value times slope plus intercept, padding left out, read without any of the node's code."""
    files = study(tmp_path / "study", "ct-head", slices=8, padding=True)
    volume = pipeline.read_series(files, loaded("ct-head").manifest)
    by_uid = {str(one.SOPInstanceUID): one for one in map(dcmread, files)}
    for frame, values in zip(volume.frames, volume.pixels, strict=True):
        source = by_uid[frame.sop_uid]
        stored = np.frombuffer(source.PixelData, "<i2" if source.PixelRepresentation else "<u2").reshape(source.Rows, source.Columns)
        expected = stored * float(source.RescaleSlope) + float(source.RescaleIntercept)
        known = np.isfinite(values)
        np.testing.assert_allclose(values[known], expected[known])
        assert (~known).any()
        assert (expected[~known] < -1500).all() or (stored[~known] == source.get("PixelPaddingValue")).all()
