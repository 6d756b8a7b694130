"""From a scanner's pixels to the network's: every slice resampled in its own plane.

Two small matrices do it, ``rows @ slice @ columns``: linear interpolation averaged over each new pixel, so that nothing is aliased.
A slice is never mixed with its neighbours, so a tilted or irregular stack stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from pacs_node.analysis import geometry
from pacs_node.autoencoder import threads
from pacs_node.records import Frame, Place, Plane, Volume

_COARSE = 4  # every n-th pixel is looked at to find the body
_NOTHING = 1e-9  # weights below this are rounding errors
_ENOUGH = 0.5  # share of a new pixel that must have come from real pixels
_SMALL = 0.1  # parts of the body smaller than this share of the largest are table, tubes and noise


@dataclass(frozen=True, slots=True)
class Grid:
    """The network's grid: ``pixels`` an edge, ``spacing_mm`` apart, centred on the body; ``body_above`` tells body from air (unit of the volume)."""

    pixels: int
    spacing_mm: float
    body_above: float


@dataclass(frozen=True, slots=True)
class Resampled:
    """A series on the grid: ``view`` (slices, pixels, pixels) float32, NaN where the source has no pixels; one plane and one place a slice."""

    view: NDArray[np.float32]
    planes: tuple[Plane | None, ...]
    places: tuple[Place, ...] = ()


@lru_cache(maxsize=64)  # thousands of pictures of one size are sampled alike
def weights(size: int, first: float, step: float, count: int) -> sparse.csr_array:
    """Return the sparse (``count``, ``size``) matrix that samples ``size`` pixels at ``first + k·step`` (in pixels of the source, first centre 0).

    Each row averages the linear interpolation of the source over one new pixel (a box of width ``step``), so that linear gradients come
    out exactly and nothing is aliased. Rows are not normalised at the border: a row's sum says how much of the new pixel was inside.
    """
    centres = first + step * np.arange(count, dtype=np.float64)
    distance: NDArray[np.float64] = centres[:, None] - np.arange(size, dtype=np.float64)[None, :]
    matrix = (_hat_integral(distance, step / 2) - _hat_integral(distance, -step / 2)) / step
    return sparse.csr_array(np.where(matrix > _NOTHING, matrix, 0).astype(np.float32))


def _hat_integral(x: NDArray[np.float64], shift: float) -> NDArray[np.float64]:
    """Integral from -1 to ``x + shift`` of the hat function max(0, 1 - |x|) of linear interpolation."""
    inside = np.clip(x + shift, -1, 1)
    return np.where(inside < 0, (inside + 1) ** 2 / 2, 1 - (1 - inside) ** 2 / 2)


def sample(image: NDArray[np.float32], rows: sparse.csr_array, columns: sparse.csr_array) -> NDArray[np.float32]:
    """Resample one slice; NaN takes no part, and what comes mostly from NaN or from outside is NaN."""
    known = np.isfinite(image)
    if known.all():
        share: NDArray[np.float32] = np.outer(rows.sum(axis=1), columns.sum(axis=1))
    else:
        share = _both(known.astype(np.float32), rows, columns)
        image = np.where(known, image, np.float32(0))
    total = _both(image, rows, columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: NDArray[np.float32] = np.where(share >= _ENOUGH, total / share, np.nan).astype(np.float32)
    return result


def _both(image: NDArray[np.float32], rows: sparse.csr_array, columns: sparse.csr_array) -> NDArray[np.float32]:
    """Return ``rows @ image @ columns.T``; the matrices are nearly all zeros, and so no threads of a matrix library get in the way."""
    result: NDArray[np.float32] = (columns @ np.ascontiguousarray((rows @ image).T)).T
    return result


def body_box(volume: Volume, body_above: float) -> tuple[float, float, float, float] | None:
    """Return (centre row, centre column, height, width) of the body in pixels, None where nothing is above ``body_above``.

    Per slice the largest connected part counts; the centre is the median over the slices, so that a table or a bent neck moves it
    little; height and width are the 90th percentile, which a shoulder on a few slices does not decide.
    """
    found = threads.in_pieces(lambda some: [_box(image, body_above) for image in volume.pixels[some, ::_COARSE, ::_COARSE]], len(volume.pixels))
    boxes = [box for box in found if box is not None]
    if not boxes:
        return None
    table = np.asarray(boxes, dtype=np.float64)
    table = table[table[:, 4] >= 0.25 * table[:, 4].max()]
    centre_row, centre_column = (np.median((table[:, k] + table[:, k + 1]) / 2) for k in (0, 2))
    height, width = (np.percentile(table[:, k + 1] - table[:, k] + 1, 90) for k in (0, 2))
    return float(centre_row * _COARSE), float(centre_column * _COARSE), float(height * _COARSE), float(width * _COARSE)


def _box(coarse: NDArray[np.float32], body_above: float) -> tuple[int, int, int, int, int] | None:
    """First and last row and column of the largest connected part of a slice, and its size."""
    part = largest_part(coarse > body_above)
    if part is None:
        return None
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1]), int(part.sum())


