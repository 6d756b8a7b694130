"""Positron emission tomography: a PET series becomes a volume of standardised uptake values by body weight (PS3.3 A.21, A.56; C.8.9.1)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage, PositronEmissionTomographyImageStorage
from pydicom.valuerep import DT, TM

from pacs_node.analysis import stack, suv
from pacs_node.analysis.decoding import Beat
from pacs_node.analysis.stack import Slice
from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import text_of
from pacs_node.errors import NotAnalysable
from pacs_node.records import Volume

CLASSES = (PositronEmissionTomographyImageStorage, EnhancedPETImageStorage, LegacyConvertedEnhancedPETImageStorage)

_GE_SCAN = looking_up.parse_key("(0009,GEMS_PETD_01,0D)")
_PHILIPS_SUV = looking_up.parse_key("(7053,Philips PET Private Group,00)")
_PHILIPS_ACTIVITY = looking_up.parse_key("(7053,Philips PET Private Group,09)")


def _series_type(header: Dataset, place: int) -> str:
    return [*text_of(header, "SeriesType").upper().split("\\"), "", ""][place].strip()


SKIPPED: stack.Reasons = {
    "they are no PET images": lambda header: header.SOPClassUID not in CLASSES,
    "they hold no pixels": stack.no_pixels,
    "they are frames of a dynamic or gated acquisition": lambda header: _series_type(header, 0) in ("DYNAMIC", "GATED"),
    "they are projections": lambda header: _series_type(header, 1) == "REPROJECTION" or "PROJECTION IMAGE" in stack.image_type(header),
    "they show transmission, not emission": lambda header: text_of(header, "CountsSource").upper() == "TRANSMISSION",
    "they are localizers": stack.localizer,
    "they were derived from other images": stack.derived,
    "they are secondary images": stack.secondary,
    stack.NO_GEOMETRY: stack.no_geometry,
}
"""Why an image of a PET series is not part of its volume: the first reason that holds."""


def _uptake(slices: Sequence[Slice]) -> stack.Calibrated:
    """Rescaled values (the slope may differ from slice to slice) times one factor for the series."""
    factor = np.float32(suv.factor(facts_of([one.header for one in slices])))

    def calibrated(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return values * factor

    return calibrated


KIND = stack.Kind("PT", suv.UNIT, SKIPPED, stack.SEPARATED, _uptake)


def read(files: Sequence[Path], beat: Beat = lambda fraction: None) -> Volume:
    """Read the PET images among ``files`` (one series) as a volume in SUVbw; see `stack.read` and, for what is refused, `suv`."""
    return stack.read(files, KIND, beat)


# --- from headers to facts ---------------------------------------------------------------------------------------------


def facts_of(headers: Sequence[Dataset]) -> suv.Facts:
    """Gather what the headers of one series say about activity; raises `NotAnalysable` where they contradict each other."""
    first = headers[0]
    for keyword in ("Units", "CorrectedImage", "DecayCorrection", "SUVType", "PatientWeight"):
        if len({text_of(header, keyword) for header in headers}) > 1:
            raise NotAnalysable(f"the PET series has no SUV: its images differ in {keyword}; send each reconstruction as a series of its own")
    drugs = list(first.get("RadiopharmaceuticalInformationSequence") or ())
    drug = drugs[0] if drugs else Dataset()
    return suv.Facts(
        units=text_of(first, "Units").upper(),
        corrected=frozenset(part.strip().upper() for part in text_of(first, "CorrectedImage").split("\\")),
        decay_correction=text_of(first, "DecayCorrection").upper(),
        radiopharmaceuticals=len(drugs),
        weight=stack.number(first, "PatientWeight"),
        dose=stack.number(drug, "RadionuclideTotalDose"),
        half_life=stack.number(drug, "RadionuclideHalfLife"),
        injected_at=_moment(text_of(drug, "RadiopharmaceuticalStartDateTime"), first),
        injected_clock=_clock(text_of(drug, "RadiopharmaceuticalStartTime")),
        series=_date_and_time(first, "Series"),
        frames=tuple(_frame_time(header) for header in headers),
        vendor_scan=_moment(_private_text(first, _GE_SCAN), first),
        decay_corrected_to=_moment(text_of(first, "DecayCorrectionDateTime"), first),
        suv_type=text_of(first, "SUVType").upper(),
        philips_suv=_private_number(first, _PHILIPS_SUV),
        philips_activity=_private_number(first, _PHILIPS_ACTIVITY),
    )


def _frame_time(header: Dataset) -> suv.FrameTime:
    reference, duration = stack.number(header, "FrameReferenceTime"), stack.number(header, "ActualFrameDuration")
    return suv.FrameTime(
        acquired=_date_and_time(header, "Acquisition"),
        reference=None if reference is None else reference / 1000,  # both are in ms
        duration=None if duration is None else duration / 1000,
    )


def _date_and_time(header: Dataset, of_what: str) -> datetime | None:
    return _moment(text_of(header, f"{of_what}Date").replace(".", "") + text_of(header, f"{of_what}Time").replace(":", ""), header)


def _moment(text: str, header: Dataset) -> datetime | None:
    """A moment on the scanner's clock: an offset from UTC is taken off where the object says which one its other times have (0008,0201)."""
    if len(text) < 12:  # a date alone, or a time alone, is no moment
        return None
    try:
        moment = DT(text)
    except ValueError:
        return None
    if moment.tzinfo is not None and (zone := _zone(header)) is not None:
        return moment.astimezone(zone).replace(tzinfo=None)
    return datetime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second, moment.microsecond)


def _zone(header: Dataset) -> timezone | None:
    text = text_of(header, "TimezoneOffsetFromUTC")
    if len(text) != 5 or text[0] not in "+-" or not text[1:].isdigit():
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(offset if text[0] == "+" else -offset)


def _clock(text: str) -> time | None:
    """A time of day (VR TM: hours, minutes, seconds and fractions as far as known; the colons of older objects are taken)."""
    text = text.replace(":", "")
    try:
        return TM(text) if text else None
    except ValueError:
        return None


def _private_text(header: Dataset, key: looking_up.Key) -> str:
    found = looking_up.values(header, key)
    return str(found[0]) if found else ""


def _private_number(header: Dataset, key: looking_up.Key) -> float | None:
    try:
        return float(_private_text(header, key))
    except ValueError:
        return None
