"""The gate for pixels and frames: as many as are said, each where its source slice lies, each reference to a frame that is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import number_of, text_of
from pacs_node.results.case import Case, children, items
from pacs_node.results.naming import frames_of

PLANE_TOLERANCE = 0.01  # mm
_ANGLE_TOLERANCE = 1e-3  # of the cosines: a quarter of a millimetre at the edge of a slice of 500 mm

_IN_PLANE = (
    ("PlanePositionSequence", "ImagePositionPatient"),
    ("PlaneOrientationSequence", "ImageOrientationPatient"),
    ("PixelMeasuresSequence", "PixelSpacing"),
)

_Vectors = list[NDArray[np.float64]]  # one for the object, or one for each of its frames
_POSITION, _ORIENTATION, _SPACING = (looking_up.parse_key(keyword) for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))


def _pixels(case: Case) -> Iterator[str]:
    dataset = case.dataset
    for keyword in ("PixelData", "FloatPixelData"):
        if keyword in dataset:
            each = [number_of(dataset, name) or 0 for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
            expected = -(-int(np.prod(each)) * frames_of(dataset) // 8)
            if len(dataset[keyword].value) != expected + expected % 2:
                yield f"{keyword} holds {len(dataset[keyword].value)} bytes instead of {expected}"
    if "PerFrameFunctionalGroupsSequence" in dataset and len(children(dataset, "PerFrameFunctionalGroupsSequence")) != number_of(dataset, "NumberOfFrames"):
        yield "there is not one item of PerFrameFunctionalGroupsSequence for each frame"


def _places(case: Case) -> Iterator[str]:
    """Every frame of ours lies in the plane of the slice, or of the frame of an enhanced object, that it was made from."""
    headers = {text_of(header, "SOPInstanceUID"): header for header in case.sources}
    known: dict[str, tuple[_Vectors, _Vectors, _Vectors]] = {}
    shared = next(iter(children(case.dataset, "SharedFunctionalGroupsSequence")), Dataset())
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
        index = (number_of(source, "ReferencedFrameNumber") or 1) - 1
        position, orientation, spacing = (_of_frame(vectors, index, size) for vectors, size in zip(known[uid], (3, 6, 2), strict=True))
        if "PlanePositionSequence" not in frame:
            yield from _covers(case.dataset, headers[uid], number)
        elif position is not None and orientation is not None:  # else the source gives its place in another way
            yield from _lies(frame, shared, position, orientation.reshape(2, 3), number)
            if spacing is not None and _beside(case.dataset, (frame, shared), headers[uid], (position, orientation.reshape(2, 3), spacing)):
                yield f"frame {number} lies beside its source slice"


def _source(frame: Dataset) -> Dataset | None:
    """Return the image that a frame says it was made from."""
    found = [source for item in children(frame, "DerivationImageSequence") for source in children(item, "SourceImageSequence")]
    return found[0] if found else None


def _lies(frame: Dataset, shared: Dataset, position: NDArray[np.float64], axes: NDArray[np.float64], number: int) -> Iterator[str]:
    ours = [_numbers(child, "ImagePositionPatient") for child in children(frame, "PlanePositionSequence")]
    turned = [_numbers(child, "ImageOrientationPatient") for group in (frame, shared) for child in children(group, "PlaneOrientationSequence")]
    normal = np.cross(*axes)
    if len(ours) != 1 or ours[0].size != 3 or abs(float(normal @ (ours[0] - position))) > PLANE_TOLERANCE:
        yield f"frame {number} does not lie in the plane of its source slice"
    if len(turned) != 1 or turned[0].size != 6 or np.abs(turned[0].reshape(2, 3) @ normal).max() > _ANGLE_TOLERANCE:
        yield f"frame {number} is not parallel to its source slice"


def _beside(dataset: Dataset, groups: tuple[Dataset, Dataset], source: Dataset, place: tuple[NDArray[np.float64], ...]) -> bool:
    """Tell whether the middle of a frame lies outside the source slice at ``place`` (position, axes, spacing); nothing that lacks its size is judged.

    The analysis grid is centred on the body or on the image, and may reach beyond it.
    """
    position, axes, spacing = place
    starts, turns, measures = ([_numbers(child, keyword) for group in groups for child in children(group, sequence)] for sequence, keyword in _IN_PLANE)
    sizes = [np.array([number_of(one, keyword) or 0 for keyword in ("Columns", "Rows")]) for one in (dataset, source)]
    if [one.size for some in (starts, turns, measures) for one in some] != [3, 6, 2] or not all(size.all() for size in sizes):
        return False  # said by other rules
    middle = starts[0] + ((sizes[0] - 1) / 2 * measures[0][::-1]) @ turns[0].reshape(2, 3)
    pixel = axes @ (middle - position) / spacing[::-1]  # column, row of the source
    return bool(((pixel < -1) | (pixel > sizes[1])).any())


def _numbers(dataset: Dataset, keyword: str) -> NDArray[np.float64]:
    return np.array([float(value) for value in dataset.get(keyword) or ()], dtype=np.float64)


def _covers(dataset: Dataset, source: Dataset, number: int) -> Iterator[str]:
    """A frame without a place in the patient covers its source pixel by pixel."""
    if any(number_of(dataset, keyword) != number_of(source, keyword) for keyword in ("Rows", "Columns") if keyword in source):
        yield f"frame {number} has no place in the patient and another size than its source image"


def _vectors(header: Dataset, key: looking_up.Key) -> _Vectors:
    return [np.array([float(value) for value in place], dtype=np.float64) for place in looking_up.places(header, key)]


def _of_frame(vectors: _Vectors, index: int, size: int) -> NDArray[np.float64] | None:
    vector = vectors[0] if len(vectors) == 1 else vectors[index] if index < len(vectors) else None
    return vector if vector is not None and vector.size == size else None


def _frames(case: Case) -> Iterator[str]:
    """A reference to frames is one to frames that the object has."""
    counts = {text_of(header, "SOPInstanceUID"): frames_of(header) for header in (*case.sources, *case.companions)}
    for item in items(case.dataset):
        for text in filter(str.isdecimal, text_of(item, "ReferencedFrameNumber").split("\\")):
            uid = text_of(item, "ReferencedSOPInstanceUID")
            if not 1 <= int(text) <= counts.get(uid, int(text)):
                yield f"there is no frame {text} in {uid}"


def _segments(case: Case) -> Iterator[str]:
    """Segments are numbered from 1 (PS3.3 C.8.20.4), each has frames, and each frame and reference is of one that is there."""
    if case.sop_class == SegmentationStorage:
        numbers = [number_of(segment, "SegmentNumber") or 0 for segment in children(case.dataset, "SegmentSequence")]
        if numbers != list(range(1, len(numbers) + 1)):
            yield "the segments are not numbered from 1"
        used = {_segment_of(frame) for frame in children(case.dataset, "PerFrameFunctionalGroupsSequence")}
        if used != set(numbers):
            yield "the segments are not those that the frames show"
    there = {text_of(other, "SOPInstanceUID"): len(children(other, "SegmentSequence")) for other in case.companions}
    for item in items(case.dataset):
        number, uid = number_of(item, "ReferencedSegmentNumber"), text_of(item, "ReferencedSOPInstanceUID")
        if number is not None and uid in there and not 1 <= number <= there[uid]:
            yield f"there is no segment {number} in {uid}"


def _marks(case: Case) -> Iterator[str]:
    """Each frame of a segmentation marks something."""
    if case.sop_class != SegmentationStorage or "PixelData" not in case.dataset:
        return
    size = (number_of(case.dataset, "Rows") or 0) * (number_of(case.dataset, "Columns") or 0)
    content = np.frombuffer(case.dataset.PixelData, np.uint8)
    for index in range(frames_of(case.dataset)):
        first, end = index * size, (index + 1) * size
        if not np.unpackbits(content[first // 8 : -(-end // 8)], bitorder="little")[first % 8 : first % 8 + size].any():
            yield f"frame {index + 1} marks no pixel"


def _segment_of(frame: Dataset) -> int:
    return next((number_of(item, "ReferencedSegmentNumber") or 0 for item in children(frame, "SegmentIdentificationSequence")), 0)


RULES = (_pixels, _places, _frames, _segments, _marks)
