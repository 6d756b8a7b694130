"""Standardised uptake values by body weight: pure functions of what the headers of a PET series say.

::

    SUVbw = activity concentration (Bq/ml) × body weight (g) / administered activity (Bq), decayed to the moment to which the pixels are corrected

The rules are those of the vendor-neutral pseudocode of the QIBA FDG-PET/CT profile (appendix G), with the amendments of the IBSI
reference manual for what vendors write otherwise. Where a rule does not give a moment or a factor for certain, there is no SUV but a reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from pacs_node.errors import NotAnalysable

UNIT = "{SUVbw}g/ml"  # UCUM, PS3.16 CID 85

NEEDED_CORRECTIONS = {"ATTN": "attenuation", "DECY": "decay"}  # Corrected Image (0028,0051), PS3.3 C.8.9.1.1.5
SAME_SCAN = 60.0  # s: scan starts computed from several images must agree this well; for F-18 that is 0.6 % of the SUV
MOST_HALF_LIVES = 10.0  # between injection and scan: after more nothing is left to see, so the times must be wrong
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class FrameTime:
    """When one image was acquired: start of its bed position, Frame Reference Time and Actual Frame Duration in seconds."""

    acquired: datetime | None
    reference: float | None
    duration: float | None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the headers of a PET series say about activity; None and "" where they say nothing. Times are the scanner's local ones."""

    units: str  # Units (0054,1001)
    corrected: frozenset[str]  # Corrected Image (0028,0051)
    decay_correction: str  # Decay Correction (0054,1102)
    radiopharmaceuticals: int = 1  # items of Radiopharmaceutical Information Sequence (0054,0016)
    weight: float | None = None  # kg
    dose: float | None = None  # Bq
    half_life: float | None = None  # s
    injected_at: datetime | None = None  # Radiopharmaceutical Start DateTime (0018,1078)
    injected_clock: time | None = None  # Radiopharmaceutical Start Time (0018,1072), without a date
    series: datetime | None = None  # Series Date and Time
    frames: tuple[FrameTime, ...] = ()
    vendor_scan: datetime | None = None  # GE (0009,xx0D)
    decay_corrected_to: datetime | None = None  # Decay Correction DateTime (0018,9701) of enhanced objects
    suv_type: str = ""  # SUV Type (0054,1006)
    philips_suv: float | None = None  # (7053,xx00), SUV per count
    philips_activity: float | None = None  # (7053,xx09), Bq/ml per count


def factor(facts: Facts) -> float:
    """Return what turns rescaled pixel values into SUVbw (g/ml); raises `NotAnalysable` with the reason and the attribute at fault."""
    rule = UNITS.get(facts.units)
    if rule is None:
        unit = f"in {facts.units} units" if facts.units else "without Units (0054,1001)"
        raise _no_suv(f"the pixels are {unit}, of which no SUV can be made: choose the attenuation-corrected series in {', '.join(UNITS)}")
    _refuse_uncorrected(facts)
    return rule(facts)


def _no_suv(reason: str) -> NotAnalysable:
    return NotAnalysable(f"the PET series has no SUV: {reason}")


def _missing(keyword: str) -> NotAnalysable:
    return _no_suv(f"{keyword} is missing or zero: complete it at the scanner and send the series again")


def _given(value: float | None, keyword: str) -> float:
    if value is None or not value > 0:
        raise _missing(keyword)
    return value


def _refuse_uncorrected(facts: Facts) -> None:
    lacking = [word for name, word in NEEDED_CORRECTIONS.items() if name not in facts.corrected]
    if lacking:
        raise _no_suv(f"the images are not corrected for {' and '.join(lacking)} (CorrectedImage): choose the corrected series")
    if facts.decay_correction not in DECAY:
        said = f"DecayCorrection is {facts.decay_correction}" if facts.decay_correction else "DecayCorrection is missing"
        raise _no_suv(f"{said}, so the moment to which the pixels are corrected is unknown: choose a series with {' or '.join(DECAY)}")


# --- units -------------------------------------------------------------------------------------------------------------


def _of_activity(facts: Facts) -> float:
    """Bq/ml: body weight over the activity that is left at the moment to which the pixels are corrected."""
    if facts.radiopharmaceuticals > 1:
        raise _no_suv(f"{facts.radiopharmaceuticals} radiopharmaceuticals were given (RadiopharmaceuticalInformationSequence), one is expected")
    weight, dose = _given(facts.weight, "PatientWeight"), _given(facts.dose, "RadionuclideTotalDose")
    half_life = _given(facts.half_life, "RadionuclideHalfLife")
    return weight * 1000 / (dose * math.exp2(-DECAY[facts.decay_correction](facts) / half_life))


