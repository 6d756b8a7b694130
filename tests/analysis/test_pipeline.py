"""One series from files to finding."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import geometry, pipeline
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.calibration_file import TAIL_LEVELS, CalibrationFile
from pacs_node.analysis.manifest import CALIBRATION, WEIGHTS, sha256
from pacs_node.config import shipped
from pacs_node.errors import NotAnalysable, OutOfScope
from pacs_node.phantoms import LESIONS, PhantomSpec, make_volume
from pacs_node.records import Finding, Population, Verdict
from tests.analysis.conftest import ct_slice, volume

TODAY = date(2026, 6, 1)
Write = Callable[[list[Dataset]], list[Path]]


@pytest.fixture
def loaded(tiny: Path) -> Bundle:
    return bundles.load(tiny)


def with_calibration(folder: Path, population: Population, threshold: float | None) -> Bundle:
    scores = tuple(np.linspace(-1, 1, 60).tolist())
    found = CalibrationFile(
        population=population,
        studies=60,
        alpha=0.05,
        confidence=0.95,
        threshold=threshold,
        made_on=TODAY,
        newest_study=TODAY,
        weights_sha256=sha256(folder / WEIGHTS),
        scores=scores,
        pixel_tail=tuple(np.linspace(-1, 5, TAIL_LEVELS).tolist()),
    )
    (folder / CALIBRATION).write_text(found.model_dump_json())
    return bundles.load(folder)


def test_a_finding_holds_what_its_record_promises(loaded: Bundle) -> None:
    finding = pipeline.analyse_volume(volume(), loaded, today=TODAY)
    assert finding.verdict is Verdict.UNCALIBRATED
    assert (finding.calibration, finding.percentile, finding.p_value, finding.heat_calibrated) == (None, None, None, False)
    for array in (finding.heat, finding.view, finding.reconstruction):
        assert array.shape == (8, 64, 64)
        assert array.dtype == np.float32
    assert finding.slice_scores.shape == (8,)
    assert finding.embedding.dtype == np.float16
    assert finding.embedding.shape == (8, 32)
    assert 0 <= finding.heat.min() < finding.heat.max() <= 1
    assert not finding.heat[:, 0].any()  # air
    assert list(finding.top_slices) == sorted(finding.top_slices, key=lambda index: -finding.slice_scores[index])
    assert set(finding.parts) == {"peak", "extent", "embedding"}
    assert np.isfinite(finding.score)
    assert finding.algorithm.name == "tiny"
    assert np.array_equal(np.isnan(finding.view), np.isnan(finding.reconstruction))


def test_the_planes_say_where_the_map_lies(loaded: Bundle) -> None:
    source = volume()
    finding = pipeline.analyse_volume(source, loaded, today=TODAY)
    plane = finding.planes[3]
    assert plane is not None
    assert plane.spacing == (4.0, 4.0)
    offset = np.asarray(geometry.place(plane, 31.5, 31.5)) - np.array([-1.0, -1.0, 15.0])
    assert np.abs(offset).max() < 9  # the middle of the grid is the middle of the body, to a coarse pixel


def test_the_same_series_gives_the_same_finding(loaded: Bundle) -> None:
    one, other = (pipeline.analyse_volume(volume(), loaded, today=TODAY) for _ in range(2))
    assert one.score == other.score
    assert np.array_equal(one.heat, other.heat)
    assert np.array_equal(one.embedding, other.embedding)


def test_a_planted_block_raises_the_score_and_is_under_the_hottest_place(loaded: Bundle) -> None:
    clean, planted = volume(3), volume(3)
    planted.pixels[3:6, 40:60, 30:50] += 60
    findings = [pipeline.analyse_volume(one, loaded, today=TODAY) for one in (clean, planted)]
    assert findings[1].score > findings[0].score
    assert findings[1].top_slices[0] in (3, 4, 5)


@pytest.mark.parametrize(
    ("population", "synthetic", "threshold", "verdict"),
    [
        (Population.SYNTHETIC, True, -100.0, Verdict.ABOVE),
        (Population.SYNTHETIC, True, 100.0, Verdict.NOT_ABOVE),
        (Population.SYNTHETIC, False, -100.0, Verdict.UNCALIBRATED),
        (Population.SITE, False, -100.0, Verdict.ABOVE),
        (Population.FOREIGN, False, -100.0, Verdict.UNCALIBRATED),
        (Population.SITE, False, None, Verdict.UNCALIBRATED),
    ],
)
def test_verdict_and_calibrated_heat_go_together(tiny: Path, population: Population, synthetic: bool, threshold: float | None, verdict: Verdict) -> None:
    bundle = with_calibration(tiny, population, threshold)
    finding = pipeline.analyse_volume(volume(synthetic=synthetic), bundle, today=TODAY)
    assert finding.verdict is verdict
    calibrated = verdict is not Verdict.UNCALIBRATED
    assert finding.heat_calibrated is calibrated
    assert (finding.p_value is not None) is calibrated
    assert finding.heat.max() <= (4 if calibrated else 1)
    assert finding.algorithm.calibration_hash


def test_files_and_volume_give_the_same_score(write: Write, loaded: Bundle) -> None:
    files = write([ct_slice(index, SyntheticData="YES") for index in range(8)])
    heard: list[float] = []
    finding = pipeline.analyse(files, loaded, today=TODAY, beat=heard.append)
    assert finding.score == pipeline.analyse_volume(finding.volume, loaded, today=TODAY).score
    assert heard == sorted(heard)
    assert heard[-1] == 1.0
    assert len(heard) > 8


@pytest.mark.parametrize("batch", [1, 3])
def test_fewer_slices_at_a_time_say_the_same(loaded: Bundle, batch: int) -> None:
    heard: list[float] = []
    whole, small = (
        pipeline.analyse_volume(volume(), loaded, today=TODAY),
        pipeline.analyse_volume(volume(), loaded, today=TODAY, batch=batch, beat=heard.append),
    )
    assert len(heard) > len(whole.slice_scores) / batch  # a beat after each batch: it was cut
    assert small.score == pytest.approx(whole.score, rel=1e-4, abs=1e-4)
    assert small.verdict is whole.verdict
    np.testing.assert_allclose(small.slice_scores, whole.slice_scores, rtol=1e-3, atol=1e-3)


def test_a_beat_that_raises_cancels(loaded: Bundle) -> None:
    def cancel(fraction: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        pipeline.analyse_volume(volume(), loaded, beat=cancel, today=TODAY)


def test_what_was_left_out_reaches_the_finding(write: Write, loaded: Bundle) -> None:
    files = write([*(ct_slice(index) for index in range(8)), ct_slice(8, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])])
    remarks = pipeline.analyse(files, loaded, today=TODAY).remarks
    assert any("localizers" in remark for remark in remarks)
    assert any("uncalibrated" in remark for remark in remarks)


def test_out_of_scope_is_never_scored(write: Write, loaded: Bundle) -> None:
    with pytest.raises(OutOfScope, match="3 usable slices"):
        pipeline.analyse(write([ct_slice(index) for index in range(3)]), loaded, today=TODAY)
    with pytest.raises(NotAnalysable):
        pipeline.analyse([], loaded, today=TODAY)


def test_a_bundle_for_another_modality_says_so(tiny: Path) -> None:
    text = (tiny / "model.yaml").read_text()
    (tiny / "model.yaml").write_text(text.replace("modality: CT", "modality: XA"))
    with pytest.raises(OutOfScope, match="this version reads CT"):
        pipeline.analyse([], bundles.load(tiny), today=TODAY)


# --- the shipped bundles ---------------------------------------------------------------------------------------------------


def shipped_finding(name: str, seed: int, **what: object) -> tuple[Finding, np.ndarray]:
    from pacs_node.workbench import material

    bundle = bundles.load(shipped("models") / name)
    part = bundle.manifest.recipe.phantoms
    assert part is not None
    planted = material.phantom(part, bundle.manifest, seed, **what)
    made = make_volume(PhantomSpec(region=part.region, seed=seed, slices=part.slices, rows=part.rows, **what))
    return pipeline.analyse_volume(made.volume, bundle, today=TODAY), planted.lesion


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ct-head", "ct-body"])
def test_a_shipped_bundle_finds_large_lesions_of_most_families_and_judges_synthetic_studies(name: str) -> None:
    hits = []
    for index, family in enumerate(LESIONS):
        finding, lesion = shipped_finding(name, 9_000_000 + index, lesion=family, contrast=3.0, size=0.05)
        assert finding.verdict is not Verdict.UNCALIBRATED
        assert finding.heat_calibrated
        hits.append(bool(lesion[finding.top_slices[0]].any()))
    assert sum(hits) >= 3


@pytest.mark.slow
def test_a_patient_is_uncalibrated_under_a_synthetic_calibration(dataset_folder: Callable[[str], Path]) -> None:
    files = sorted(dataset_folder("ct-ge-head-tilt").rglob("*.dcm"))
    finding = pipeline.analyse(files, bundles.load(shipped("models") / "ct-head"), today=TODAY)
    assert finding.verdict is Verdict.UNCALIBRATED
    assert (finding.p_value, finding.percentile, finding.heat_calibrated) == (None, None, False)
    assert any("says nothing about patient studies" in remark for remark in finding.remarks)
    assert len(finding.planes) == 28
