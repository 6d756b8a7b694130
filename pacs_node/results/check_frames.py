"""The gate for pixels and frames: as many as are said, each marks something, each reference to a frame or segment that is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from pacs_node.dicom.header import number_of, text_of
from pacs_node.results.case import Case, children, items
from pacs_node.results.naming import frames_of


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


RULES = (_pixels, _frames, _segments, _marks)
