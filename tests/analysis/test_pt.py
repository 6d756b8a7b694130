"""A PET series becomes a volume in SUV; what has no SUV is refused with the reason."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from pacs_node.analysis import pt
from pacs_node.errors import NotAnalysable
from tests.analysis.conftest import ROWS, ct_slice

Write = Callable[[list[Dataset]], list[Path]]


def drug(**changes: object) -> Dataset:
    """350 MBq of F-18 at nine."""
    item = Dataset()
    item.RadiopharmaceuticalStartTime, item.RadionuclideTotalDose, item.RadionuclideHalfLife = "090000.00", 350e6, 6586.2
    for keyword, value in changes.items():
        setattr(item, keyword, value)
    return item


def pt_slice(index: int, stored: int = 1000, **changes: object) -> Dataset:
    """One PET image whose pixels are all ``stored``, with a slope of its own: (1 + index / 10) Bq/ml."""
    facts: dict[str, object] = {
        "SOPClassUID": PositronEmissionTomographyImageStorage,
        "Modality": "PT",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "RescaleSlope": 1 + index / 10,
        "RescaleType": "BQML",
        "PixelData": np.full((ROWS, ROWS), stored, dtype=np.int16).tobytes(),
        "Units": "BQML",
        "SeriesType": ["WHOLE BODY", "IMAGE"],
        "CorrectedImage": ["DECY", "ATTN"],
        "DecayCorrection": "START",
        "PatientWeight": 70,
        "RadiopharmaceuticalInformationSequence": [drug()],
        "SeriesDate": "20240502",
        "SeriesTime": "100000",
        "AcquisitionDate": "20240502",
        "AcquisitionTime": "100000.00",
    }
    dataset = ct_slice(index, **{**facts, **changes})
    dataset.SOPInstanceUID = f"1.2.826.{index}.{stored}"
    return dataset


def private(dataset: Dataset, group: int, creator: str, element: int, vr: str, value: object) -> Dataset:
    dataset.private_block(group, creator, create=True).add_new(element, vr, value)
    return dataset


def test_pixels_become_suv_with_the_slope_of_each_slice(write: Write) -> None:
    volume = pt.read(write([pt_slice(index) for index in (2, 0, 1)]))
    factor = 70_000 / (350e6 * 2 ** (-3600 / 6586.2))
    assert volume.pixels[:, 0, 0] == pytest.approx([1000 * factor, 1100 * factor, 1200 * factor], rel=1e-5)
    assert (volume.modality, volume.unit) == ("PT", "{SUVbw}g/ml")


def test_ge_keeps_the_scan_time_of_a_series_made_later_in_a_private_attribute(write: Write) -> None:
    slices = [private(pt_slice(i, SeriesTime="150000"), 0x0009, "GEMS_PETD_01", 0x0D, "DT", "20240502100000.00") for i in range(2)]
    assert pt.read(write(slices)).pixels[0, 0, 0] == pytest.approx(1000 * 70_000 / (350e6 * 2 ** (-3600 / 6586.2)), rel=1e-5)


def test_philips_counts_become_suv_by_a_private_attribute(write: Write) -> None:
    slices = [private(pt_slice(i, Units="CNTS"), 0x7053, "Philips PET Private Group", 0x00, "DS", "0.002") for i in range(2)]
    assert pt.read(write(slices)).pixels[:, 0, 0] == pytest.approx([2.0, 2.2])


def test_a_start_with_date_and_zone_is_brought_to_the_scanners_clock(write: Write) -> None:
    changes = {"RadiopharmaceuticalInformationSequence": [drug(RadiopharmaceuticalStartDateTime="20240502080000+0100")], "TimezoneOffsetFromUTC": "+0200"}
    assert pt.read(write([pt_slice(0, **changes)])).pixels[0, 0, 0] == pytest.approx(1000 * 70_000 / (350e6 * 2 ** (-3600 / 6586.2)), rel=1e-5)


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"SeriesType": ["DYNAMIC", "IMAGE"]}, "dynamic or gated"),
        ({"SeriesType": ["STATIC", "REPROJECTION"]}, "projections"),
        ({"CountsSource": "TRANSMISSION"}, "transmission"),
        ({"ImageType": ["DERIVED", "PRIMARY"]}, "derived"),
        ({"ImagePositionPatient": None}, "position"),
    ],
)
def test_an_image_that_does_not_belong_is_left_out_with_the_reason(write: Write, odd: dict[str, object], reason: str) -> None:
    volume = pt.read(write([*(pt_slice(index) for index in range(4)), pt_slice(4, **odd)]))
    assert len(volume.frames) == 4
    assert any(reason in remark for remark in volume.remarks)


def test_images_of_differing_units_are_refused(write: Write) -> None:
    with pytest.raises(NotAnalysable, match="differ in Units"):
        pt.read(write([pt_slice(0), pt_slice(1, Units="GML")]))


def test_a_real_whole_body_study_has_the_suv_that_its_header_gives(dataset_folder: Callable[[str], Path]) -> None:
    volume = pt.read(sorted((dataset_folder("acrin-nsclc-fdg-pet-042") / "pt_ge_ac").glob("*")))
    # 91 kg; 588,802,304 Bq at 07:21:00, scanned at 09:59:47, half-life 6588 s: 9527 s are 1.4461 half-lives
    factor = 91_000 / (588_802_304 * 2 ** (-9527 / 6588))
    assert factor == pytest.approx(4.2115e-4, rel=1e-4)
    assert volume.pixels.shape == (135, 128, 128)
    assert volume.remarks == ()
    assert volume.pixels[:].max() == pytest.approx(51.09, abs=0.01)  # the bladder
    body = volume.pixels[volume.pixels > 0.1]
    assert 0.4 < float(np.median(body)) < 2.0


def test_its_uncorrected_series_is_refused(dataset_folder: Callable[[str], Path]) -> None:
    with pytest.raises(NotAnalysable, match="the pixels are in PROPCNTS units"):
        pt.read(sorted((dataset_folder("acrin-nsclc-fdg-pet-042") / "pt_ge_nac").glob("*"))[:10])


def test_a_real_image_of_another_maker_has_the_suv_that_its_header_gives(dataset_folder: Callable[[str], Path]) -> None:
    path = dataset_folder("pt-ct-small-suyashkumar") / "testdata" / "1.dcm"
    volume = pt.read([path])
    # 69.7344 kg; 178,340,011.6 Bq at 14:17:00, scanned at 15:23:16.921, half-life 6586.2 s; largest stored value 1327, slope 9.12329
    assert volume.pixels[:].max() == pytest.approx(1327 * 9.12329 * 69_734.4 / (178_340_011.6 * 2 ** (-3976.921 / 6586.2)), rel=1e-5)
