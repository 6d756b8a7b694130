"""Where slices lie: order, tilt, gaps, repeats."""

import math

import numpy as np
import pytest

from pacs_node.analysis import geometry
from pacs_node.records import Plane
from tests.analysis.conftest import ct_slice

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def plane(z: float, y: float = 0.0, orientation: tuple[float, ...] = AXIAL) -> Plane:
    return Plane((0.0, y, z), orientation, (0.5, 0.7))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("positions", "order", "repeats", "spacing", "gaps", "irregular"),
    [
        ([10, 0, 5], (1, 2, 0), (), 5, 0, False),
        ([0, 5, 10, 25, 30, 35], (0, 1, 2, 3, 4, 5), (), 5, 1, True),
        ([0, 5, 5.001, 10], (0, 1, 3), (2,), 5, 0, False),
        ([0, 1, 2, 3.3, 4], (0, 1, 2, 3, 4), (), 1, 0, True),
        ([0, 1, 5, 6, 10, 11, 15], (0, 1, 2, 3, 4, 5, 6), (), 2.5, 0, True),
        ([7], (0,), (), None, 0, False),
    ],
)
def test_slices_are_put_in_order(
    positions: list[float], order: tuple[int, ...], repeats: tuple[int, ...], spacing: float | None, gaps: int, irregular: bool
) -> None:
    stack = geometry.stack([plane(z) for z in positions])
    assert (stack.order, stack.repeats, stack.gaps, stack.irregular) == (order, repeats, gaps, irregular)
    assert stack.spacing == (None if spacing is None else pytest.approx(spacing))


def test_gantry_tilt_is_the_angle_between_normal_and_table() -> None:
    tilt = math.radians(18)
    tilted = (1.0, 0.0, 0.0, 0.0, math.cos(tilt), -math.sin(tilt))
    stack = geometry.stack([plane(z, orientation=tilted) for z in (0, 5, 10)])
    assert stack.tilt == pytest.approx(18)
    assert stack.spacing == pytest.approx(5 * math.cos(tilt))
    assert "tilted by 18.0 degrees" in stack.remarks()[-1]


def test_a_stack_that_runs_along_its_normal_has_no_tilt_whatever_its_orientation() -> None:
    sagittal = (0.0, 1.0, 0.0, 0.0, 0.0, -1.0)
    stack = geometry.stack([Plane((x, 0.0, 0.0), sagittal, (1.0, 1.0)) for x in (0.0, 3.0, 6.0)])  # type: ignore[arg-type]
    assert stack.tilt == pytest.approx(0)
    assert stack.order == (2, 1, 0)  # its normal points to the right


@pytest.mark.parametrize(
    ("positions", "word"), [([0, 5, 5, 10], "1 images show a position"), ([0, 5, 10, 15, 30], "1 gap wider"), ([0, 4, 9, 16], "irregular"), ([0, 5, 10], "")]
)
def test_what_is_unusual_is_said(positions: list[float], word: str) -> None:
    remarks = geometry.stack([plane(z) for z in positions]).remarks()
    assert (word in remarks[0]) if word else not remarks


def test_a_pixel_is_placed_by_row_and_column_spacing() -> None:
    assert geometry.place(plane(9.0), row=10, column=20) == pytest.approx((14.0, 5.0, 9.0))
    moved = geometry.regrid(plane(9.0), 10, 20, 2.0)
    assert moved.position == pytest.approx((14.0, 5.0, 9.0))
    assert moved.spacing == (2.0, 2.0)
    assert moved.orientation == AXIAL


@pytest.mark.parametrize(
    "changes",
    [
        {"ImagePositionPatient": None},
        {"ImageOrientationPatient": [1, 0, 0, 0, 1]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"PixelSpacing": [0, 0]},
        {"PixelSpacing": None},
    ],
)
def test_missing_or_impossible_geometry_gives_no_plane(changes: dict[str, object]) -> None:
    assert geometry.plane_of(ct_slice(0, **changes)) is None


def test_the_plane_of_an_image_is_read_from_its_header() -> None:
    found = geometry.plane_of(ct_slice(2))
    assert found == Plane((-96.0, -96.0, 10.0), AXIAL, (2.0, 2.0), 5.0)
    assert np.allclose(geometry.axes(found)[2], [0, 0, 1])
