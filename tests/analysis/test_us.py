"""An ultrasound series becomes a stack of grey pictures without the surroundings; it has no place in the patient."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedUSVolumeStorage, UltrasoundImageStorage, UltrasoundMultiFrameImageStorage

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import us
from pacs_node.analysis.grid import Grid, resample
from pacs_node.analysis.pipeline import analyse_volume
from pacs_node.errors import NotAnalysable
from pacs_node.records import Volume
from tests.analysis.conftest import ct_slice, volume

Write = Callable[[list[Dataset]], list[Path]]
HEIGHT, WIDTH = 120, 160
REMOVED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "RescaleSlope", "RescaleIntercept", "RescaleType")


def picture(seed: int = 0) -> np.ndarray:
    """A sector of speckle with a black cyst, text beside it: (rows, columns) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    grey = np.where(sector(), rng.integers(60, 200, (HEIGHT, WIDTH)), 0)
    grey[(x - 80) ** 2 + (y - 70) ** 2 < 64] = 0
    grey[4:8, 4:30:2] = 255
    return grey.astype(np.uint8)


def sector() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    return (np.hypot(x - 80, y - 10) < 95) & (np.abs(x - 80) < 0.7 * (y - 10)) & (y > 25)


def us_image(index: int = 0, pixels: np.ndarray | None = None, **changes: object) -> Dataset:
    """One ultrasound object: grey (rows, columns), colour (rows, columns, 3) or a loop (frames, rows, columns)."""
    pixels = picture(index) if pixels is None else pixels
    colour = pixels.shape[-1] == 3
    dataset = ct_slice(index, SOPClassUID=UltrasoundImageStorage, Modality="US", **dict.fromkeys(REMOVED))
    del dataset.FrameOfReferenceUID
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        dataset.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        dataset.SOPClassUID, dataset.NumberOfFrames = UltrasoundMultiFrameImageStorage, len(pixels)
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = bits, bits, bits - 1, 0
    dataset.PixelData = pixels.tobytes()
    for keyword, value in changes.items():
        setattr(dataset, keyword, value)
    dataset.SOPInstanceUID = f"1.2.3.{index}.{pixels.size}"
    return dataset


def region(**changes: object) -> Dataset:
    """A two-dimensional region with tissue over columns 20…139 and rows 10…109, 0.5 mm a pixel."""
    facts: dict[str, object] = {
        "RegionSpatialFormat": 1,
        "RegionDataType": 1,
        "RegionLocationMinX0": 20,
        "RegionLocationMinY0": 10,
        "RegionLocationMaxX1": 139,
        "RegionLocationMaxY1": 109,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.05,
        "PhysicalDeltaY": 0.05,
    }
    item = Dataset()
    for keyword, value in {**facts, **changes}.items():
        setattr(item, keyword, value)
    return item


def test_grey_pictures_keep_their_values_inside_the_fan_and_have_no_plane(write: Write) -> None:
    found = us.read(write([us_image(index) for index in range(3)]))
    inside = np.isfinite(found.pixels[0])
    assert np.array_equal(found.pixels[0][inside], picture(0)[inside].astype(np.float32))
    assert (found.modality, found.unit, found.frame_of_reference_uid) == ("US", "1", None)
    assert all(frame.plane is None and frame.number is None for frame in found.frames)


def test_text_beside_the_fan_is_masked_and_fluid_inside_is_not(write: Write) -> None:
    inside = np.isfinite(us.read(write([us_image()])).pixels[0])
    assert not inside[4:8, 4:30].any()
    assert inside[70, 80]
    assert (inside & sector()).sum() / (inside | sector()).sum() > 0.95


def test_regions_say_what_is_tissue_and_how_large_a_pixel_is(write: Write) -> None:
    found = us.read(write([us_image(SequenceOfUltrasoundRegions=[region(RegionSpatialFormat=3), region()])]))
    assert found.frames[0].spacing == pytest.approx((0.5, 0.5))
    assert not np.isfinite(found.pixels[0][110:]).any()


def test_a_region_in_other_units_than_centimetres_has_no_spacing(write: Write) -> None:
    found = us.read(write([us_image(SequenceOfUltrasoundRegions=[region(PhysicalUnitsXDirection=4)])]))
    assert found.frames[0].spacing is None


def test_spectra_and_m_mode_are_left_out(write: Write) -> None:
    spectrum = us_image(1, SequenceOfUltrasoundRegions=[region(RegionSpatialFormat=3, RegionDataType=3)])
    assert "M-mode or spectral Doppler" in us.read(write([us_image(), spectrum])).remarks[0]
    with pytest.raises(NotAnalysable, match="M-mode or spectral Doppler"):
        us.read(write([spectrum]))


def test_the_frames_of_a_loop_are_numbered_and_share_a_fan(write: Write) -> None:
    loop = np.stack([picture(seed) for seed in range(4)])
    loop[0, 60:] = 0  # one frame in shadow
    found = us.read(write([us_image(pixels=loop)]))
    assert [frame.number for frame in found.frames] == [1, 2, 3, 4]
    assert np.array_equal(np.isfinite(found.pixels[0]), np.isfinite(found.pixels[1]))


