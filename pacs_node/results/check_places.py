"""The gate for places: every frame of ours lies on the slice that it was made from, to a hundredth of a millimetre.

::

    source slice (header) ─┬─► same plane, same directions
    place of the grid ─────┼─► first and last pixel where the grid has them; without a known place where the other frames have them
    pixels of the frame ───┴─► what is marked, or hot, lies within the slice (the grid itself is centred on the body and may reach beyond)

The place of the grid is told in pixels of the source (`records.Place`), the frame in millimetres of the patient: two ways to the same corner.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import number_of, text_of
from pacs_node.records import Place
from pacs_node.results.case import Case, children
from pacs_node.results.naming import frames_of

TOLERANCE = 0.01  # mm
_ANGLE_TOLERANCE = 1e-3  # of the cosines: a quarter of a millimetre at the edge of a slice of 500 mm

_IN_PLANE = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)

Vector = NDArray[np.float64]
_Vectors = list[Vector]  # one for the object, or one for each of its frames
_POSITION, _ORIENTATION, _SPACING = ((looking_up.parse_key(f"{group}.{keyword}"), looking_up.parse_key(keyword)) for group, keyword in _IN_PLANE)
"""Where each stands in an enhanced object, which counts first as it does in the analysis, and in any other."""


@dataclass(frozen=True, slots=True)
class _Lying:
    """A grid of pixels in the patient."""

    position: Vector  # centre of the first pixel, mm
    axes: Vector  # (2, 3): along a row, along a column
    spacing: Vector  # between rows, between columns, mm
    size: tuple[int, int]  # rows, columns

    def point(self, row: float, column: float) -> Vector:
        """Return where the centre of a pixel lies, mm."""
        return np.asarray(self.position + self._steps @ (row, column))

    def pixel(self, point: Vector) -> Vector:
        """Return (row, column) of a point of its plane, 0 at the centre of the first pixel."""
        return np.asarray(np.linalg.lstsq(self._steps, point - self.position, rcond=None)[0])

    @property
    def _steps(self) -> Vector:
        """From one row to the next and from one column to the next, mm: (3, 2). The axes of some scanners are not quite square to each other."""
        right, down = self.axes / np.linalg.norm(self.axes, axis=1, keepdims=True)
        return np.stack([down * self.spacing[0], right * self.spacing[1]], axis=1)

    @property
    def last(self) -> tuple[int, int]:
        """Row and column of the last pixel."""
        return self.size[0] - 1, self.size[1] - 1


def places(case: Case) -> Iterator[str]:
    """Tell which frames do not lie on the slice, or frame of an enhanced object, that they were made from."""
    headers = {text_of(header, "SOPInstanceUID"): header for header in case.sources}
    known: dict[str, tuple[_Vectors, _Vectors, _Vectors]] = {}
    shared = next(iter(children(case.dataset, "SharedFunctionalGroupsSequence")), Dataset())
    boxes, usual = _boxes(case.dataset), dict[tuple[float, ...], Vector]()
    for number, frame in enumerate(children(case.dataset, "PerFrameFunctionalGroupsSequence"), start=1):
        source = _source(frame)
        if source is None:
            yield f"frame {number} does not say which image it was made from"
            continue
        uid = text_of(source, "ReferencedSOPInstanceUID")
        if uid not in headers:
            continue  # said by another rule
        if uid not in known:
            known[uid] = _vectors(headers[uid], _POSITION), _vectors(headers[uid], _ORIENTATION), _vectors(headers[uid], _SPACING)
        meant = number_of(source, "ReferencedFrameNumber") or 1
        position, orientation, spacing = (_of_frame(vectors, meant - 1, size) for vectors, size in zip(known[uid], (3, 6, 2), strict=True))
        if "PlanePositionSequence" not in frame:
            yield from _covers(case.dataset, headers[uid], number)
        elif position is not None and orientation is not None:  # else the source gives its place in another way
            yield from _in_plane(frame, shared, position, orientation.reshape(2, 3), number)
            ours, size = _ours(case.dataset, frame, shared), _size(headers[uid])
            if ours is not None and spacing is not None and spacing.all() and all(size):
                slice_ = _Lying(position, orientation.reshape(2, 3), spacing, size)
                yield from (f"frame {number} {fault}" for fault in _on_slice(ours, slice_, case.places.get((uid, meant)), boxes.get(number), usual))


def _in_plane(frame: Dataset, shared: Dataset, position: Vector, axes: Vector, number: int) -> Iterator[str]:
    ours = [_numbers(child, "ImagePositionPatient") for child in children(frame, "PlanePositionSequence")]
    turned = [_numbers(child, "ImageOrientationPatient") for group in (frame, shared) for child in children(group, "PlaneOrientationSequence")]
    normal = np.cross(*axes)
    if len(ours) != 1 or ours[0].size != 3 or abs(float(normal @ (ours[0] - position))) > TOLERANCE:
        yield f"frame {number} does not lie in the plane of its source slice"
    if len(turned) != 1 or turned[0].size != 6 or np.abs(turned[0].reshape(2, 3) @ normal).max() > _ANGLE_TOLERANCE:
        yield f"frame {number} is not parallel to its source slice"


def _on_slice(ours: _Lying, source: _Lying, place: Place | None, box: Vector | None, usual: dict[tuple[float, ...], Vector]) -> Iterator[str]:
    """Compare a frame with its slice. ``usual``: where frames of slices of one spacing begin and end on them, by what was seen so far."""
    reach = float(np.hypot(*(ours.spacing * ours.size)))
    if np.abs(ours.axes - source.axes).max() * reach > TOLERANCE:
        yield "is turned against its source slice"
    first, last = (source.pixel(ours.point(*corner)) for corner in ((0, 0), ours.last))
    if (((first + last) / 2 < -1) | ((first + last) / 2 > source.size)).any():
        yield "lies beside its source slice"
    if place is not None:
        steps, start = np.array([place.row_step, place.column_step]), np.array([place.row, place.column])
        meant, where = np.array([start, start + steps * ours.last]), "the analysis grid"
    else:
        meant, where = usual.setdefault(tuple(source.spacing), np.array([first, last])), "the first frame"
    if (np.abs(np.array([first, last]) - meant) * source.spacing > TOLERANCE).any():
        yield f"lies elsewhere on its source slice than {where}"
    if box is not None:
        corners = np.array([source.pixel(ours.point(*corner)) for corner in box])
        edge = 0.5 + TOLERANCE / source.spacing
        if (corners < -edge).any() or (corners > np.array(source.last) + edge).any():
            yield "shows something outside its source slice"


def _boxes(dataset: Dataset) -> dict[int, Vector]:
    """Return for each frame, from 1, first and last (row, column) that is not zero; no entry for an empty frame, none at all where pixels lack."""
    rows, columns = _size(dataset)
    found = {}
    for number in range(1, frames_of(dataset) + 1) if rows and columns else ():
        shown = _shown(dataset, number, rows * columns)
        if shown is not None and shown.size == rows * columns and shown.any():
            grid = shown.reshape(rows, columns)
            down, across = np.flatnonzero(grid.any(axis=1)), np.flatnonzero(grid.any(axis=0))
            found[number] = np.array([[down[0], across[0]], [down[-1], across[-1]]], dtype=np.float64)
    return found


def _shown(dataset: Dataset, number: int, size: int) -> NDArray[np.bool_] | None:
    """Return which pixels of a frame are not zero, in one row; None of an object that is neither a map nor a segmentation."""
    first = (number - 1) * size
    if "FloatPixelData" in dataset:
        content = bytes(dataset.FloatPixelData or b"")[4 * first : 4 * (first + size)]
        return np.asarray(np.frombuffer(content[: len(content) // 4 * 4], "<f4") != 0)
    if "SegmentSequence" not in dataset or "PixelData" not in dataset:
        return None
    bits = np.frombuffer(dataset.PixelData or b"", np.uint8)[first // 8 : -(-(first + size) // 8)]
    return np.asarray(np.unpackbits(bits, bitorder="little")[first % 8 : first % 8 + size] != 0)


# --- what headers say --------------------------------------------------------------------------------------------------


def _source(frame: Dataset) -> Dataset | None:
    """Return the image that a frame says it was made from."""
    found = [source for item in children(frame, "DerivationImageSequence") for source in children(item, "SourceImageSequence")]
    return found[0] if found else None


def _ours(dataset: Dataset, frame: Dataset, shared: Dataset) -> _Lying | None:
    """Return where a frame of ours lies, None where it does not say it once and whole: then other rules tell that."""
    groups = (frame, shared)
    starts, turns, measures = ([_numbers(child, keyword) for group in groups for child in children(group, sequence)] for sequence, keyword in _IN_PLANE)
    size = _size(dataset)
    if [one.size for some in (starts, turns, measures) for one in some] != [3, 6, 2] or not all(size) or not measures[0].all():
        return None
    return _Lying(starts[0], turns[0].reshape(2, 3), measures[0], size)


def _size(dataset: Dataset) -> tuple[int, int]:
    return number_of(dataset, "Rows") or 0, number_of(dataset, "Columns") or 0


def _numbers(dataset: Dataset, keyword: str) -> Vector:
    return np.array([float(value) for value in dataset.get(keyword) or ()], dtype=np.float64)


def _covers(dataset: Dataset, source: Dataset, number: int) -> Iterator[str]:
    """A frame without a place in the patient covers its source pixel by pixel."""
    if any(number_of(dataset, keyword) != number_of(source, keyword) for keyword in ("Rows", "Columns") if keyword in source):
        yield f"frame {number} has no place in the patient and another size than its source image"


def _vectors(header: Dataset, keys: tuple[looking_up.Key, looking_up.Key]) -> _Vectors:
    enhanced = "PerFrameFunctionalGroupsSequence" in header or "SharedFunctionalGroupsSequence" in header
    found = [place for key in keys[not enhanced :] if (place := looking_up.places(header, key)) and any(place)]
    return [np.array([float(value) for value in place], dtype=np.float64) for place in (found[0] if found else ())]


def _of_frame(vectors: _Vectors, index: int, size: int) -> Vector | None:
    vector = vectors[0] if len(vectors) == 1 else vectors[index] if index < len(vectors) else None
    return vector if vector is not None and vector.size == size else None


RULES = (places,)
