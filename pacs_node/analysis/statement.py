"""The only place where a score becomes a verdict.

Percentile, p-value and verdict are given by a calibration on the studies that the verdict is about: ``site`` for patients,
``synthetic`` for synthetic studies. Everything else is *uncalibrated*, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from pacs_node.analysis.calibration_file import CalibrationFile
from pacs_node.analysis.origin import words
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.records import Calibration, Origin, Population, Verdict

WARN_AFTER_DAYS = 60
STOP_AFTER_DAYS = 90


@dataclass(frozen=True, slots=True)
class Statement:
    """What may be said about one study: everything None, and ``verdict`` uncalibrated, where no calibration applies."""

    verdict: Verdict
    calibration: Calibration | None = None
    percentile: float | None = None
    p_value: float | None = None
    pixel_tail: tuple[float, ...] | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Yardstick:
    """What a study is judged by: the scores of its own region and scanner, named by ``scanner``, or of all (``""``)."""

    scores: tuple[float, ...]
    threshold: float
    scanner: str = ""
    remark: str = ""


def state(score: float, found: CalibrationFile | None, *, synthetic: bool, today: date, origin: Origin = Origin()) -> Statement:
    """Say what ``score`` means for a study that is ``synthetic`` or a patient's, on the day ``today``, from the scanner ``origin``."""
    reason = _why_not(found, synthetic, today)
    if found is None or found.threshold is None or reason:
        return Statement(Verdict.UNCALIBRATED, remarks=(f"uncalibrated: {reason}",))
    by = _yardstick(found, found.threshold, origin)
    return Statement(
        verdict=Verdict.ABOVE if score > by.threshold else Verdict.NOT_ABOVE,
        calibration=Calibration(found.population, len(by.scores), by.threshold, found.alpha, found.made_on, by.scanner),
        percentile=arithmetic.percentile(score, by.scores),
        p_value=arithmetic.conformal_p(score, by.scores),
        pixel_tail=found.pixel_tail,
        remarks=tuple(remark for remark in (by.remark, ageing(found, today)) if remark),
    )


def _yardstick(found: CalibrationFile, threshold: float, origin: Origin) -> _Yardstick:
    """Choose the study's own bin if that alone can promise the rate, else all studies together, and say so."""
    if not found.bins:
        return _Yardstick(found.scores, threshold)
    own = next((one for one in found.bins if one.origin == origin), None)
    if own is not None and own.threshold is not None:
        return _Yardstick(own.scores, own.threshold, words(origin))
    count = f"{len(own.scores)} of them are" if own is not None else "none of them is"
    return _Yardstick(found.scores, threshold, remark=f"judged by the calibration studies of all scanners together: {count} of this scanner and body region")


def _why_not(found: CalibrationFile | None, synthetic: bool, today: date) -> str:
    """The reason why a calibration does not apply, "" where it does."""
    if found is None:
        return "the bundle has no calibration"
    if found.population is not (Population.SYNTHETIC if synthetic else Population.SITE):
        return f"the bundle was calibrated on {found.population} studies, which says nothing about {'synthetic' if synthetic else 'patient'} studies"
    if found.threshold is None:
        return (
            f"{found.studies} calibration studies cannot promise a false-positive rate of {found.alpha:g}, at least "
            f"{arithmetic.studies_needed(found.alpha, found.confidence)} are needed"
        )
    return ageing(found, today) if age(found, today) > STOP_AFTER_DAYS else ""


def age(found: CalibrationFile, today: date) -> int:
    """Return the days since the newest study; a calibration that is not of a site does not age: 0."""
    return 0 if found.population is not Population.SITE else (today - (found.newest_study or found.made_on)).days


def ageing(found: CalibrationFile, today: date) -> str:
    """Say that a calibration will soon be too old, or is; "" while it is young."""
    days = age(found, today)
    if days > STOP_AFTER_DAYS:
        return f"the newest calibration study is {days} days old, more than {STOP_AFTER_DAYS}: calibrate again"
    return f"the newest calibration study is {days} days old: calibrate again before day {STOP_AFTER_DAYS}" if days >= WARN_AFTER_DAYS else ""


def lifetime(found: CalibrationFile) -> str:
    """Say until when a calibration gives verdicts; "" where it does not age."""
    if found.population is not Population.SITE:
        return ""
    newest = found.newest_study or found.made_on
    return f"newest study of {newest}: warns from {newest + timedelta(WARN_AFTER_DAYS)}, gives no verdicts after {newest + timedelta(STOP_AFTER_DAYS)}"