def test_coloured_pixels_are_masked_and_it_is_said(write: Write) -> None:
    colours = np.repeat(picture()[..., None], 3, axis=2)
    colours[60:70, 90:100] = (220, 30, 20)
    found = us.read(write([us_image(pixels=colours)]))
    assert np.isnan(found.pixels[0, 60:70, 90:100]).all()
    assert found.pixels[0, 80, 80] == pytest.approx(picture()[80, 80], abs=0.01)
    assert found.remarks == ("coloured pixels (Doppler, marks) in 1 of 1 pictures were left out",)


def test_a_tinted_grey_scale_is_no_doppler(write: Write) -> None:
    sepia = (picture()[..., None] * np.array([1.0, 0.75, 0.4])).astype(np.uint8)
    found = us.read(write([us_image(pixels=sepia)]))
    assert np.isfinite(found.pixels[0]).mean() > 0.2
    assert found.remarks == ("1 of 1 pictures are tinted and were taken as grey",)


def test_sixteen_bits_and_inverted_grey_are_brought_to_the_same_scale(write: Write) -> None:
    wide = us.read(write([us_image(pixels=picture().astype(np.uint16) * 257)]))
    turned = us.read(write([us_image(pixels=255 - picture(), PhotometricInterpretation="MONOCHROME1")]))
    plain = us.read(write([us_image()]))
    assert np.array_equal(wide.pixels, plain.pixels, equal_nan=True)
    assert np.array_equal(turned.pixels, plain.pixels, equal_nan=True)


def test_pictures_of_another_size_or_depth_are_left_out_and_it_is_said(write: Write) -> None:
    deeper = us_image(3, SequenceOfUltrasoundRegions=[region(PhysicalDeltaX=0.1, PhysicalDeltaY=0.1)])
    found = us.read(write([*(us_image(i, SequenceOfUltrasoundRegions=[region()]) for i in range(2)), us_image(2, picture()[:100]), deeper]))
    assert len(found.frames) == 2
    assert "3 sizes or depths" in found.remarks[0]


def test_of_a_loop_too_long_for_the_memory_every_nth_frame_is_used(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(us, "MOST_VALUES", 3 * HEIGHT * WIDTH)
    found = us.read(write([us_image(pixels=np.stack([picture(seed) for seed in range(5)]))]))
    assert [frame.number for frame in found.frames] == [1, 3, 5]
    assert "of 5 frames one in 2 was used" in found.remarks


def test_an_enhanced_volume_has_planes(write: Write) -> None:
    loop = us_image(pixels=np.stack([picture(seed) for seed in range(3)]), SOPClassUID=EnhancedUSVolumeStorage, FrameOfReferenceUID="1.2.3")
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, orientation.ImageOrientationVolume = [0.5, 0.5], [1.0, 0, 0, 0, 1, 0]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationVolumeSequence = [measures], [orientation]
    loop.SharedFunctionalGroupsSequence, loop.PerFrameFunctionalGroupsSequence = [shared], []
    for index in range(3):
        position, one = Dataset(), Dataset()
        position.ImagePositionVolume = [0.0, 0.0, 2.0 * index]
        one.PlanePositionVolumeSequence = [position]
        loop.PerFrameFunctionalGroupsSequence.append(one)
    found = us.read(write([loop]))
    assert [frame.plane.position[2] for frame in found.frames if frame.plane] == [0, 2, 4]
    assert found.frame_of_reference_uid == "1.2.3"


def placeless(spacing: tuple[float, float] | None) -> Volume:
    """Six slices without planes."""
    source = volume(slices=6)
    return replace(source, frames=tuple(replace(frame, plane=None, spacing=spacing) for frame in source.frames), frame_of_reference_uid=None)


def test_pictures_with_a_scale_lie_on_the_grid_in_millimetres() -> None:
    made = resample(placeless((2.0, 2.0)), Grid(64, 4.0, -500))
    assert made.planes == (None,) * 6
    assert (made.places[0].row_step, made.places[0].column_step) == (2.0, 2.0)
    assert np.array_equal(made.view, resample(volume(slices=6), Grid(64, 4.0, -500)).view, equal_nan=True)


def test_pictures_without_a_scale_fill_the_grid() -> None:
    made = resample(placeless(None), Grid(64, 4.0, -500))
    assert np.isfinite(made.view).all()
    place = made.places[0]
    assert (place.row + 63 * place.row_step + place.row) / 2 == pytest.approx((96 - 1) / 2)
    assert 64 * place.row_step == pytest.approx(96)


def test_a_study_without_planes_is_judged_and_says_where_its_maps_lie(made_once: Path) -> None:
    loaded = bundles.load(made_once)
    finding = analyse_volume(placeless((2.0, 2.0)), loaded, today=date(2024, 5, 2))
    assert finding.planes == (None,) * 6
    assert len(finding.places) == 6
    assert finding.heat.shape == (6, 64, 64)
    assert np.isfinite(finding.score)


def test_a_real_loop_is_read_whole(dataset_folder: Callable[[str], Path]) -> None:
    path = next(dataset_folder("pydicom-test-files").rglob("examples_ybr_color.dcm"), None)
    if path is None:
        pytest.skip("the set holds no such file")
    found = us.read([path])
    assert found.pixels.shape == (30, 240, 320)
    assert found.frames[0].spacing == pytest.approx((0.51, 0.51), abs=0.01)
    assert 0.2 < np.isfinite(found.pixels[0]).mean() < 0.4
