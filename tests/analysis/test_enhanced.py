"""Enhanced multi-frame objects are read frame by frame as single-frame images are."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedCTImageStorage, EnhancedMRImageStorage, EnhancedPETImageStorage, LegacyConvertedEnhancedCTImageStorage

from pacs_node.analysis import ct, enhanced, mr, pt
from pacs_node.dicom.header import read_header
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import NotAnalysable
from tests.analysis.conftest import ROWS, ct_slice, slice_pixels

Write = Callable[[list[Dataset]], list[Path]]

MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
    "StackID": "FrameContentSequence",
    "InStackPositionNumber": "FrameContentSequence",
    "TemporalPositionIndex": "FrameContentSequence",
    "FrameAcquisitionDateTime": "FrameContentSequence",
    "EffectiveEchoTime": "MREchoSequence",
    "DiffusionBValue": "MRDiffusionSequence",
    "FrameType": "CTImageFrameTypeSequence",
    "ComplexImageComponent": "MRImageFrameTypeSequence",
    "AcquisitionContrast": "MRImageFrameTypeSequence",
    "RealWorldValueSlope": "RealWorldValueMappingSequence",
    "RealWorldValueIntercept": "RealWorldValueMappingSequence",
    "MeasurementUnitsCodeSequence": "RealWorldValueMappingSequence",
}


def group(facts: dict[str, object]) -> Dataset:
    """One item of functional groups."""
    item = Dataset()
    for keyword, value in facts.items():
        macro = MACROS[keyword]
        if macro not in item:
            setattr(item, macro, [Dataset()])
        setattr(getattr(item, macro)[0], keyword, value)
    return item


def multi_frame(frames: list[dict[str, object]], shared: dict[str, object] | None = None, **changes: object) -> Dataset:
    """An enhanced CT object whose frame n (from 0) holds `slice_pixels(n)`, 5 mm apart unless a frame says otherwise."""
    dataset = ct_slice(0, SOPClassUID=EnhancedCTImageStorage, ImageType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(dataset, keyword)
    everywhere = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [2.0, 2.0], "RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "HU"}
    own = {keyword for frame in frames for keyword in frame}
    dataset.SharedFunctionalGroupsSequence = [group({key: value for key, value in {**everywhere, **(shared or {})}.items() if key not in own})]
    dataset.PerFrameFunctionalGroupsSequence = [group({"ImagePositionPatient": [-96.0, -96.0, 5.0 * n], **frame}) for n, frame in enumerate(frames)]
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = b"".join(slice_pixels(n).tobytes() for n in range(len(frames)))
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = derive_uid("enhanced", str(frames), str(sorted(changes)), str(changes.get("InConcatenationNumber")))
    return dataset


def test_frames_are_put_in_geometric_order_and_keep_their_numbers(write: Write) -> None:
    frames: list[dict[str, object]] = [{"ImagePositionPatient": [-96.0, -96.0, z]} for z in (10.0, 0.0, 5.0)]
    volume = ct.read(write([multi_frame(frames)]))
    assert [frame.number for frame in volume.frames] == [2, 3, 1]
    assert [frame.plane.position[2] for frame in volume.frames if frame.plane] == [0, 5, 10]
    assert np.array_equal(volume.pixels[0], slice_pixels(1).astype(np.float32))
    assert volume.remarks == ()


def test_each_frame_has_its_own_rescale(write: Write) -> None:
    volume = ct.read(write([multi_frame([{"RescaleIntercept": 10 * n} for n in range(3)])]))
    assert np.array_equal(volume.pixels[2], slice_pixels(2).astype(np.float32) + 20)


def test_legacy_converted_objects_are_read_too(write: Write) -> None:
    assert len(ct.read(write([multi_frame([{}, {}, {}], SOPClassUID=LegacyConvertedEnhancedCTImageStorage)])).frames) == 3


def test_a_frame_type_speaks_for_its_frame(write: Write) -> None:
    frames: list[dict[str, object]] = [{"FrameType": ["DERIVED" if n == 3 else "ORIGINAL", "PRIMARY", "VOLUME", "NONE"]} for n in range(4)]
    volume = ct.read(write([multi_frame(frames, ImageType=["MIXED", "PRIMARY", "VOLUME", "NONE"])]))
    assert [frame.number for frame in volume.frames] == [1, 2, 3]
    assert "derived" in volume.remarks[0]


def test_of_two_stacks_the_larger_is_taken_and_the_other_named(write: Write) -> None:
    frames: list[dict[str, object]] = [{"StackID": "1" if n < 2 else "2", "InStackPositionNumber": 1} for n in range(5)]
    volume = ct.read(write([multi_frame(frames)]))
    assert [frame.number for frame in volume.frames] == [3, 4, 5]
    assert "stack 2 was used, left out: (stack 1)" in volume.remarks[0]


def test_of_several_temporal_positions_the_first_is_taken(write: Write) -> None:
    frames: list[dict[str, object]] = [{"TemporalPositionIndex": 1 + n // 2, "ImagePositionPatient": [0.0, 0.0, 5.0 * (n % 2)]} for n in range(4)]
    volume = ct.read(write([multi_frame(frames)]))
    assert [frame.number for frame in volume.frames] == [1, 2]
    assert "temporal position 1 was used, left out: (temporal position 2)" in volume.remarks[0]


@pytest.mark.parametrize(("keyword", "values", "kept"), [("EffectiveEchoTime", (80.0, 10.0), [3, 4]), ("DiffusionBValue", (0.0, 1000.0), [1, 2])])
def test_echoes_and_b_values_of_frames_are_told_apart(write: Write, keyword: str, values: tuple[float, float], kept: list[int]) -> None:
    frames: list[dict[str, object]] = [{keyword: values[n // 2], "ImagePositionPatient": [0.0, 0.0, 5.0 * (n % 2)]} for n in range(4)]
    volume = mr.read(write([multi_frame(frames, SOPClassUID=EnhancedMRImageStorage)]))
    assert [frame.number for frame in volume.frames] == kept


def test_phase_frames_of_an_mr_object_are_left_out(write: Write) -> None:
    frames: list[dict[str, object]] = [{"ComplexImageComponent": "PHASE" if n == 2 else "MAGNITUDE", "AcquisitionContrast": "T2"} for n in range(3)]
    volume = mr.read(write([multi_frame(frames, SOPClassUID=EnhancedMRImageStorage)]))
    assert len(volume.frames) == 2
    assert volume.weighting == "T2"


def enhanced_pet(unit: str) -> Dataset:
    drug, code = Dataset(), Dataset()
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife, drug.RadiopharmaceuticalStartDateTime = 350e6, 6586.2, "20240502090000"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = unit, "UCUM", unit
    facts = {"RealWorldValueSlope": 2.0, "RealWorldValueIntercept": 0.0, "MeasurementUnitsCodeSequence": [code], "RescaleType": "US"}
    return multi_frame(
        [{}, {}],
        facts,
        SOPClassUID=EnhancedPETImageStorage,
        PixelData=np.full((2, ROWS, ROWS), 500, dtype=np.int16).tobytes(),
        AttenuationCorrected="YES",
        DecayCorrected="YES",
        DecayCorrectionDateTime="20240502100000",
        PatientWeight=70,
        RadiopharmaceuticalInformationSequence=[drug],
    )


def test_enhanced_pet_in_becquerels_becomes_suv(write: Write) -> None:
    volume = pt.read(write([enhanced_pet("Bq/ml")]))
    assert volume.pixels[:].max() == pytest.approx(1000 * 70_000 / (350e6 * 2 ** (-3600 / 6586.2)), rel=1e-5)


def test_enhanced_pet_in_suv_is_taken_as_it_is(write: Write) -> None:
    assert pt.read(write([enhanced_pet("{SUVbw}g/ml")])).pixels[:].max() == pytest.approx(1000)


def part(number: int, total: int | None = 3, frames: int = 2) -> Dataset:
    places: list[dict[str, object]] = [{"ImagePositionPatient": [0.0, 0.0, 10.0 * number + 5.0 * n]} for n in range(frames)]
    changes: dict[str, object] = {"ConcatenationUID": "1.2.3", "InConcatenationNumber": number}
    return multi_frame(places, **changes, **({} if total is None else {"InConcatenationTotalNumber": total}))


def test_the_parts_of_a_concatenation_are_put_together(write: Write) -> None:
    volume = ct.read(write([part(3), part(1), part(2)]))
    assert [frame.number for frame in volume.frames] == [1, 2, 1, 2, 1, 2]
    assert volume.remarks[0] == "the multi-frame image arrived in 3 parts, which were put together"


def test_a_concatenation_with_missing_parts_is_refused(write: Write) -> None:
    with pytest.raises(NotAnalysable, match="in parts and 1 of 3 are missing"):
        ct.read(write([part(1), part(3)]))


def test_a_concatenation_that_does_not_say_its_total_is_read_and_that_is_said(write: Write) -> None:
    assert "how many there should be is not said" in ct.read(write([part(1, None), part(2, None)])).remarks[0]


def test_an_object_that_does_not_describe_its_frames_is_refused(write: Write) -> None:
    broken = multi_frame([{}, {}])
    broken.PerFrameFunctionalGroupsSequence = broken.PerFrameFunctionalGroupsSequence[:1]
    with pytest.raises(NotAnalysable, match="has 2 frames, but describes 1 of them"):
        ct.read(write([broken]))


def test_a_legacy_converted_object_gives_the_pixels_of_its_single_frames(dataset_folder: Callable[[str], Path]) -> None:
    folder = dataset_folder("dcmqi-small-ct-seg") / "data" / "segmentations" / "24x38x3"
    whole, single = ct.read([folder / "multiframe" / "mf.dcm"]), ct.read(sorted((folder / "image").glob("*.dcm")))
    assert np.array_equal(whole.pixels, single.pixels)
    assert [frame.plane for frame in whole.frames] == [frame.plane for frame in single.frames]


@pytest.mark.parametrize(
    ("dataset", "pattern", "shape", "weighting"),
    [
        ("mr-siemens-xa30-enhanced", "In/5_anat*/*.dcm", (96, 128, 128), "T1"),
        ("mr-siemens-xa30-enhanced", "In/8_gre*/*.dcm", (33, 64, 64), "other"),
        ("mr-philips-enhanced", "In/Philips/*.dcm", (32, 64, 64), "T1"),
        ("mr-philips-enhanced", "In/Siemens/XA10/*.dcm", (6, 64, 64), "other"),
    ],
)
def test_real_enhanced_mr_is_read(dataset_folder: Callable[[str], Path], dataset: str, pattern: str, shape: tuple[int, ...], weighting: str) -> None:
    volume = mr.read(sorted(dataset_folder(dataset).glob(pattern)))
    assert volume.pixels.shape == shape
    assert volume.weighting == weighting


def test_real_colour_maps_and_perfusion_maps_are_refused(dataset_folder: Callable[[str], Path]) -> None:
    with pytest.raises(NotAnalysable, match="colour maps"):
        mr.read(sorted(dataset_folder("mr-siemens-xa30-enhanced").glob("In/14_DWI*/*.dcm")))
    with pytest.raises(NotAnalysable, match="derived from other images"):
        ct.read([dataset_folder("pt-ct-small-suyashkumar") / "testdata" / "5.dcm"])


def test_every_frame_gets_a_header_of_its_own(dataset_folder: Callable[[str], Path]) -> None:
    header = read_header(next(dataset_folder("mr-philips-enhanced").glob("In/Philips/*.dcm")))
    frames = enhanced.frame_headers(header)
    assert len(frames) == 64
    assert len({tuple(frame.ImagePositionPatient) for frame in frames}) == 32
    assert "ImagePositionPatient" not in header
