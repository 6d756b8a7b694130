"""Regions: what of the map is one, where it is joined, how large it is."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from pacs_node.results.outlines import border, outlines
from pacs_node.results.regions import MOST_REGIONS, regions_of
from tests.results.modalities import ultrasound
from tests.results.studies import Shape, request


def hot(made, *places, heat=3.5):
    """Return a finding with heat in boxes (slice, rows, columns) and nowhere else."""
    found = np.zeros_like(made.finding.heat)
    for place in places:
        found[place] = heat
    return replace(made.finding, heat=found)


SLICES = request(Shape(slices=5))  # 5 mm apart, grid of 5 mm


def test_a_map_that_is_only_relative_has_no_regions():
    assert regions_of(request(calibrated=False).finding) == ()


@pytest.mark.parametrize(("heat", "count"), [(3.0, 0), (3.0001, 1), (4.0, 1), (np.inf, 1), (np.nan, 0)])
def test_only_what_is_rarer_than_one_healthy_pixel_in_a_thousand_belongs_to_a_region(heat, count):
    assert len(regions_of(hot(SLICES, np.s_[1, 4:6, 4:6], heat=heat))) == count


def test_a_region_in_one_slice_has_an_area_and_one_in_several_a_volume():
    flat, deep = regions_of(hot(SLICES, np.s_[0, 20:23, 20:22], np.s_[2:4, 4:6, 4:6]))[::-1]
    assert (flat.area, flat.volume, list(flat.slices)) == (6 * 25, None, [0])
    assert (deep.area, deep.volume, list(deep.slices)) == (None, 8 * 25 * 5, [2, 3])


def test_pixels_that_touch_by_a_corner_are_two_regions():
    assert [one.pixels for one in regions_of(hot(SLICES, np.s_[1, 4, 4], np.s_[1, 5, 5]))] == [1, 1]


def test_uneven_slices_count_for_the_room_between_their_neighbours():
    uneven = request(Shape(slices=4, steps=(4.0, 6.0, 5.0)))
    (region,) = regions_of(hot(uneven, np.s_[1:3, 4:6, 4:6]))
    assert region.volume == pytest.approx(4 * 25 * (6 + 6))  # one step between the two slices of the region, and half of it beyond each


def test_slices_that_are_missing_in_between_part_a_region():
    gap = request(Shape(slices=4, steps=(5.0, 20.0, 5.0)))
    assert [list(one.slices) for one in regions_of(hot(gap, np.s_[:, 4:6, 4:6]))] == [[0, 1], [2, 3]]


def test_slices_at_one_place_are_not_stacked_upon_each_other():
    same = request(Shape(slices=3, steps=(5.0, 0.0)))
    assert [list(one.slices) for one in regions_of(hot(same, np.s_[:, 4:6, 4:6]))] == [[0, 1], [2]]


@pytest.mark.parametrize(("spacing", "count"), [(5.0, 1), (1.0, 0)])
def test_less_than_ten_square_millimetres_is_no_region(spacing, count):
    made = request(Shape(slices=2, grid_spacing=spacing))
    assert len(regions_of(hot(made, np.s_[0, 4:7, 4:7]))) == count


@pytest.mark.parametrize(("known", "pixels", "count"), [(True, 100, 1), (True, 36, 0), (False, 25, 1), (False, 16, 0)])
def test_ultrasound_regions_lie_in_one_frame_and_without_spacing_pixels_count(known, pixels, count):
    made, side = ultrasound((None, 3)), int(np.sqrt(pixels))  # a grid pixel is 0.4 mm square
    if not known:
        frames = tuple(replace(frame, spacing=None) for frame in made.finding.volume.frames)
        made = replace(made, finding=replace(made.finding, volume=replace(made.finding.volume, frames=frames)))
    found = regions_of(hot(made, np.s_[:, 4 : 4 + side, 4 : 4 + side]))
    assert [list(one.slices) for one in found] == [[index] for index in range(4)] * count
    assert all((one.area is not None) == known for one in found)


def test_the_hottest_comes_first_and_no_more_than_can_be_told():
    made = request(Shape(slices=6, grid=64, grid_spacing=4.0))
    heat = np.zeros_like(made.finding.heat)
    heat[::2, ::3, ::3] = np.linspace(3.1, 3.9, heat[::2, ::3, ::3].size).reshape(heat[::2, ::3, ::3].shape)
    assert heat[::2, ::3, ::3].size > MOST_REGIONS
    found = regions_of(replace(made.finding, heat=heat))
    assert len(found) == MOST_REGIONS and [one.number for one in found] == list(range(1, MOST_REGIONS + 1))
    assert found[0].top == pytest.approx(3.9) and all(one.top >= other.top for one, other in pairwise(found))


# --- outlines ----------------------------------------------------------------------------------------------------------


def area_within(points):
    """Return the area of a closed polygon (shoelace)."""
    x, y = points[:, 0], points[:, 1]
    return abs(float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum())) / 2


@pytest.mark.parametrize(
    ("rows", "corners"),
    [
        (("1",), 5),
        (("11", "10"), 7),
        (("111", "101", "111"), 5),  # a hole does not show in the outer border
        (("010", "111", "010"), 13),
        (("110", "011"), 9),
    ],
)
def test_the_border_goes_once_around_a_region(rows, corners):
    mask = np.array([[char == "1" for char in row] for row in rows])
    found = np.array(border(mask))
    assert len(found) == corners and tuple(found[0]) == tuple(found[-1])
    assert (np.abs(np.diff(found, axis=0)).min(axis=1) == 0).all()  # along rows or columns
    filled = mask.sum() + (1 if rows == ("111", "101", "111") else 0)
    assert area_within(found) == filled


def test_an_outline_lies_around_the_pixels_in_source_coordinates():
    made = ultrasound((None,))  # grid pixel (i, j) has its centre at source pixel (10 + 2 i, 30 + 2 j), counted from 0
    finding = hot(made, np.s_[0, 5:15, 6:16])
    (region,) = regions_of(finding)
    ((index, points),) = outlines(finding, region)
    assert index == 0
    assert points.min(axis=0).tolist() == [30 + 2 * 6 - 1 + 0.5, 10 + 2 * 5 - 1 + 0.5]
    assert points.max(axis=0).tolist() == [30 + 2 * 15 + 1 + 0.5, 10 + 2 * 14 + 1 + 0.5]


def test_an_outline_stays_inside_the_image():
    made = request(Shape(slices=1, rows=20, columns=20, grid=32))  # the grid is larger than the slice
    finding = hot(made, np.s_[0, :, :])
    ((_, points),) = outlines(finding, regions_of(finding)[0])
    assert points.min() == 0 and points.max() == 20


def test_the_outline_of_a_slice_in_the_patient_covers_the_area_of_its_region():
    finding = hot(SLICES, np.s_[1, 4:8, 10:13])
    ((_, points),) = outlines(finding, regions_of(finding)[0])
    assert area_within(points) * 2.0 * 2.0 == pytest.approx(12 * 25)
