"""What of an ultrasound picture shows tissue: its region by the header, its grey by colour, its fan by content (PS3.3 C.8.5.5)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from scipy import ndimage
from scipy.spatial import ConvexHull

from pacs_node.analysis.stack import integer, number, numbers

_TWO_DIMENSIONAL = 1  # Region Spatial Format (0018,6012)
_TISSUE, _COLOUR_FLOW = 1, 2  # Region Data Type (0018,6014)
_CENTIMETRE = 3  # Physical Units X and Y Direction (0018,6024), (0018,6026)
COLOURED = 40.0  # difference of the strongest and weakest of red, green and blue from which a pixel is coloured; compression makes less
TINTED = 0.5  # share of the bright pixels: more colour than this is the tint of a grey scale, not Doppler
BRIGHT = 10.0  # of 255; darker pixels are background, whatever compression made of it
_NEARLY_AS_LARGE = 0.3  # share of the largest part
_ON_THE_EDGE = 1e-6  # pixels
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Region:
    """The part of the picture that shows tissue: rows and columns (end exclusive), and the pixel spacing in mm where it is known."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    spacing: tuple[float, float] | None

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.rows[1] - self.rows[0]) * (self.columns[1] - self.columns[0])


def region_of(header: Dataset) -> Region | None:
    """Return the largest region with tissue; the whole image where no regions are given, None where those given show something else."""
    rows, columns = int(header.Rows), int(header.Columns)
    items = header.get("SequenceOfUltrasoundRegions") or ()
    if not items:
        spacing = numbers(header, "PixelSpacing")
        return Region((0, rows), (0, columns), (spacing[0], spacing[1]) if len(spacing) == 2 and min(spacing) > 0 else None)
    found = [region for item in items if (region := _region(item, rows, columns)) is not None]
    return max(found, key=lambda region: region.area, default=None)


def _region(item: Dataset, rows: int, columns: int) -> Region | None:
    kind = integer(item, "RegionDataType")
    if integer(item, "RegionSpatialFormat") != _TWO_DIMENSIONAL or kind not in (0, _TISSUE, _COLOUR_FLOW):
        return None
    top, left = integer(item, "RegionLocationMinY0"), integer(item, "RegionLocationMinX0")
    bottom, right = integer(item, "RegionLocationMaxY1") + 1, integer(item, "RegionLocationMaxX1") + 1
    bottom, right = min(bottom, rows), min(right, columns)
    if not (0 <= top < bottom and 0 <= left < right):
        return None
    return Region((top, bottom), (left, right), _spacing(item))


def _spacing(item: Dataset) -> tuple[float, float] | None:
    if any(integer(item, f"PhysicalUnits{axis}Direction") != _CENTIMETRE for axis in "XY"):
        return None
    row, column = (abs(number(item, f"PhysicalDelta{axis}") or 0) * 10 for axis in "YX")
    return (row, column) if row > 0 and column > 0 else None


# --- pixels ---------------------------------------------------------------------------------------------------------------


def to_grey(colours: NDArray[np.float32], region: Region) -> tuple[NDArray[np.float32], bool]:
    """Return the luma of (rows, columns, 3) with coloured pixels as NaN, and whether the picture as a whole is tinted (then none is NaN)."""
    grey: NDArray[np.float32] = colours @ _LUMA
    coloured = colours.max(axis=-1) - colours.min(axis=-1) > COLOURED
    inside = (slice(*region.rows), slice(*region.columns))
    bright = grey[inside] > BRIGHT
    if bright.any() and coloured[inside][bright].mean() > TINTED:
        return grey, True
    return np.where(coloured, np.float32(np.nan), grey), False


def fan(brightest: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return what the transducer sees in a picture (of a loop: the brightest value of each pixel).

    The largest connected bright part, without thin strokes of text and scales, and any that is nearly as large (two pictures side by
    side), each with its convex hull: fluid and shadow are black too. Everything where nothing is bright.
    """
    bright = ndimage.binary_opening(ndimage.binary_closing(brightest > BRIGHT, iterations=2), iterations=3)
    labels, count = ndimage.label(bright)
    if not count:
        return np.ones(brightest.shape, dtype=np.bool_)
    sizes = np.bincount(labels.ravel())[1:]
    hulls = [convex_hull(labels == label) for label in np.flatnonzero(sizes >= _NEARLY_AS_LARGE * sizes.max()) + 1]
    return np.asarray(np.logical_or.reduce(hulls))


def convex_hull(part: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels inside the convex hull of a part at least two pixels high and wide."""
    rows = np.flatnonzero(part.any(axis=1))
    first, last = part[rows].argmax(axis=1), part.shape[1] - 1 - part[rows, ::-1].argmax(axis=1)
    corners = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])
    edges = ConvexHull(corners).equations  # normal and offset of each edge, ≤ 0 inside
    row, column = np.arange(part.shape[0])[:, None], np.arange(part.shape[1])[None, :]
    inside = np.ones(part.shape, dtype=np.bool_)
    for across, along, offset in edges:
        inside &= across * row + along * column + offset <= _ON_THE_EDGE
    return inside
