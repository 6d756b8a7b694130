"""Where slices lie: order, spacing, tilt, gaps, repeats. Pure functions of `records.Plane` (PS3.3 C.7.6.2.1.1; LPS, millimetres)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.records import Plane

SAME_POSITION = 0.01  # mm along the normal: closer slices show the same place
SAME_DIRECTION = 0.002  # direction cosines that differ less are one orientation (0.1 degree)
GAP = 1.5  # times the usual spacing
MANY_GAPS = 0.2  # share of the steps: more of them make an irregular stack, not one with holes
IRREGULAR = 0.05  # share of the usual spacing by which steps may differ


def plane_of(dataset: Dataset) -> Plane | None:
    """Return the plane of a single-frame object, None where its geometry is missing or impossible."""
    position, orientation, spacing = (_numbers(dataset, keyword) for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    if len(position) != 3 or len(orientation) != 6 or len(spacing) != 2 or min(spacing) <= 0:
        return None
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    if abs(np.linalg.norm(row) - 1) > 0.01 or abs(np.linalg.norm(column) - 1) > 0.01 or abs(row @ column) > 0.01:
        return None
    thickness = _numbers(dataset, "SliceThickness")
    return Plane(
        (position[0], position[1], position[2]),
        (orientation[0], orientation[1], orientation[2], orientation[3], orientation[4], orientation[5]),
        (spacing[0], spacing[1]),
        thickness[0] if thickness and thickness[0] > 0 else None,
    )


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Finite numbers of an attribute, empty where it is absent or holds anything else."""
    try:
        value = dataset.get(keyword)
        values = [] if value is None else [value] if isinstance(value, int | float | str) else list(value)
        numbers = tuple(float(part) for part in values)
    except (ValueError, TypeError):
        return ()
    return numbers if all(math.isfinite(number) for number in numbers) else ()


def axes(plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the unit vectors along a row, along a column and normal to both (right-handed)."""
    row = np.asarray(plane.orientation[:3]) / np.linalg.norm(plane.orientation[:3])
    column = np.asarray(plane.orientation[3:]) / np.linalg.norm(plane.orientation[3:])
    return row, column, np.cross(row, column)


def along_normal(plane: Plane, normal: NDArray[np.float64]) -> float:
    """Return the position along ``normal``, mm."""
    return float(np.asarray(plane.position) @ normal)


def parallel(one: Plane, other: Plane) -> bool:
    """Tell whether two planes have the same row and column directions."""
    return bool(np.max(np.abs(np.subtract(one.orientation, other.orientation))) < SAME_DIRECTION)


def place(plane: Plane, row: float, column: float) -> tuple[float, float, float]:
    """Return the patient coordinates of the centre of pixel (``row``, ``column``), counted from 0 (PS3.3 equation C.7.6.2.1-1)."""
    along_row, along_column, _ = axes(plane)
    point = np.asarray(plane.position) + row * plane.spacing[0] * along_column + column * plane.spacing[1] * along_row
    return (float(point[0]), float(point[1]), float(point[2]))


def regrid(plane: Plane, first_row: float, first_column: float, spacing_mm: float) -> Plane:
    """Return the plane of a grid of square pixels whose first pixel's centre lies at (``first_row``, ``first_column``) of ``plane``."""
    return replace(plane, position=place(plane, first_row, first_column), spacing=(spacing_mm, spacing_mm))


@dataclass(frozen=True, slots=True)
class Stack:
    """How parallel slices lie.

    ``order``: indices from the lowest to the highest position along the normal, each place once; ``repeats``: indices that show a
    place which another slice shows already; ``spacing``: median distance of neighbours along the normal, mm (None for one slice);
    ``gaps``: number of places where a slice seems to be missing (0 where steps vary so much that none can be told);
    ``irregular``: steps differ by more than 5 %;
    ``tilt``: degrees between the normal and the line on which the slices' first pixels lie (gantry tilt, or a sheared stack).
    """

    order: tuple[int, ...]
    repeats: tuple[int, ...]
    spacing: float | None
    gaps: int
    irregular: bool
    tilt: float

    def remarks(self) -> tuple[str, ...]:
        """Return what people should know, one sentence each."""
        said = []
        if self.repeats:
            said.append(f"{len(self.repeats)} images show a position that another image shows already; the first of each was used")
        if self.gaps:
            said.append(f"the slices have {self.gaps} gap{'s' if self.gaps > 1 else ''} wider than {GAP:g} times the usual spacing of {self.spacing:.2f} mm")
        elif self.irregular:
            said.append(f"the slice spacing is irregular (median {self.spacing:.2f} mm)")
        if self.tilt > 1:
            said.append(f"the stack is tilted by {self.tilt:.1f} degrees; every slice was analysed in its own plane")
        return tuple(said)


def stack(planes: Sequence[Plane]) -> Stack:
    """Describe parallel ``planes``; of slices at the same place the first given is kept. Raises `ValueError` without any."""
    if not planes:
        raise ValueError("a stack needs at least one plane")
    normal = axes(planes[0])[2]
    positions = [along_normal(plane, normal) for plane in planes]
    order: list[int] = []
    repeats: list[int] = []
    for index in sorted(range(len(planes)), key=lambda i: (round(positions[i], 3), i)):
        if order and positions[index] - positions[order[-1]] < SAME_POSITION:
            repeats.append(index)
        else:
            order.append(index)
    steps = np.diff([positions[index] for index in order])
    if not len(steps):
        return Stack(tuple(order), tuple(sorted(repeats)), None, 0, False, 0.0)
    usual = float(np.median(steps))
    irregular = bool(np.max(np.abs(steps - usual)) > IRREGULAR * usual)
    gaps = int(np.sum(steps > GAP * usual))
    gaps = gaps if gaps <= max(1, MANY_GAPS * len(steps)) else 0
    return Stack(tuple(order), tuple(sorted(repeats)), usual, gaps, irregular, _tilt([planes[index] for index in order], normal))


def _tilt(planes: Sequence[Plane], normal: NDArray[np.float64]) -> float:
    line = np.subtract(planes[-1].position, planes[0].position)
    length = float(np.linalg.norm(line))
    return math.degrees(math.acos(min(1.0, abs(float(line @ normal)) / length))) if length else 0.0
