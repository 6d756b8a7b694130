"""Enhanced multi-frame objects as single frames: each frame's functional groups are written as a single-frame header would have them.

::

    object ── SharedFunctionalGroupsSequence ──────────┐
           └─ PerFrameFunctionalGroupsSequence[n] ─────┴─► one header per frame: ImagePositionPatient, RescaleSlope, EchoTime, …

So everything that reads single-frame images reads enhanced and legacy-converted ones too (PS3.3 C.7.6.16, A.36, A.38, A.56, A.70-A.72).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import (
    EnhancedCTImageStorage,
    EnhancedMRColorImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    EnhancedUSVolumeStorage,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
)

from pacs_node.dicom.header import text_of
from pacs_node.errors import NotAnalysable

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

CLASSES = frozenset(
    {
        EnhancedCTImageStorage,
        LegacyConvertedEnhancedCTImageStorage,
        EnhancedMRImageStorage,
        EnhancedMRColorImageStorage,
        LegacyConvertedEnhancedMRImageStorage,
        EnhancedPETImageStorage,
        LegacyConvertedEnhancedPETImageStorage,
        EnhancedUSVolumeStorage,
    }
)
"""SOP classes whose frames are described by functional groups."""

ALIASES: dict[str, tuple[str, ...]] = {
    "ImageType": ("FrameType",),
    "EchoTime": ("EffectiveEchoTime",),
    "InversionTime": ("InversionTimes",),
    "AcquisitionNumber": ("FrameAcquisitionNumber",),
    "ImagePositionPatient": ("ImagePositionVolume",),
    "ImageOrientationPatient": ("ImageOrientationVolume",),
}
"""Single-frame keyword → the names of the same fact in functional groups; what a frame says wins over what the object says."""

_DATE_TIMES = {"Acquisition": "FrameAcquisitionDateTime"}
_PET_UNITS = {"bq/ml": "BQML", "{suvbw}g/ml": "GML", "g/ml{suvbw}": "GML", "g/ml": "GML"}  # UCUM of CID 84 and 85 → Units (0054,1001)
_PET_CORRECTIONS = {"ATTN": "AttenuationCorrected", "DECY": "DecayCorrected", "SCAT": "ScatterCorrected"}


class Image(NamedTuple):
    """One image: the file, its header (of a frame: written as a single-frame header), the frame's number from 1 (None: single-frame)."""

    path: Path
    header: Dataset
    number: int | None


def frames(headers: Sequence[tuple[Path, Dataset]], remarks: list[str]) -> list[Image]:
    """Take enhanced objects apart into frames; others stay as they are.

    Raises `NotAnalysable` where a concatenation has not arrived whole or an object does not describe its frames.
    """
    remarks.extend(concatenations([header for _, header in headers]))
    images: list[Image] = []
    for path, header in headers:
        if header.SOPClassUID in CLASSES:
            images.extend(Image(path, one, number) for number, one in enumerate(frame_headers(header), start=1))
        else:
            images.append(Image(path, header, None))
    return images


# --- frames ------------------------------------------------------------------------------------------------------------


def frame_headers(header: Dataset) -> list[Dataset]:
    """Return one single-frame header for each frame of an enhanced object; raises `NotAnalysable` where the frames are not described."""
    groups, count = list(header.get(PER_FRAME) or ()), _whole(header, "NumberOfFrames") or 1
    if len(groups) != count:
        raise NotAnalysable(
            f"the enhanced multi-frame object {text_of(header, 'SOPInstanceUID')} has {count} frames, but describes {len(groups)} of them: "
            "send it again, or send single-frame images"
        )
    base = _without(header, (SHARED, PER_FRAME, "DimensionIndexSequence"))
    for item in header.get(SHARED) or ():
        _merge(base, item)
    return [_frame(base, group) for group in groups]


def _whole(header: Dataset, keyword: str) -> int:
    text = text_of(header, keyword)
    return int(text) if text.isdigit() else 0


def _without(header: Dataset, keywords: Sequence[str]) -> Dataset:
    base, left_out = Dataset(), {tag_for_keyword(keyword) for keyword in keywords}
    _copy(header, base, left_out)
    return base


