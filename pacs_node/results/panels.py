"""One slice as pictures: grey anatomy in its window, and heat exactly where it lies in the patient.

::

    panel pixel ─► source pixel (row, column) ─► point in the patient ─► analysis grid (row, column)
                   scaled to fit                  plane of the slice      plane of the heat

All steps are affine, so each picture is one resampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform, gaussian_filter

from pacs_node.records import Finding, Frame, Place, Plane
from pacs_node.results.colours import colour
from pacs_node.results.modalities import manner_of
from pacs_node.results.windows import Window, window_of

SIZE = 512  # pixels of a square panel
_OPACITY = 0.6
_OBLIQUE = 0.3  # a direction whose cosine is at least this large gets its letter
_FINE = 1.1  # a panel pixel that covers more source pixels than this shows their mean

Image = NDArray[np.uint8]
Grid = NDArray[np.float32]
Affine = tuple[NDArray[np.float64], NDArray[np.float64]]  # 2×2 matrix and offset: (row, column) to (row, column)


@dataclass(frozen=True, slots=True)
class Scale:
    """How heat becomes colour."""

    shown_from: float  # heat of the first colour; smaller heat is not drawn
    top: float  # heat of the last colour
    ticks: tuple[tuple[float, str], ...]
    caption: str

    def share(self, values: Grid) -> Grid:
        """Return where heat lies on the colour table, 0…1."""
        return (values - np.float32(self.shown_from)) / np.float32(self.top - self.shown_from)


# By Finding.heat_calibrated. 1.301 = −log10 0.05: nothing above a calibrated tail of 5 % is drawn.
SCALES = {
    True: Scale(1.301, 4.0, ((1.301, "p 0.05"), (2.0, "0.01"), (3.0, "0.001"), (4.0, "0.0001")), "Heat: calibrated pixel tail, drawn where p<0.05."),
    False: Scale(0.5, 1.0, ((0.5, "0.5"), (0.75, "0.75"), (1.0, "1 (relative)")), "Heat: uncalibrated, relative to this study only."),
}


def plane_to_plane(source: Plane, target: Plane) -> Affine:
    """Return the map from (row, column) in ``source`` to (row, column) in ``target``, which lies in the same plane of the patient."""
    right, down = np.array(source.orientation[:3]), np.array(source.orientation[3:])
    steps = np.stack([down * source.spacing[0], right * source.spacing[1]], axis=1)  # mm to a row, to a column
    axes = np.stack([np.array(target.orientation[3:]) / target.spacing[0], np.array(target.orientation[:3]) / target.spacing[1]])
    return axes @ steps, axes @ (np.array(source.position) - np.array(target.position))


def place_to_grid(place: Place) -> Affine:
    """Return the map from (row, column) of a source slice to (row, column) of the analysis grid that lies on it."""
    steps = np.array([place.row_step, place.column_step])
    return np.diag(1 / steps), -np.array([place.row, place.column]) / steps


def panel_to_source(shape: tuple[int, int], spacing: tuple[float, float]) -> Affine:
    """Return the map from panel pixels to source pixels: a slice of ``shape``, in its true proportions, centred."""
    millimetres = max(shape[0] * spacing[0], shape[1] * spacing[1]) / SIZE  # to a panel pixel
    scale = millimetres / np.array(spacing)
    return np.diag(scale), (np.array(shape) - 1) / 2 - scale * (SIZE - 1) / 2


def chain(first: Affine, second: Affine) -> Affine:
    """Return the map that does ``first``, then ``second``."""
    return second[0] @ first[0], second[0] @ first[1] + second[1]


def resample(pixels: Grid, mapping: Affine, outside: float) -> Grid:
    """Return ``pixels`` as a panel, linearly interpolated; ``outside`` where there are none. Takes no NaN.

    Where a panel pixel covers several of them, they are smoothed first: sampled as they are, fine patterns turn into coarse ones that are not there.
    """
    cover = np.linalg.norm(mapping[0], axis=1)  # pixels to a panel pixel, along rows and columns
    if cover.max() > _FINE:
        pixels = gaussian_filter(pixels, np.maximum(cover - 1, 0) / 2, mode="nearest")
    panel: Grid = affine_transform(pixels, mapping[0], mapping[1], output_shape=(SIZE, SIZE), order=1, mode="constant", cval=outside, output=np.float32)
    return panel


@dataclass(frozen=True, slots=True)
class SliceView:
    """Where one slice, its heat and its reconstruction lie on a panel."""

    source: Affine
    grid: Affine


def slice_view(finding: Finding, index: int) -> SliceView:
    """Return the maps of a slice; see `source_to_grid`."""
    frame = finding.volume.frames[index]
    top, left, bottom, right = _box(finding, index)
    matrix, offset = panel_to_source((bottom - top, right - left), _spacing(frame))
    source = matrix, offset + np.array([top, left])
    return SliceView(source, chain(source, source_to_grid(finding, index)))


def _box(finding: Finding, index: int) -> tuple[int, int, int, int]:
    """Return first row and column and, exclusive, last row and column of what is shown of a slice."""
    known = np.isfinite(finding.volume.pixels[index])
    if not manner_of(finding.volume).cropped or not known.any():
        return 0, 0, *known.shape
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def _spacing(frame: Frame) -> tuple[float, float]:
    """Return the pixel spacing that gives a slice its true proportions: square pixels where none is known."""
    return (frame.plane.spacing if frame.plane is not None else frame.spacing) or (1.0, 1.0)


def source_to_grid(finding: Finding, index: int) -> Affine:
    """Return the map from a slice to its analysis grid: by their planes, else by the grid's place on it, else the two cover the same extent."""
    frame, grid = finding.volume.frames[index].plane, finding.planes[index]
    if frame is not None and grid is not None:
        return plane_to_plane(frame, grid)
    if finding.places:
        return place_to_grid(finding.places[index])
    ratio = np.array(finding.heat.shape[1:]) / np.array(finding.volume.pixels.shape[1:])
    return np.diag(ratio), (ratio - 1) / 2