def largest_part(mask: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """Return the largest connected part of a 2-D mask, None where it is empty."""
    labels, count = ndimage.label(mask)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == int(sizes.argmax()) + 1)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where a grid lies on a series: for every pixel spacing its place on the source and its two matrices."""

    place: Place
    rows: sparse.csr_array
    columns: sparse.csr_array


def _layouts(volume: Volume, grid: Grid) -> list[_Layout]:
    """Return the layout of each slice, centred on the body (on the image where there is none)."""
    _, height, width = volume.pixels.shape
    box = body_box(volume, grid.body_above) if all(_known_spacing(frame) for frame in volume.frames) else None
    centre = box[:2] if box else ((height - 1) / 2, (width - 1) / 2)
    made: dict[tuple[float, float], _Layout] = {}
    for frame in volume.frames:
        spacing = _spacing(frame, grid, max(height, width))
        if spacing not in made:
            step = (grid.spacing_mm / spacing[0], grid.spacing_mm / spacing[1])
            first = (centre[0] - step[0] * (grid.pixels - 1) / 2, centre[1] - step[1] * (grid.pixels - 1) / 2)
            made[spacing] = _Layout(Place(*first, *step), weights(height, first[0], step[0], grid.pixels), weights(width, first[1], step[1], grid.pixels))
    return [made[_spacing(frame, grid, max(height, width))] for frame in volume.frames]


def _known_spacing(frame: Frame) -> tuple[float, float] | None:
    return frame.plane.spacing if frame.plane else frame.spacing


def _spacing(frame: Frame, grid: Grid, edge: int) -> tuple[float, float]:
    """Millimetres between pixels; of an image without any scale such that the longer of its edges (``edge`` pixels) fills the grid."""
    unscaled = grid.pixels * grid.spacing_mm / edge
    return _known_spacing(frame) or (unscaled, unscaled)


def resample(volume: Volume, grid: Grid) -> Resampled:
    """Bring every slice of ``volume`` onto ``grid``.

    The plane of each new slice is exact: its first pixel's centre is where the sampling put it. Slices without a place in the patient get
    no plane; those without even a pixel spacing are fitted into the grid as a whole, centred on the image.
    """
    layouts = _layouts(volume, grid)
    view = np.stack(list(threads.in_order(lambda index: sample(volume.pixels[index], layouts[index].rows, layouts[index].columns), range(len(layouts)))))
    planes = tuple(
        geometry.regrid(frame.plane, layout.place.row, layout.place.column, grid.spacing_mm) if frame.plane else None
        for frame, layout in zip(volume.frames, layouts, strict=True)
    )
    return Resampled(view, planes, tuple(layout.place for layout in layouts))


def resample_mask(mask: NDArray[np.bool_], volume: Volume, grid: Grid) -> NDArray[np.bool_]:
    """Bring a mask on the pixels of ``volume`` onto its grid: true where at least half of a new pixel is inside."""
    pairs = zip(mask, _layouts(volume, grid), strict=True)
    return np.stack([np.nan_to_num(sample(image.astype(np.float32), layout.rows, layout.columns)) >= _ENOUGH for image, layout in pairs])


def foreground_of(view: NDArray[np.float32], body_above: float) -> NDArray[np.bool_]:
    """Return the body on the grid, (slices, pixels, pixels): filled (lungs and sinuses belong to it), without table, tubes and noise."""
    return np.stack(threads.in_pieces(lambda some: list(_body(view[some], body_above)), len(view)))


def _body(view: NDArray[np.float32], body_above: float) -> NDArray[np.bool_]:
    opened = _dilated(_dilated(_eroded(_eroded(view > body_above))))
    kept = np.stack([_large_parts(mask) for mask in opened])
    filled = np.stack([_filled(mask) for mask in _dilated(kept)])
    return np.asarray(filled & np.isfinite(view))


def _large_parts(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Keep the connected parts of a slice that are not much smaller than the largest."""
    labels, count = ndimage.label(mask)
    if not count:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= _SMALL * sizes.max())[labels])


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill what is surrounded: all but the parts of the outside that reach the border. As `ndimage.binary_fill_holes`, in a tenth of its time."""
    labels, count = ndimage.label(~mask)
    outside = np.zeros(count + 1, dtype=np.bool_)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outside[edge] = True
    outside[0] = False
    return np.asarray(~outside[labels])


def _eroded(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Take off each pixel of (slices, rows, columns) that has an unset neighbour above, below, left or right; outside the image all are unset."""
    return ~_dilated(~masks, outside=True)


def _dilated(masks: NDArray[np.bool_], *, outside: bool = False) -> NDArray[np.bool_]:
    """Set each pixel of (slices, rows, columns) that has a set neighbour above, below, left or right; many slices at once, unlike `ndimage`."""
    result = masks.copy()
    result[:, 1:] |= masks[:, :-1]
    result[:, :-1] |= masks[:, 1:]
    result[:, :, 1:] |= masks[:, :, :-1]
    result[:, :, :-1] |= masks[:, :, 1:]
    if outside:
        for edge in (result[:, 0], result[:, -1], result[:, :, 0], result[:, :, -1]):
            edge[...] = True
    return result