def _copy(source: Dataset, target: Dataset, left_out: Collection[int | None] = ()) -> None:
    """Copy elements unread, so that a value that nobody asks for cannot do harm."""
    for tag in list(source._dict):  # iterating over the dataset itself would read its values
        if tag not in left_out:
            target[tag] = source.get_item(tag)


_OF_THE_OBJECT = tuple(tag_for_keyword(keyword) for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))


def _frame(base: Dataset, group: Dataset) -> Dataset:
    frame = Dataset()
    _copy(base, frame)
    _merge(frame, group)
    for keyword, others in ALIASES.items():
        for other in others:
            if other in frame and frame[other].value not in (None, ""):
                setattr(frame, keyword, frame[other].value)
    for prefix, keyword in _DATE_TIMES.items():
        moment = text_of(frame, keyword)
        if len(moment) >= 14:
            setattr(frame, f"{prefix}Date", moment[:8])
            setattr(frame, f"{prefix}Time", moment[8:].split("+")[0].split("-")[0])
    finish = _FINISH.get(str(frame.SOPClassUID))
    if finish is not None:
        finish(frame)
    return frame


def _merge(target: Dataset, group: Dataset) -> None:
    """Copy what the macros of a group of functional groups hold (the first item of each) to the top level of ``target``.

    Private macros are left alone: some hold whole datasets of other objects (Philips (2005,140F)), UIDs included.
    """
    for macro in group:
        if macro.VR == "SQ" and not macro.tag.is_private and macro.value:
            _copy(macro.value[0], target, _OF_THE_OBJECT)


def _as_single_frame_pet(frame: Dataset) -> None:
    """Write units, corrections and scale of an enhanced PET frame as PS3.3 C.8.9.1 has them.

    An enhanced object gives the real world value mapping (C.7.6.16.2.11) instead of Units, and the moment to which decay was
    corrected, Decay Correction DateTime (0018,9701), instead of Decay Correction.
    """
    codes = frame.get("MeasurementUnitsCodeSequence") or ()
    unit = text_of(codes[0], "CodeValue").lower() if codes else ""
    if "Units" in frame or unit not in _PET_UNITS:
        return
    frame.Units = _PET_UNITS[unit]
    frame.RescaleSlope, frame.RescaleIntercept = frame.get("RealWorldValueSlope", 1), frame.get("RealWorldValueIntercept", 0)
    frame.CorrectedImage = [name for name, keyword in _PET_CORRECTIONS.items() if text_of(frame, keyword).upper() == "YES"]
    frame.DecayCorrection = "START" if text_of(frame, "DecayCorrected").upper() == "YES" else "NONE"


_FINISH: dict[str, Callable[[Dataset], None]] = {str(EnhancedPETImageStorage): _as_single_frame_pet}


# --- concatenations ----------------------------------------------------------------------------------------------------


def concatenations(headers: Sequence[Dataset]) -> list[str]:
    """Return remarks about objects that are parts of a larger one (PS3.3 C.7.6.16.2.2.4); raises `NotAnalysable` where parts are missing."""
    parts: dict[str, list[Dataset]] = {}
    for header in headers:
        uid = text_of(header, "ConcatenationUID")
        if uid:
            parts.setdefault(uid, []).append(header)
    return [_concatenation(uid, members) for uid, members in sorted(parts.items())]


def _concatenation(uid: str, members: list[Dataset]) -> str:
    numbers = sorted({_whole(header, "InConcatenationNumber") for header in members})
    totals = {_whole(header, "InConcatenationTotalNumber") for header in members}
    total = max(totals) or numbers[-1]
    if numbers != list(range(1, total + 1)):
        raise NotAnalysable(
            f"the multi-frame image arrived in parts and {total - len(numbers)} of {total} are missing (concatenation {uid}): send the series again"
        )
    unsaid = "" if max(totals) else "; how many there should be is not said"
    return f"the multi-frame image arrived in {total} part{'s' if total > 1 else ''}, which were put together{unsaid}"
