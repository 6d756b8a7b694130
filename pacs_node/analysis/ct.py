"""Computed tomography: a CT series becomes a volume in Hounsfield units (PS3.3 A.3, C.8.2.1)."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage

from pacs_node.analysis import geometry, pixels
from pacs_node.dicom.header import has_pixels, is_synthetic, read_header, read_object, text_of
from pacs_node.errors import NotAnalysable, UndecodablePixels, UnreadableObject
from pacs_node.records import Frame, Plane, Volume

UNIT = "[hnsf'U]"  # UCUM, Hounsfield unit
BELOW_AIR = -1500.0  # HU: no matter attenuates less than nothing (-1000) by more than noise; scanners write such values outside their field of view
_DAMAGED_SHARE = 0.1  # of the slices may be undecodable and left out
_THREADS = max(1, min(4, os.cpu_count() or 1))
_ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

Beat = Callable[[float], None]


def _image_type(header: Dataset) -> list[str]:
    return [part.strip().upper() for part in text_of(header, "ImageType").split("\\")]


def _derived(header: Dataset) -> bool:
    """Whether the image was computed from others; compressing with loss makes an image DERIVED too (PS3.3 C.7.6.1.1.5), but not another."""
    return _image_type(header)[0] == "DERIVED" and text_of(header, "LossyImageCompression") != "01"


def _not_hounsfield(header: Dataset) -> bool:
    kind = text_of(header, "RescaleType").upper()
    rescaled = header.get("RescaleSlope") is not None or bool(header.get("ModalityLUTSequence"))
    return not rescaled or kind not in ("", "HU", "US")


SKIPPED: dict[str, Callable[[Dataset], bool]] = {
    "they are no CT images": lambda header: header.SOPClassUID != CTImageStorage,
    "they hold no pixels": lambda header: not has_pixels(header),
    "they are localizers": lambda header: "LOCALIZER" in _image_type(header),
    "they were derived from other images": _derived,
    "they are secondary images": lambda header: _image_type(header)[1:2] == ["SECONDARY"],
    "they have no rescale to Hounsfield units": _not_hounsfield,
    "their position, orientation or pixel spacing is missing or impossible": lambda header: geometry.plane_of(header) is None,
}
"""Why an image of a CT series is not part of its volume: the first reason that holds."""


@dataclass(frozen=True, slots=True)
class _Slice:
    path: Path
    header: Dataset
    plane: Plane

    @property
    def grid(self) -> tuple[int, int, float, float]:
        return int(self.header.Rows), int(self.header.Columns), round(self.plane.spacing[0], 3), round(self.plane.spacing[1], 3)

    @property
    def place_in_series(self) -> tuple[int, int]:
        return _integer(self.header, "AcquisitionNumber"), _integer(self.header, "InstanceNumber")


def _integer(header: Dataset, keyword: str) -> int:
    text = text_of(header, keyword)
    return int(text) if text.lstrip("+-").isdigit() else 0


def read(files: Sequence[Path], beat: Beat = lambda fraction: None) -> Volume:
    """Read the CT images among ``files`` (one series) as a volume in HU; padding and what lies outside the field of view is NaN.

    Images that are no part of the stack are left out and named in ``remarks``. ``beat`` hears the fraction done and may raise to
    stop. Raises `NotAnalysable` where nothing is left, `UndecodablePixels` where more than 10 % of the slices cannot be decoded.
    """
    remarks: list[str] = []
    headers = _one_series(_headers(files, remarks), remarks)
    if any(header.SOPClassUID in _ENHANCED for _, header in headers):
        raise NotAnalysable("the series is an enhanced multi-frame CT object, which this version does not analyse: send the single-frame images")
    slices = _without_repeats(_largest_stack(_usable(headers, remarks), remarks), remarks)
    values, kept = _decode_all(slices, remarks, beat)
    described = geometry.stack([one.plane for one in kept])
    first = kept[0].header
    return Volume(
        pixels=values,
        unit=UNIT,
        frames=tuple(Frame(str(one.header.SOPInstanceUID), str(one.header.SOPClassUID), None, one.plane) for one in kept),
        modality="CT",
        series_uid=str(first.SeriesInstanceUID),
        frame_of_reference_uid=text_of(first, "FrameOfReferenceUID") or None,
        synthetic=all(is_synthetic(one.header) for one in kept),
        remarks=(*remarks, *described.remarks()),
    )


def _headers(files: Iterable[Path], remarks: list[str]) -> list[tuple[Path, Dataset]]:
    found, unreadable = [], 0
    for path in files:
        try:
            found.append((path, read_header(path)))
        except UnreadableObject:
            unreadable += 1
    if unreadable:
        remarks.append(f"{unreadable} files are no readable DICOM objects")
    if not found:
        raise NotAnalysable("none of the files is a readable DICOM object")
    return found


def _one_series(headers: list[tuple[Path, Dataset]], remarks: list[str]) -> list[tuple[Path, Dataset]]:
    sizes = Counter(str(header.SeriesInstanceUID) for _, header in headers)
    if len(sizes) > 1:
        remarks.append(f"{len(sizes)} series were given; the one with most images was analysed")
    chosen = min(sizes, key=lambda uid: (-sizes[uid], uid))
    return [(path, header) for path, header in headers if header.SeriesInstanceUID == chosen]


def _usable(headers: list[tuple[Path, Dataset]], remarks: list[str]) -> list[_Slice]:
    slices: list[_Slice] = []
    skipped: Counter[str] = Counter()
    for path, header in headers:
        reason = next((text for text, holds in SKIPPED.items() if holds(header)), None)
        plane = geometry.plane_of(header)
        if reason is None and plane is not None:
            slices.append(_Slice(path, header, plane))
        elif reason is not None:
            skipped[reason] += 1
    for reason, count in skipped.items():
        remarks.append(f"{count} of {len(headers)} images were left out because {reason}")
    if not slices:
        raise NotAnalysable(f"no image of the series can be analysed as CT: {'; '.join(skipped)}")
    return sorted(slices, key=lambda one: one.place_in_series)


def _largest_stack(slices: list[_Slice], remarks: list[str]) -> list[_Slice]:
    """Keep the slices of one orientation, matrix and pixel spacing that are most."""
    groups: list[list[_Slice]] = []
    for one in slices:
        for group in groups:
            if group[0].grid == one.grid and geometry.parallel(group[0].plane, one.plane):
                group.append(one)
                break
        else:
            groups.append([one])
    largest = max(groups, key=len)
    if len(groups) > 1:
        remarks.append(
            f"the series holds {len(groups)} stacks of differing orientation, matrix or pixel spacing; "
            f"the largest ({len(largest)} of {len(slices)} images) was used"
        )
    return largest


def _without_repeats(slices: list[_Slice], remarks: list[str]) -> list[_Slice]:
    """Put the slices into geometric order; where places repeat, prefer one acquisition that covers most of them."""
    described = geometry.stack([one.plane for one in slices])
    if described.repeats:
        acquisitions: dict[int, list[_Slice]] = {}
        for one in slices:
            acquisitions.setdefault(one.place_in_series[0], []).append(one)
        largest = max(acquisitions.values(), key=len)
        if len(acquisitions) > 1 and len(largest) >= 0.5 * len(described.order):
            remarks.append(f"{len(acquisitions)} acquisitions show the same places; the largest ({len(largest)} of {len(slices)} images) was used")
            slices = largest
            described = geometry.stack([one.plane for one in slices])
    if described.repeats:
        remarks.extend(described.remarks()[:1])
    return [slices[index] for index in described.order]


def _decode_all(slices: list[_Slice], remarks: list[str], beat: Beat) -> tuple[NDArray[np.float32], list[_Slice]]:
    """Decode the slices, a few at a time; damaged ones are left out as long as they are few."""
    rows, columns = slices[0].grid[:2]
    values = np.empty((len(slices), rows, columns), dtype=np.float32)
    faults: list[UndecodablePixels] = []
    kept: list[_Slice] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, result in enumerate(_bounded_map(pool, slices), start=1):
            if isinstance(result, UndecodablePixels):
                faults.append(result)
            else:
                values[len(kept)] = result
                kept.append(slices[done - 1])
            beat(done / len(slices))
    if faults and (len(faults) > _DAMAGED_SHARE * len(slices) or not kept):
        raise faults[0]
    if faults:
        remarks.append(f"{len(faults)} of {len(slices)} images were left out because their pixels cannot be decoded")
    return values[: len(kept)], kept


def _bounded_map(pool: ThreadPoolExecutor, slices: list[_Slice]) -> Iterable[NDArray[np.float32] | UndecodablePixels]:
    """Decode in order, with no more than a handful of slices in memory ahead of the reader."""
    rest = iter(slices)
    waiting = deque(pool.submit(_decode, one) for one in islice(rest, 2 * _THREADS))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(_decode, one) for one in islice(rest, 1))


def _decode(one: _Slice) -> NDArray[np.float32] | UndecodablePixels:
    try:
        values = pixels.read_physical(read_object(one.path))
    except UndecodablePixels as fault:
        return fault
    except UnreadableObject as fault:
        return UndecodablePixels(str(one.header.SOPInstanceUID), "unread", fault.reason)
    values[values < BELOW_AIR] = np.nan
    return values
