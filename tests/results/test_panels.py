"""Slices as pictures: everything lies where it lies in the patient."""

from dataclasses import replace

import numpy as np
import pytest

from pacs_node.records import Plane
from pacs_node.results import panels
from tests.results.studies import Shape, finding, grid_plane, header, slice_plane


def found_in(shape, **options):
    return finding(shape, tuple(header(shape, index) for index in range(shape.slices)), **options)


def panel_place(shape, row, column):
    """Return the panel pixel of a source pixel."""
    matrix, offset = panels.panel_to_source((shape.rows, shape.columns), (shape.spacing, shape.spacing))
    return np.linalg.solve(matrix, np.array([row, column]) - offset)


@pytest.mark.parametrize(
    ("direction", "letters"),
    [
        ((1, 0, 0), "L"),
        ((-1, 0, 0), "R"),
        ((0, 1, 0), "P"),
        ((0, -1, 0), "A"),
        ((0, 0, 1), "H"),
        ((0, 0, -1), "F"),
        ((0, 0.94, -0.34), "PF"),
        ((0, 0.99, -0.14), "P"),
        ((-0.7, 0, 0.71), "HR"),
        ((-0.41, 0.41, -0.81), "FRP"),
    ],
)
def test_directions_have_the_letters_of_the_patient_based_system(direction, letters):
    assert panels.direction_letters(direction) == letters


@pytest.mark.parametrize(
    ("orientation", "letters"),
    [
        ((1, 0, 0, 0, 0, -1), "RLHF"),  # coronal, seen from the front
        ((0, 1, 0, 0, 0, -1), "APHF"),  # sagittal, seen from the left
        ((-1, 0, 0, 0, -1, 0), "LRPA"),  # prone, not turned
        ((1, 0, 0, 0, -1, 0), "RLPA"),  # seen from the head
        ((0, -1, 0, 0, 0, -1), "PAHF"),  # sagittal, seen from the right
    ],
)
def test_letters_stand_at_left_right_top_and_bottom_for_any_plane(orientation, letters):
    found = panels.edge_letters(Plane((0.0, 0.0, 0.0), orientation, (1.0, 1.0)))
    assert "".join(found[edge] for edge in ("left", "right", "top", "bottom")) == letters


def test_an_axial_slice_is_seen_from_the_feet():
    plane = Plane((0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0), (1.0, 1.0))
    assert panels.edge_letters(plane) == {"left": "R", "right": "L", "top": "A", "bottom": "P"}


@pytest.mark.parametrize("shape", [Shape(), Shape(tilt=20.0), Shape(rows=128, columns=64), Shape(grid=48, grid_spacing=3.1)])
def test_grid_and_source_pixels_at_one_point_of_the_patient_are_mapped_onto_each_other(shape):
    source = slice_plane(shape, 2)
    grid = grid_plane(shape, source)
    matrix, offset = panels.plane_to_plane(source, grid)
    for row, column in ((0, 0), (10, 31), (63, 5)):
        right, down = np.array(source.orientation[:3]), np.array(source.orientation[3:])
        point = np.array(source.position) + right * column * source.spacing[1] + down * row * source.spacing[0]
        there = matrix @ np.array([row, column]) + offset
        back = np.array(grid.position) + right * there[1] * grid.spacing[1] + down * there[0] * grid.spacing[0]
        assert np.allclose(back, point, atol=1e-6)


def test_a_slice_fills_the_panel_in_its_true_proportions():
    shape = Shape(rows=64, columns=128)
    top, left = panel_place(shape, -0.5, -0.5)
    bottom, right = panel_place(shape, 63.5, 127.5)
    assert (right - left, bottom - top) == pytest.approx((512, 256))
    assert left == pytest.approx(-0.5) and top == pytest.approx(127.5)


def test_pixels_of_unequal_spacing_are_drawn_in_millimetres():
    matrix, _ = panels.panel_to_source((100, 100), (2.0, 1.0))
    assert matrix[0, 0] * 2.0 == pytest.approx(matrix[1, 1] * 1.0)


def test_a_512_slice_is_shown_pixel_for_pixel():
    shape = Shape(slices=1, rows=512, columns=512, spacing=0.5)
    found = found_in(shape, lesion=(0, 12, 20))
    noise = np.random.default_rng(1).uniform(0, 80, (1, 512, 512)).astype(np.float32)
    found = replace(found, volume=replace(found.volume, pixels=noise))
    assert np.abs(panels.anatomy(found, 0).astype(float) - noise[0] / 80 * 255).max() <= 0.51


