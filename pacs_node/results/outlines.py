"""Outlines of regions as DICOM draws them: closed polylines in the pixel space of a source image (PS3.3 C.18.6).

::

    mask of the analysis grid ─► its outer border, along pixel edges ─► (column, row) of the source, 0.5 0.5 being the centre of the first pixel
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.records import Finding
from pacs_node.results.panels import source_to_grid
from pacs_node.results.regions import Mask, Region

Corner = tuple[int, int]  # of pixels: (row, column) of the pixel of which it is the upper left one
_TURNS = {(0, 1): (1, 0), (1, 0): (0, -1), (0, -1): (-1, 0), (-1, 0): (0, 1)}  # clockwise, with rows counted downwards


def border(mask: Mask) -> list[Corner]:
    """Return the corners of the outer border of a joined mask, clockwise from its first pixel; the last is the first again."""
    padded = np.pad(mask, 1)
    first = np.argwhere(padded)[0]
    start = corner = (int(first[0]), int(first[1]))
    heading, corners = (0, 1), [start]
    while True:
        corner = (corner[0] + heading[0], corner[1] + heading[1])
        turned = _turn(padded, corner, heading)
        if turned != heading or corner == start:
            corners.append(corner)
        if corner == start:
            return [(row - 1, column - 1) for row, column in corners]
        heading = turned


def _turn(mask: Mask, corner: Corner, heading: Corner) -> Corner:
    """Return the way on from a corner: the region stays to the right, pixels that touch by a corner only are not joined."""
    right = _TURNS[heading]
    if not _ahead(mask, corner, heading, right):
        return right
    left = (-right[0], -right[1])
    return left if _ahead(mask, corner, heading, left) else heading


def _ahead(mask: Mask, corner: Corner, heading: Corner, side: Corner) -> bool:
    """Tell whether the pixel ahead of a corner, to one side of the way, belongs to the mask."""
    row = corner[0] + (min(heading[0] + side[0], 0))
    column = corner[1] + (min(heading[1] + side[1], 0))
    return bool(mask[row, column])


def outlines(finding: Finding, region: Region) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Yield, slice by slice, (index of the slice, closed polyline (n, 2) of column and row in pixels of its source image)."""
    for index in region.slices:
        for points in outlines_on(finding, region, index):
            yield index, points


def outlines_on(finding: Finding, region: Region, index: int) -> Iterator[NDArray[np.float64]]:
    """Yield the closed polylines of a region on one of its slices; see `outlines`."""
    first = np.array([region.box[1].start, region.box[2].start])
    labels, count = ndimage.label(region.mask[index - region.box[0].start])
    for label in range(1, count + 1):
        corners = np.array(border(labels == label), dtype=np.float64)
        yield on_source(finding, index, corners + first)


def on_source(finding: Finding, index: int, corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring corners of grid pixels (row, column) to a source image: (column, row), kept inside it."""
    matrix, offset = source_to_grid(finding, index)
    rows, columns = finding.volume.pixels.shape[1:]
    centres = (corners - 0.5 - offset) @ np.linalg.inv(matrix).T  # 0 at the centre of the first pixel
    inside = np.clip(centres + 0.5, 0.0, (rows, columns))
    return np.ascontiguousarray(np.round(inside[:, ::-1], 3))