def _of_counts(facts: Facts) -> float:
    """Counts: Philips' factor to SUV, or where that is zero its factor to Bq/ml."""
    if facts.philips_suv is not None and facts.philips_suv > 0:
        return facts.philips_suv
    if facts.philips_activity is not None and facts.philips_activity > 0:
        return facts.philips_activity * _of_activity(facts)
    raise _no_suv("the pixels are counts and the Philips factors (7053,xx00) and (7053,xx09) are missing or zero: keep private attributes when sending")


def _of_suv(facts: Facts) -> float:
    """g/ml: an SUV already; by body weight where nothing else is said (PS3.3 C.8.9.1)."""
    if facts.suv_type not in ("", "BW"):
        raise _no_suv(f"the pixels are an SUV by {facts.suv_type} and not by body weight (SUVType): choose a series in BQML")
    return 1.0


UNITS: dict[str, Callable[[Facts], float]] = {"BQML": _of_activity, "CNTS": _of_counts, "GML": _of_suv}
"""Units (0054,1001) to the rule that gives the factor; nothing else becomes an SUV."""


# --- time --------------------------------------------------------------------------------------------------------------


def decay_time(facts: Facts) -> float:
    """Return the seconds from injection to the moment to which the pixels are corrected, for Decay Correction START."""
    scan = scan_start(facts)
    delay = (scan - injection(facts, scan)).total_seconds()
    half_life = _given(facts.half_life, "RadionuclideHalfLife")
    if delay > MOST_HALF_LIVES * half_life:
        raise _no_suv(
            f"the injection would lie {delay / 3600:.1f} hours ({delay / half_life:.0f} half-lives) before the scan: "
            "correct RadiopharmaceuticalStartTime at the scanner"
        )
    return delay


DECAY: dict[str, Callable[[Facts], float]] = {"START": decay_time, "ADMIN": lambda facts: 0.0}
"""Decay Correction (0054,1102) to the seconds over which the administered activity decays."""


def scan_start(facts: Facts) -> datetime:
    """Return the moment to which decay was corrected.

    An enhanced object names it. Else it is the series' time, unless that is later than the earliest acquisition: then the series was
    made afterwards, and the vendor's own scan time counts; without one it is computed back from the images.
    """
    if facts.decay_corrected_to is not None:
        return facts.decay_corrected_to
    acquired = [frame.acquired for frame in facts.frames if frame.acquired is not None]
    if not acquired:
        raise _missing("AcquisitionTime")
    if facts.series is None:
        raise _missing("SeriesTime")
    if facts.series <= min(acquired):
        return facts.series
    return facts.vendor_scan or _back_computed(facts)


def _back_computed(facts: Facts) -> datetime:
    """The median of the starts that the images give, provided that they agree."""
    starts = sorted(_start_by(frame, _given(facts.half_life, "RadionuclideHalfLife")) for frame in facts.frames)
    apart = (starts[-1] - starts[0]).total_seconds()
    if apart > SAME_SCAN:
        raise _no_suv(
            f"SeriesTime is later than the acquisition, and the starts of the scan computed from the images differ by {apart:.0f} s: "
            "send the original series with its private attributes"
        )
    return starts[len(starts) // 2]


def _start_by(frame: FrameTime, half_life: float) -> datetime:
    """Acquisition time is the start of the bed position, frame reference time the offset from the scan's start to the moment of average activity."""
    if frame.acquired is None:
        raise _missing("AcquisitionTime")
    reference, duration = _given(frame.reference, "FrameReferenceTime"), _given(frame.duration, "ActualFrameDuration")
    rate = math.log(2) / half_life
    average = math.log(rate * duration / -math.expm1(-rate * duration)) / rate
    return frame.acquired - timedelta(seconds=reference) + timedelta(seconds=average)


def injection(facts: Facts, scan: datetime) -> datetime:
    """Return when the activity was given, no later than ``scan``.

    The full moment counts where it lies in the day before the scan; else the clock time, taken as of the evening before where it is
    later than the scan's.
    """
    if facts.injected_at is not None and timedelta(0) <= scan - facts.injected_at < _DAY:
        return facts.injected_at
    if facts.injected_clock is None:
        if facts.injected_at is None:
            raise _missing("RadiopharmaceuticalStartTime")
        raise _no_suv("RadiopharmaceuticalStartDateTime is not in the day before the scan: correct it at the scanner and send the series again")
    given = datetime.combine(scan.date(), facts.injected_clock)
    return given if given <= scan else given - _DAY