@pytest.mark.parametrize("tilt", [0.0, 17.5])
def test_heat_is_drawn_where_the_lesion_lies_in_the_slice_and_nowhere_else(tilt):
    shape = Shape(tilt=tilt)
    row, column = 12, 20
    found = found_in(shape, lesion=(3, row, column))
    grid = found.planes[3]
    matrix, offset = panels.plane_to_plane(grid, slice_plane(shape, 3))
    middle = panel_place(shape, *(matrix @ np.array([row, column]) + offset))
    drawn = np.argwhere(panels.heat(found, 3) >= panels.SCALES[True].shown_from)
    assert np.allclose(drawn.mean(axis=0), middle, atol=0.6)
    assert np.abs(drawn - middle).max() < 2 * shape.grid_spacing / shape.spacing * 4 + 1
    assert not (panels.heat(found, 2) > 0).any()


def test_without_planes_the_grid_covers_the_whole_slice():
    shape = Shape(rows=96, columns=128)
    found = found_in(shape, lesion=(3, 1, 1))
    frames = tuple(replace(frame, plane=None) for frame in found.volume.frames)
    found = replace(found, planes=(None,) * shape.slices, volume=replace(found.volume, frames=frames))
    drawn = np.argwhere(panels.heat(found, 3) > 1.3)
    assert drawn.min(axis=0).tolist() == pytest.approx([64 + 6, 8], abs=8)  # at the upper left corner of the slice, which is 512 × 384
    assert drawn.max(axis=0).tolist() == pytest.approx([64 + 36, 48], abs=8)


def test_heat_beside_the_slice_is_not_drawn():
    shape = Shape(rows=96, columns=32, grid=32)  # the grid is 160 mm wide, the slice 64 mm
    found = found_in(shape, lesion=(3, 12, 5))
    assert found.heat[3].max() > 3 and not panels.heat(found, 3).any()
    assert panels.heat(found_in(shape, lesion=(3, 12, 15)), 3).max() > 3


@pytest.mark.parametrize("period", [2, 3, 5])
def test_fine_patterns_of_a_large_slice_turn_into_grey_and_not_into_coarse_patterns(period):
    shape = Shape(slices=1, rows=128, columns=2048, spacing=0.125)
    found = found_in(shape)
    stripes = 40 + 40 * np.sign(np.cos(2 * np.pi * (np.arange(2048) + 0.1) / period))
    found = replace(found, volume=replace(found.volume, pixels=np.tile(stripes.astype(np.float32), (1, 128, 1))))
    inner = panels.anatomy(found, 0)[250:262, 8:-8].astype(float)
    mean = stripes.clip(0, 80).mean() / 80 * 255
    assert np.abs(inner - mean).max() < 25


def test_values_that_are_no_numbers_are_drawn_as_nothing():
    shape = Shape()
    found = found_in(shape)
    heat, pixels = found.heat.copy(), found.volume.pixels.copy()
    heat[3, :5], pixels[3, :, :10] = np.nan, np.nan
    found = replace(found, heat=heat, volume=replace(found.volume, pixels=pixels), window=(float("nan"), 80.0))
    assert np.isfinite(panels.heat(found, 3)).all()
    assert panels.anatomy(found, 3).max() > 0


def test_a_volume_without_any_number_is_black():
    found = found_in(Shape())
    empty = np.full_like(found.volume.pixels, np.nan)
    found = replace(found, volume=replace(found.volume, pixels=empty), window=(0.0, 0.0))
    assert panels.anatomy(found, 0).max() == 0


def test_anatomy_stays_grey_outside_the_overlay():
    shape = Shape()
    found = found_in(shape)
    heat = panels.heat(found, 3)
    picture = panels.overlay(panels.anatomy(found, 3), heat, panels.SCALES[True])
    coloured = picture.max(axis=-1) != picture.min(axis=-1)
    assert np.array_equal(coloured, heat >= panels.SCALES[True].shown_from)


def test_calibrated_heat_is_drawn_only_beyond_a_tail_of_five_percent():
    assert panels.SCALES[True].shown_from == pytest.approx(-np.log10(0.05), abs=1e-3)
    assert "uncalibrated" in panels.SCALES[False].caption and "relative" in panels.SCALES[False].caption
