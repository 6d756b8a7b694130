"""A CT series becomes a volume in Hounsfield units; what is no part of it is left out, and said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, MRImageStorage

from pacs_node.analysis import ct
from pacs_node.errors import NotAnalysable, UndecodablePixels
from tests.analysis.conftest import ROWS, ct_slice, slice_pixels

Write = Callable[[list[Dataset]], list[Path]]


def test_slices_are_read_in_geometric_order_in_hounsfield_units(write: Write) -> None:
    files = write([ct_slice(index, RescaleIntercept=-24) for index in (3, 0, 2, 1)])
    volume = ct.read(files)
    assert volume.pixels.shape == (4, ROWS, ROWS)
    assert volume.unit == "[hnsf'U]"
    assert np.array_equal(volume.pixels[2], slice_pixels(2).astype(np.float32) - 24)
    assert [frame.plane.position[2] for frame in volume.frames if frame.plane] == [0, 5, 10, 15]
    assert (volume.modality, volume.synthetic, volume.remarks) == ("CT", False, ())


def test_padding_and_values_below_anything_physical_are_nan(write: Write) -> None:
    stored = slice_pixels(0)
    stored[0, :4] = [-2000, -3024, -1023, -1400]
    volume = ct.read(write([ct_slice(index, PixelData=stored.tobytes(), PixelPaddingValue=-1400) for index in range(3)]))
    assert np.isnan(volume.pixels[0, 0, :4]).tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizers"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, "derived"),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "AXIAL"]}, "secondary"),
        ({"ImagePositionPatient": None}, "position"),
        ({"RescaleSlope": None, "RescaleIntercept": None}, "Hounsfield"),
        ({"RescaleType": "OD"}, "Hounsfield"),
        ({"SOPClassUID": MRImageStorage}, "no CT images"),
        ({"PixelSpacing": [1.0, 1.0]}, "2 stacks"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "2 stacks"),
        ({"ImagePositionPatient": [-96.0, -96.0, 5.0]}, "1 images show a position"),
        ({"PixelData": b"\0\0"}, "cannot be decoded"),
    ],
)
def test_an_image_that_does_not_belong_is_left_out_with_the_reason(write: Write, odd: dict[str, object], reason: str) -> None:
    volume = ct.read(write([*(ct_slice(index) for index in range(12)), ct_slice(12, **odd)]))
    assert len(volume.frames) == 12
    assert any(reason in remark for remark in volume.remarks)


def test_an_image_compressed_with_loss_is_derived_but_still_itself(write: Write) -> None:
    volume = ct.read(write([ct_slice(index, ImageType=["DERIVED", "PRIMARY", "AXIAL"], LossyImageCompression="01") for index in range(3)]))
    assert len(volume.frames) == 3


def test_of_two_acquisitions_at_the_same_places_one_is_used_whole(write: Write) -> None:
    plain = [ct_slice(index, AcquisitionNumber=2) for index in range(6)]
    contrast = [ct_slice(index, AcquisitionNumber=3, RescaleIntercept=100) for index in range(5)]
    volume = ct.read(write([one for pair in zip(plain, [*contrast, contrast[0]], strict=True) for one in pair][:-1]))
    assert len(volume.frames) == 6
    assert np.nanmedian(volume.pixels[volume.pixels > -500]) == pytest.approx(30, abs=2)
    assert any("2 acquisitions" in remark for remark in volume.remarks)


def test_of_two_series_the_larger_is_analysed_and_it_is_said(write: Write) -> None:
    volume = ct.read(write([ct_slice(0, SeriesInstanceUID="1.2.3"), *(ct_slice(index) for index in range(3))]))
    assert len(volume.frames) == 3
    assert "2 series were given" in volume.remarks[0]


def test_files_that_are_no_dicom_are_counted(write: Write, tmp_path: Path) -> None:
    other = tmp_path / "LICENSE"
    other.write_text("free")
    assert ct.read([*write([ct_slice(index) for index in range(3)]), other]).remarks == ("1 files are no readable DICOM objects",)
    with pytest.raises(NotAnalysable, match="none of the files"):
        ct.read([other])


def test_nothing_to_analyse_is_a_reason_that_names_what_was_there(write: Write) -> None:
    with pytest.raises(NotAnalysable, match="no image of the series can be analysed as CT: they are localizers"):
        ct.read(write([ct_slice(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])]))


def test_an_enhanced_ct_without_its_functional_groups_is_refused_with_the_reason(write: Write) -> None:
    with pytest.raises(NotAnalysable, match="enhanced multi-frame"):
        ct.read(write([ct_slice(0, SOPClassUID=EnhancedCTImageStorage)]))


def test_too_many_damaged_slices_are_an_error(write: Write) -> None:
    with pytest.raises(UndecodablePixels, match="less than expected"):
        ct.read(write([ct_slice(index, PixelData=b"\0\0" if index % 2 else slice_pixels(0).tobytes()) for index in range(6)]))


def test_progress_is_heard_for_every_slice_and_may_stop_the_reading(write: Write) -> None:
    files = write([ct_slice(index) for index in range(5)])
    heard: list[float] = []
    ct.read(files, heard.append)
    assert heard == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])

    def cancel(fraction: float) -> None:
        raise TimeoutError

    with pytest.raises(TimeoutError):
        ct.read(files, cancel)


def test_synthetic_is_said_only_where_every_image_says_so(write: Write) -> None:
    assert ct.read(write([ct_slice(index, SyntheticData="YES") for index in range(3)])).synthetic
    assert not ct.read(write([ct_slice(0), *(ct_slice(index, SyntheticData="YES") for index in range(1, 3))])).synthetic


def test_a_real_tilted_head_keeps_its_planes(dataset_folder: Callable[[str], Path]) -> None:
    files = [path for path in dataset_folder("ct-ge-head-tilt").rglob("*.dcm") if path.is_file()]
    volume = ct.read(files)
    assert volume.pixels.shape == (28, 512, 512)
    assert any("tilted by 18.5 degrees" in remark for remark in volume.remarks)
    assert any("irregular" in remark for remark in volume.remarks)
    assert 0.2 < np.isnan(volume.pixels).mean() < 0.3  # the corners outside the field of view


def test_a_real_compressed_body_is_read_whole(dataset_folder: Callable[[str], Path]) -> None:
    volume = ct.read(sorted((dataset_folder("acrin-nsclc-fdg-pet-042") / "ct_ge_pet").glob("*.dcm"))[:20])
    assert volume.pixels.shape == (20, 512, 512)
    assert np.nanmin(volume.pixels) >= -1024
    assert volume.remarks == ()
