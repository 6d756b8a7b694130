"""An MR series becomes a volume of magnitude values; what is no part of it is left out, and said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from pacs_node.analysis import mr
from pacs_node.errors import NotAnalysable
from tests.analysis.conftest import ct_slice, slice_pixels

Write = Callable[[list[Dataset]], list[Path]]
SAGITTAL, CORONAL = [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]
OBLIQUE = [1, 0, 0, 0, 0.8, 0.6]


def mr_slice(index: int, **changes: object) -> Dataset:
    """One T1 weighted MR image."""
    facts: dict[str, object] = {
        "SOPClassUID": MRImageStorage,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "RescaleType": None,
        "ScanningSequence": "SE",
        "RepetitionTime": 500,
        "EchoTime": 12,
    }
    return ct_slice(index, **{**facts, **changes})


def private(dataset: Dataset, group: int, creator: str, element: int, vr: str, value: object) -> Dataset:
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return dataset


def test_values_are_read_with_their_rescale_and_the_weighting_is_named(write: Write) -> None:
    volume = mr.read(write([mr_slice(index, RescaleSlope=2, RescaleIntercept=1) for index in (1, 0, 2)]))
    assert np.array_equal(volume.pixels[1], slice_pixels(1).astype(np.float32) * 2 + 1)
    assert (volume.modality, volume.unit, volume.weighting) == ("MR", "1", "T1")
    assert volume.remarks == ()  # the summary names the weighting


@pytest.mark.parametrize("orientation", [SAGITTAL, CORONAL, OBLIQUE])
def test_slices_of_any_orientation_are_put_in_order(write: Write, orientation: list[float]) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [mr_slice(i, ImageOrientationPatient=orientation, ImagePositionPatient=[float(x) for x in np.round(normal * 4 * i, 6)]) for i in (3, 1, 0, 2)]
    volume = mr.read(write(slices))
    along = [float(np.asarray(frame.plane.position) @ normal) for frame in volume.frames if frame.plane]
    assert along == pytest.approx([0, 4, 8, 12])


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER", "M"]}, "localizers"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}, "mosaics"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]}, "maps computed"),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "FA", "ND"]}, "maps computed"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "phase, real or imaginary"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "OTHER", "R", "IR"]}, "phase, real or imaginary"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "B0 MAP", "B0", "UNSPECIFIED"]}, "field or velocity maps"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "CSA MIP"]}, "projections"),
        ({"ImageType": ["DERIVED", "SECONDARY", "OTHER"]}, "derived"),
        ({"ImagePositionPatient": None}, "position"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "no MR images"),
    ],
)
def test_an_image_that_does_not_belong_is_left_out_with_the_reason(write: Write, odd: dict[str, object], reason: str) -> None:
    volume = mr.read(write([*(mr_slice(index) for index in range(4)), mr_slice(4, **odd)]))
    assert len(volume.frames) == 4
    assert any(reason in remark for remark in volume.remarks)


def test_ge_says_in_a_private_attribute_that_an_image_shows_phase(write: Write) -> None:
    slices = [mr_slice(0), mr_slice(1), private(mr_slice(2), 0x0043, "GEMS_PARM_01", 0x2F, "SS", 1)]
    assert len(mr.read(write(slices)).frames) == 2


def test_of_two_echoes_the_first_is_taken_and_the_other_named(write: Write) -> None:
    slices = [mr_slice(i, EchoTime=echo, EchoNumbers=n, RepetitionTime=4000) for n, echo in ((2, 100), (1, 15)) for i in range(3)]
    volume = mr.read(write(slices))
    assert len(volume.frames) == 3
    assert volume.remarks[0] == "the series shows the same places 2 times; echo 1; echo time 15 was used, left out: (echo 2; echo time 100)"


def test_of_several_b_values_the_lowest_with_all_places_is_taken(write: Write) -> None:
    slices = [
        mr_slice(i, DiffusionBValue=float(b), ScanningSequence=["EP", "SE"], InstanceNumber=100 * n + i) for n, b in enumerate((1000, 0, 500)) for i in range(3)
    ]
    volume = mr.read(write(slices))
    assert volume.weighting == "DWI"
    assert volume.remarks[0] == "the series shows the same places 3 times; b-value 0 was used, left out: (b-value 500), (b-value 1000)"


def test_an_echo_that_covers_fewer_places_is_not_taken(write: Write) -> None:
    slices = [*(mr_slice(i, EchoTime=15) for i in range(2)), *(mr_slice(i, EchoTime=100) for i in range(4))]
    assert len(mr.read(write(slices)).frames) == 4


@pytest.mark.parametrize(
    ("group", "creator", "element", "vr", "value", "expected"),
    [
        (0x0019, "SIEMENS MR HEADER", 0x0C, "IS", "1000", 1000),
        (0x0043, "GEMS_PARM_01", 0x39, "IS", ["1000000800", "8", "0", "0"], 800),
        (0x2001, "Philips Imaging DD 001", 0x03, "FL", 50.0, 50),
    ],
)
def test_b_values_are_found_where_makers_kept_them(group: int, creator: str, element: int, vr: str, value: object, expected: float) -> None:
    assert mr.b_value(private(mr_slice(0), group, creator, element, vr, value)) == expected


def test_an_unknown_weighting_is_said(write: Write) -> None:
    volume = mr.read(write([mr_slice(i, ScanningSequence="RM") for i in range(2)]))
    assert volume.weighting == "unknown"
    assert "the header does not say how the images are weighted" in volume.remarks


def test_a_real_sagittal_volume_is_read_whole(dataset_folder: Callable[[str], Path]) -> None:
    files = sorted(path for path in dataset_folder("mr-ge-spgr-defaced").rglob("*") if path.is_file() and path.suffix not in (".md", ""))
    volume = mr.read(files[:40])
    assert volume.pixels.shape == (40, 256, 256)
    assert volume.weighting == "T1"
    assert np.allclose(volume.frames[0].plane.orientation if volume.frames[0].plane else (), SAGITTAL, atol=0.01)


def test_a_real_mosaic_is_refused(dataset_folder: Callable[[str], Path]) -> None:
    with pytest.raises(NotAnalysable, match="mosaics of many slices"):
        mr.read([dataset_folder("mr-transfer-syntaxes") / "In" / "1.dcm"])
