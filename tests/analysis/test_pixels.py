"""From stored values to physical units."""

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pacs_node.analysis import pixels
from pacs_node.errors import UndecodablePixels
from tests.analysis.conftest import ct_slice, slice_pixels


def header(**attributes: object) -> Dataset:
    dataset = Dataset()
    dataset.BitsStored, dataset.PixelRepresentation = 8, 0
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


STORED = np.array([[0, 10], [200, 255]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [0, 10, 200, 255]),
        ({"RescaleSlope": 2, "RescaleIntercept": -1024}, [-1024, -1004, -624, -514]),
        ({"RescaleIntercept": -5}, [-5, 5, 195, 250]),
        ({"PhotometricInterpretation": "MONOCHROME1"}, [255, 245, 55, 0]),
        ({"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": 1, "RescaleIntercept": 0}, [0, 10, 200, 255]),
        ({"PixelPaddingValue": 255}, [0, 10, 200, None]),
        ({"PixelPaddingValue": 200, "PixelPaddingRangeLimit": 255}, [0, 10, None, None]),
        ({"PixelPaddingValue": 255, "PixelPaddingRangeLimit": 200}, [0, 10, None, None]),
        ({"PixelPaddingValue": 0, "RescaleSlope": 1, "RescaleIntercept": 100}, [None, 110, 300, 355]),
    ],
)
def test_physical_values(attributes: dict[str, object], expected: list[float | None]) -> None:
    values = pixels.physical_values(STORED, header(**attributes))
    assert values.dtype == np.float32
    assert [None if np.isnan(value) else value for value in values.ravel().tolist()] == expected


def test_a_modality_lut_comes_before_rescale() -> None:
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [4, 0, 16], [7, 17, 27, 37]
    dataset = header(ModalityLUTSequence=[item], RescaleSlope=100, RescaleIntercept=0)
    assert pixels.physical_values(np.array([[0, 1], [2, 9]], dtype=np.uint8), dataset).ravel().tolist() == [7, 17, 27, 37]


@pytest.mark.parametrize(("value", "stored"), [(63536, -2000), (-2000, -2000), (1000, 1000)])
def test_padding_written_under_the_other_signedness_is_found(value: int, stored: int) -> None:
    values = np.array([[stored, 5]], dtype=np.int16)
    padding = pixels.padding_of(values.dtype, header(PixelPaddingValue=value))
    assert padding is not None
    mask = padding.mask(values)
    assert mask is not None
    assert mask.tolist() == [[True, False]]


def test_an_instance_is_decoded_to_hounsfield_units() -> None:
    values = pixels.read_physical(ct_slice(3, RescaleIntercept=-24))
    assert np.array_equal(values, slice_pixels(3).astype(np.float32) - 24)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"PixelData": b"\0\0" * 10}, "less than expected"),
        ({"Rows": 0}, "zero"),
        ({"Rows": 60000, "Columns": 60000}, "more than this node decodes"),
        ({"SamplesPerPixel": 3}, "colour"),
        ({"RescaleSlope": None, "PixelData": None}, "no pixel data"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_instance_and_reason(changes: dict[str, object], word: str) -> None:
    dataset = ct_slice(0, **changes)
    with pytest.raises(UndecodablePixels, match=word) as refused:
        pixels.read_physical(dataset)
    assert str(dataset.SOPInstanceUID) in str(refused.value)
    assert "Explicit VR Little Endian" in str(refused.value)
