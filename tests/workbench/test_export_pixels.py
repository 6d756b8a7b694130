"""Burnt-in text and kinds of objects: what may not leave is refused, and what is blanked is blank."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RawDataStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    VLPhotographicImageStorage,
    VLWholeSlideMicroscopyImageStorage,
)

from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.workbench.deidentify.options import Options, Region
from tests.journey.support import ct_slice
from tests.workbench.secrets_of import exported, run, save

CORNER = Region(0, 0, 60, 12)


def ultrasound(**options: bool) -> Dataset:
    return make_study(PhantomSpec(modality="US", slices=1, rows=192, **options))[0]  # type: ignore[arg-type]


def secondary_capture(**changes: object) -> Dataset:
    return ct_slice(0, SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", **changes)


@pytest.mark.parametrize(
    ("source", "why"),
    [
        pytest.param(lambda: ultrasound(), "burnt-in text", id="ultrasound that says so"),
        pytest.param(lambda: _without(ultrasound()), "ultrasound", id="ultrasound that does not say"),
        pytest.param(lambda: _stating(ultrasound(), "NO"), "although it says", id="ultrasound that says no"),
        pytest.param(lambda: secondary_capture(), "secondary capture", id="secondary capture"),
        pytest.param(lambda: ct_slice(0, BurnedInAnnotation="YES"), "burnt-in text", id="CT that says so"),
        pytest.param(lambda: ct_slice(0, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), "screen", id="picture of a screen"),
        pytest.param(lambda: ct_slice(0, SOPClassUID=VLPhotographicImageStorage, Modality="XC"), "photograph", id="photograph"),
        pytest.param(lambda: slide("LABEL", BurnedInAnnotation="NO"), "label", id="label of a slide"),
        pytest.param(lambda: slide("OVERVIEW"), "overview of a slide", id="overview of a slide"),
        pytest.param(lambda: ct_slice(0, ConversionType="DF"), "Conversion Type", id="digitised film"),
    ],
)
def test_what_may_show_text_is_refused_with_the_remedy(tmp_path: Path, source: Callable[[], Dataset], why: str) -> None:
    report = run(tmp_path, save(tmp_path / "in", source()))
    assert report.written == 0
    assert why in report.left_out[0].reason and "--clean-region" in report.left_out[0].reason
    assert not exported(tmp_path / "out")


def slide(kind: str, **changes: object) -> Dataset:
    return ct_slice(0, SOPClassUID=VLWholeSlideMicroscopyImageStorage, Modality="SM", ImageType=["ORIGINAL", "PRIMARY", kind, "NONE"], **changes)


def test_a_slide_itself_is_exported(tmp_path: Path) -> None:
    assert run(tmp_path, save(tmp_path / "in", slide("VOLUME"))).written == 1


def test_a_photograph_may_show_a_face(tmp_path: Path) -> None:
    source = ct_slice(0, SOPClassUID=VLPhotographicImageStorage, Modality="XC", BurnedInAnnotation="NO", BodyPartExamined="")
    source.StudyDescription = source.SeriesDescription = ""
    report = run(tmp_path, save(tmp_path / "in", source), Options(trust_stated=True))
    assert report.written == 1
    assert any("face" in warning for warning in report.warnings)


def _without(dataset: Dataset) -> Dataset:
    del dataset.BurnedInAnnotation
    return dataset


def _stating(dataset: Dataset, value: str) -> Dataset:
    dataset.BurnedInAnnotation = value
    return dataset


def test_an_ultrasound_that_says_no_is_believed_where_that_is_asked_for(tmp_path: Path) -> None:
    report = run(tmp_path, save(tmp_path / "in", _stating(ultrasound(), "NO")), Options(trust_stated=True))
    assert (report.written, report.left_out) == (1, [])


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
def test_a_region_is_blanked_and_the_rest_stays(tmp_path: Path, syntax: str, colour: bool) -> None:
    source = ultrasound(colour=colour)
    pixels = source.pixel_array.copy()
    assert pixels[:12, :60].any()
    if syntax != ExplicitVRLittleEndian:
        source.compress(syntax, generate_instance_uid=False)
    report = run(tmp_path, save(tmp_path / "in", source), Options(regions=(CORNER,)))
    assert (report.written, report.left_out) == (1, [])
    (made,) = exported(tmp_path / "out")
    assert not made.pixel_array[:12, :60].any()
    pixels[:12, :60] = 0
    np.testing.assert_array_equal(made.pixel_array, pixels)
    assert made.BurnedInAnnotation == "NO"
    assert "113101" in [one.CodeValue for one in made.DeidentificationMethodCodeSequence]


def test_every_frame_of_a_loop_is_blanked(tmp_path: Path) -> None:
    source = make_study(PhantomSpec(modality="US", slices=3, rows=192, enhanced=True))[0]
    run(tmp_path, save(tmp_path / "in", source), Options(regions=(CORNER,)))
    (made,) = exported(tmp_path / "out")
    assert made.pixel_array.shape == source.pixel_array.shape
    assert not made.pixel_array[:, :12, :60].any()


def test_black_is_the_largest_value_where_that_is_shown_black(tmp_path: Path) -> None:
    source = secondary_capture(PhotometricInterpretation="MONOCHROME1")
    run(tmp_path, save(tmp_path / "in", source), Options(regions=(Region(2, 3, 4, 5),)))
    (made,) = exported(tmp_path / "out")
    assert (made.pixel_array[3:8, 2:6] == source.pixel_array.max()).all()


def test_regions_leave_alone_what_may_show_no_text(tmp_path: Path) -> None:
    source = ct_slice(0)
    run(tmp_path, save(tmp_path / "in", source), Options(regions=(CORNER,)))
    assert exported(tmp_path / "out")[0].PixelData == source.PixelData


def test_a_region_beside_the_image_is_no_cleaning(tmp_path: Path) -> None:
    report = run(tmp_path, save(tmp_path / "in", ultrasound()), Options(regions=(Region(5000, 0, 10, 10),)))
    assert report.written == 0
    assert "outside" in report.left_out[0].reason


def test_pixels_that_cannot_be_decoded_cannot_be_cleaned(tmp_path: Path) -> None:
    source = ultrasound()
    source.compress(RLELossless, generate_instance_uid=False)
    source.PixelData = source.PixelData[:40] + b"\0" * 40
    report = run(tmp_path, save(tmp_path / "in", source), Options(regions=(CORNER,)))
    assert report.written == 0
    assert "cannot be decoded" in report.left_out[0].reason


def test_an_overlay_within_the_pixels_is_refused(tmp_path: Path) -> None:
    source = ct_slice(0)
    source.add_new(0x60000010, "US", 16)
    source.add_new(0x60000100, "US", 16)
    source.add_new(0x60000102, "US", 15)
    report = run(tmp_path, save(tmp_path / "in", source))
    assert "overlay" in report.left_out[0].reason


@pytest.mark.parametrize("kind", [RawDataStorage, EncapsulatedPDFStorage])
def test_objects_that_cannot_be_cleaned_are_refused(tmp_path: Path, kind: str) -> None:
    source = Dataset()
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality"):
        setattr(source, keyword, ct_slice(0)[keyword].value)
    source.SOPClassUID = kind
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    report = run(tmp_path, save(tmp_path / "in", source))
    assert report.written == 0
    assert "only images, structured reports and key objects" in report.left_out[0].reason


def test_two_objects_of_one_uid_do_not_replace_each_other(tmp_path: Path) -> None:
    one, other = ct_slice(0), ct_slice(0)
    other.PixelData = b"\1" * len(other.PixelData)
    report = run(tmp_path, save(tmp_path / "in", one, other))
    assert report.written == 1
    assert "same SOP Instance UID" in report.left_out[0].reason
    assert exported(tmp_path / "out")[0].SOPClassUID == CTImageStorage