def anatomy(finding: Finding, index: int) -> Image:
    """Return the slice at the source's resolution in its window, (SIZE, SIZE) grey."""
    return _shown(finding, _grey(finding.volume.pixels[index], slice_view(finding, index).source, slice_window(finding, index).edges))


def reconstruction(finding: Finding, index: int) -> Image:
    """Return the model's reconstruction of the slice in the same window and place, (SIZE, SIZE) grey."""
    return _shown(finding, _grey(finding.reconstruction[index], slice_view(finding, index).grid, slice_window(finding, index).edges))


def _shown(finding: Finding, grey: Image) -> Image:
    """Invert what is usually read dark on light."""
    return 255 - grey if manner_of(finding.volume).dark_is_high else grey


def slice_window(finding: Finding, index: int) -> Window:
    """Return the window of a slice: of its original and of its reconstruction."""
    return window_of(finding, index, SCALES[finding.heat_calibrated].shown_from)


def _grey(pixels: Grid, mapping: Affine, edges: tuple[float, float]) -> Image:
    low, high = edges
    known = np.nan_to_num(np.clip(pixels, low, high), nan=low)
    panel = resample(known, mapping, low)
    return np.round((panel - low) / (high - low) * 255).clip(0, 255).astype(np.uint8)


def heat(finding: Finding, index: int) -> Grid:
    """Return the heat of a slice on the panel; 0 where nothing was judged."""
    top = SCALES[finding.heat_calibrated].top
    known = np.clip(np.nan_to_num(finding.heat[index], nan=0.0, posinf=top, neginf=0.0), 0.0, top)
    view = slice_view(finding, index)
    return np.where(_inside(finding.volume.pixels.shape[1:], view.source), resample(known, view.grid, 0.0), np.float32(0.0))


def _inside(shape: tuple[int, ...], source: Affine) -> NDArray[np.bool_]:
    """Say which panel pixels lie on the slice: the analysis grid may reach beyond it."""
    rows, columns = (source[0][axis, axis] * np.arange(SIZE) + source[1][axis] for axis in (0, 1))
    inside: NDArray[np.bool_] = np.outer((rows > -0.5) & (rows < shape[0] - 0.5), (columns > -0.5) & (columns < shape[1] - 0.5))
    return inside


def overlay(grey: Image, heat_panel: Grid, scale: Scale) -> Image:
    """Lay heat over anatomy where the scale shows it: (SIZE, SIZE, 3)."""
    picture = np.repeat(grey[..., None], 3, axis=-1)
    shown = heat_panel >= scale.shown_from
    colours = colour(scale.share(heat_panel[shown])).astype(np.float32)
    picture[shown] = np.round(_OPACITY * colours + (1 - _OPACITY) * picture[shown]).astype(np.uint8)
    return picture


def colour_bar(scale: Scale, width: int, height: int) -> Image:
    """Return the colours from the smallest drawn heat to the top, left to right: (height, width, 3)."""
    return np.repeat(colour(scale.share(np.linspace(scale.shown_from, scale.top, width, dtype=np.float32)))[None], height, axis=0)


# --- orientation -------------------------------------------------------------------------------------------------------


def direction_letters(direction: tuple[float, float, float]) -> str:
    """Name the anatomical direction of a vector (LPS): the leading letter, more where the vector is oblique (PS3.3 C.7.6.1.1.1)."""
    pairs = (("L", "R"), ("P", "A"), ("H", "F"))
    parts = sorted(zip(direction, pairs, strict=True), key=lambda part: -abs(part[0]))
    letters = [pair[0] if value > 0 else pair[1] for value, pair in parts if abs(value) >= _OBLIQUE]
    return "".join(letters)


def edge_letters(plane: Plane) -> dict[str, str]:
    """Return the letters at the left, right, top and bottom edge of a slice."""
    rx, ry, rz, cx, cy, cz = plane.orientation
    return {
        "left": direction_letters((-rx, -ry, -rz)),
        "right": direction_letters((rx, ry, rz)),
        "top": direction_letters((-cx, -cy, -cz)),
        "bottom": direction_letters((cx, cy, cz)),
    }


def letters_of(finding: Finding, index: int) -> dict[str, str]:
    """Return the letters at the edges of a slice; none where it has no place in the patient."""
    plane = finding.volume.frames[index].plane
    return edge_letters(plane) if plane is not None and manner_of(finding.volume).in_patient else {}
