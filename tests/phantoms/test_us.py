"""Ultrasound phantoms: speckle, the image region, loops and colour."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import UltrasoundImageStorage, UltrasoundMultiFrameImageStorage
from scipy import ndimage

from pacs_node.analysis.us import read
from pacs_node.phantoms import PhantomSpec, make_volume, write_study

SMALL = PhantomSpec(modality="US", slices=3, rows=192)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("enhanced", [False, True])
def test_a_study_reads_back_as_the_volume(tmp_path: Path, seed: int, enhanced: bool) -> None:
    colour = enhanced == (seed == 1)
    spec = replace(SMALL, seed=seed, colour=colour, enhanced=enhanced, lesion="ellipsoid")
    paths = write_study(spec, tmp_path)
    assert len(paths) == (1 if enhanced else 3)
    volume, made = read(paths), make_volume(spec).volume
    both = np.isfinite(volume.pixels) & np.isfinite(made.pixels)
    np.testing.assert_allclose(volume.pixels[both], made.pixels[both], atol=1e-3)
    assert both.sum() > 0.93 * np.isfinite(made.pixels).sum()  # what the reader takes for the picture is found by brightness
    assert [frame.number for frame in volume.frames] == ([1, 2, 3] if enhanced else [None] * 3)
    assert volume.frames == made.frames


def test_the_region_holds_the_picture_and_the_text_lies_outside(tmp_path: Path) -> None:
    header = dcmread(write_study(replace(SMALL, seed=2), tmp_path)[0])
    region = header.SequenceOfUltrasoundRegions[0]
    rows = slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1)
    columns = slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1)
    outside = np.ones(header.pixel_array.shape, dtype=bool)
    outside[rows, columns] = False
    assert header.pixel_array[outside].max() == 200 and header.BurnedInAnnotation == "YES"
    picture = make_volume(replace(SMALL, seed=2)).volume.pixels[0]
    assert np.isnan(picture[outside]).all()
    assert np.isnan(picture[rows.start, columns.start])  # the beams of this transducer spread: a trapezoid in the region
    assert region.PhysicalDeltaX * 10 == pytest.approx(50 / 192)


def test_it_has_no_place_in_the_patient() -> None:
    volume = make_volume(SMALL).volume
    assert volume.frame_of_reference_uid is None
    assert all(frame.plane is None and frame.spacing is not None for frame in volume.frames)


def test_neighbouring_pixels_share_their_speckle_and_distant_ones_do_not() -> None:
    picture = make_volume(replace(SMALL, rows=256)).volume.pixels[0]
    part = picture[40:110, 40:200]
    part = part - ndimage.gaussian_filter(part, 6)
    assert 8 < part.std() < 60
    beside = np.corrcoef(part[:, :-1].ravel(), part[:, 1:].ravel())[0, 1]
    away = np.corrcoef(part[:, :-12].ravel(), part[:, 12:].ravel())[0, 1]
    assert beside > 0.4 > 0.1 > abs(away)


def test_colour_differs_in_the_encoding_only(tmp_path: Path) -> None:
    grey, colour = (dcmread(write_study(replace(SMALL, colour=colour), tmp_path / str(colour))[0]) for colour in (False, True))
    region = grey.SequenceOfUltrasoundRegions[0]
    inside = (slice(region.RegionLocationMinY0, region.RegionLocationMaxY1 + 1), slice(region.RegionLocationMinX0, region.RegionLocationMaxX1 + 1))
    assert (colour.PhotometricInterpretation, colour.SamplesPerPixel, grey.PhotometricInterpretation) == ("RGB", 3, "MONOCHROME2")
    for channel in range(3):
        np.testing.assert_array_equal(colour.pixel_array[..., channel][inside], grey.pixel_array[inside])
    assert grey.SOPInstanceUID != colour.SOPInstanceUID


def test_a_loop_is_a_multi_frame_image_with_a_frame_time(tmp_path: Path) -> None:
    loop = dcmread(write_study(replace(SMALL, enhanced=True), tmp_path)[0])
    assert (loop.SOPClassUID, loop.NumberOfFrames, loop.FrameTime) == (UltrasoundMultiFrameImageStorage, 3, 40)
    still = dcmread(write_study(SMALL, tmp_path / "still")[0])
    assert still.SOPClassUID == UltrasoundImageStorage and "NumberOfFrames" not in still
    assert "FrameOfReferenceUID" not in still and "ImagePositionPatient" not in still
