"""Bad input through the whole analysis, as files: a clear refusal or a sensible result that says what was odd, in bounded time and memory."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import pipeline
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.manifest import read_manifest
from pacs_node.config import shipped
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import OutOfScope, UndecodablePixels
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.records import Finding
from tests.analysis.conftest import ROWS, ct_slice, slice_pixels
from tests.workbench.test_training import TODAY

Write = Callable[[list[Dataset]], list[Path]]


@pytest.fixture
def loaded(tiny: Path) -> Bundle:
    return bundles.load(tiny)


def sized(rows: int, count: int, step: float = 5.0) -> list[Dataset]:
    """Slices of the usual head in another matrix."""
    spacing = 192 / rows
    return [
        ct_slice(index, step * index, Rows=rows, Columns=rows, PixelSpacing=[spacing, spacing], PixelData=slice_pixels(index, rows).tobytes())
        for index in range(count)
    ]


def with_floats(index: int) -> Dataset:
    """A slice of floating point pixels (PS3.3 C.7.6.24), one of which is no number and one infinite."""
    dataset = ct_slice(index)
    values = slice_pixels(index).astype(np.float32)
    values[10, 10], values[40, 40], values[50, 40] = np.nan, np.inf, -np.inf
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    dataset.FloatPixelData, dataset.BitsAllocated = values.tobytes(), 32
    return dataset


def assert_sensible(finding: Finding, slices: int) -> None:
    assert len(finding.slice_scores) == slices
    assert np.isfinite(finding.score)
    assert np.isfinite(finding.slice_scores).all()
    assert np.isfinite(finding.heat).all()
    assert np.isfinite(finding.embedding).all()


@pytest.mark.parametrize("value", [0, 40, 3000])
def test_a_constant_series_is_blank(write: Write, loaded: Bundle, value: int) -> None:
    pixels = np.full((ROWS, ROWS), value, dtype=np.int16).tobytes()
    with pytest.raises(OutOfScope, match="the images are blank"):
        pipeline.analyse(write([ct_slice(index, PixelData=pixels) for index in range(8)]), loaded, today=TODAY)


@pytest.mark.parametrize(("name", "modality"), [("mr-brain", "MR"), ("pt-body", "PT")])
def test_a_constant_series_is_blank_in_every_unit(write: Write, name: str, modality: str) -> None:
    study = make_study(PhantomSpec(modality, slices=8, rows=64))
    for dataset in study:
        dataset.PixelData = b"\x07\x00" * 64 * 64
        if modality == "PT":
            dataset.RescaleSlope = study[0].RescaleSlope
    manifest = read_manifest(shipped("models") / name)
    with pytest.raises(OutOfScope, match="the images are blank"):
        pipeline.prepare(pipeline.read_series(write(study), manifest), manifest)


def test_pixels_that_are_no_numbers_take_no_part(write: Write, loaded: Bundle) -> None:
    finding = pipeline.analyse(write([with_floats(index) for index in range(8)]), loaded, today=TODAY)
    usual = pipeline.analyse(write([ct_slice(index) for index in range(8)]), loaded, today=TODAY)
    assert_sensible(finding, 8)
    assert finding.score == pytest.approx(usual.score, rel=0.1)


@pytest.mark.parametrize(
    ("slope", "words"),
    [("1e38", r"the pixel values are infinite \(a wrong rescale slope\?\)"), ("1e30", "wrong units"), ("1e-30", "the images are blank")],
)
def test_a_rescale_that_leaves_all_bounds_is_refused(write: Write, loaded: Bundle, slope: str, words: str) -> None:
    with pytest.raises(OutOfScope, match=words):
        pipeline.analyse(write([ct_slice(index, RescaleSlope=slope) for index in range(8)]), loaded, today=TODAY)


def test_a_rescale_that_is_no_finite_number_names_the_attribute(write: Write, loaded: Bundle) -> None:
    with pytest.raises(UndecodablePixels, match="RescaleSlope is no finite number, or beyond all bounds"):
        pipeline.analyse(write([ct_slice(index, RescaleSlope="1e300") for index in range(8)]), loaded, today=TODAY)


def test_one_slice_is_too_few_and_says_how_many_are_needed(write: Write, loaded: Bundle) -> None:
    with pytest.raises(OutOfScope, match="the series has 1 usable slice, at least 5 are needed"):
        pipeline.analyse(write([ct_slice(0)]), loaded, today=TODAY)


def test_pixels_too_coarse_to_show_anatomy_are_refused(write: Write) -> None:
    manifest = read_manifest(shipped("models") / "ct-head")
    with pytest.raises(OutOfScope, match=r"the pixels measure 12\.0 × 12\.0 mm, more than 4 times what the model looks at \(2 mm\)"):
        pipeline.prepare(pipeline.read_series(write(sized(16, 8)), manifest), manifest)


def test_sixteen_by_sixteen_pixels_do_not_break_a_model_that_looks_as_coarsely(write: Write, loaded: Bundle) -> None:
    assert_sensible(pipeline.analyse(write(sized(16, 8)), loaded, today=TODAY), 8)


def test_missing_slices_are_said(write: Write, loaded: Bundle) -> None:
    finding = pipeline.analyse(write([ct_slice(index) for index in range(10) if index not in (4, 5)]), loaded, today=TODAY)
    assert_sensible(finding, 8)
    assert "the slices have 1 gap wider than 1.5 times the usual spacing of 5.00 mm" in finding.remarks


def test_the_order_of_files_and_of_instance_numbers_changes_nothing(write: Write, loaded: Bundle) -> None:
    usual = pipeline.analyse(write([ct_slice(index) for index in range(8)]), loaded, today=TODAY)
    renumbered = [ct_slice(index, InstanceNumber=8 - index) for index in (3, 1, 7, 0, 2, 6, 5, 4)]
    other = pipeline.analyse(write(renumbered), loaded, today=TODAY)
    assert other.score == usual.score
    np.testing.assert_array_equal(other.heat, usual.heat)


@pytest.mark.parametrize("new_uids", [False, True])
def test_duplicated_slices_count_once_and_are_said(write: Write, loaded: Bundle, new_uids: bool) -> None:
    usual = pipeline.analyse(write([ct_slice(index) for index in range(8)]), loaded, today=TODAY)
    again = [ct_slice(index, SOPInstanceUID=derive_uid("again", index)) if new_uids else ct_slice(index) for index in range(8)]
    finding = pipeline.analyse(write([*(ct_slice(index) for index in range(8)), *again]), loaded, today=TODAY)
    assert finding.score == usual.score
    assert any("8 images show a position that another image shows already" in remark for remark in finding.remarks)


@pytest.mark.slow
def test_two_thousand_small_slices_are_analysed(write: Write, loaded: Bundle) -> None:
    heard: list[float] = []
    finding = pipeline.analyse(write(sized(64, 2000, 0.5)), loaded, today=TODAY, beat=heard.append)
    assert_sensible(finding, 2000)
    assert len(heard) >= 2000


_MEASURED = """
import json, resource, sys
from datetime import date
from pathlib import Path
from pacs_node.analysis import bundle, pipeline
finding = pipeline.analyse(sorted(Path(sys.argv[2]).iterdir()), bundle.load(Path(sys.argv[1])), today=date(2026, 6, 1))
print(json.dumps({"slices": len(finding.slice_scores), "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


@pytest.mark.slow
def test_images_of_4096_by_4096_pixels_find_room_in_two_gigabytes(write: Write, tiny: Path) -> None:
    files = write(sized(4096, 6))
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(tiny), str(files[0].parent)], capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    assert measured["slices"] == 6
    assert measured["peak"] < 2e9
