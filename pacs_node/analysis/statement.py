"""``calibration.json`` and the only place where a score becomes a verdict.

Percentile, p-value and verdict are given by a calibration on the studies that the verdict is about: ``site`` for patients,
``synthetic`` for synthetic studies. Everything else is *uncalibrated*, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pacs_node.analysis.manifest import CALIBRATION
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.errors import BundleError
from pacs_node.records import Calibration, Population, Verdict

TAIL_LEVELS = round(arithmetic.TAIL_END / arithmetic.TAIL_STEP) + 1
WARN_AFTER_DAYS = 60
STOP_AFTER_DAYS = 90


class CalibrationFile(BaseModel):
    """The content of ``calibration.json``.

    ``scores`` are the study scores in ascending order; ``threshold`` is None where they are too few for ``alpha``; ``pixel_tail`` the z
    values at -log10 p = 0, 0.1 … 4; ``newest_study`` the date of the latest study (site only); ``weights_sha256`` the weights judged with.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    population: Population
    studies: int = Field(ge=1)
    alpha: float = Field(gt=0, lt=1)
    confidence: float = Field(gt=0, lt=1)
    threshold: float | None
    made_on: date
    newest_study: date | None = None
    weights_sha256: str
    scores: tuple[float, ...]
    pixel_tail: tuple[float, ...]

    @model_validator(mode="after")
    def _consistent(self) -> CalibrationFile:
        if len(self.scores) != self.studies or list(self.scores) != sorted(self.scores):
            raise ValueError("scores must hold one number a study, in ascending order")
        if len(self.pixel_tail) != TAIL_LEVELS or list(self.pixel_tail) != sorted(self.pixel_tail):
            raise ValueError(f"pixel_tail must hold {TAIL_LEVELS} rising numbers")
        return self


def read_calibration(folder: Path, weights_sha256: str) -> CalibrationFile | None:
    """Read a bundle's calibration, None where there is none; raises `BundleError` where it is damaged or of other weights."""
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    try:
        found = CalibrationFile.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        fault = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise BundleError(folder, f"{CALIBRATION} is damaged ({fault}): calibrate again with `pacs-node calibrate`, or remove it") from error
    if found.weights_sha256 != weights_sha256:
        raise BundleError(folder, f"{CALIBRATION} was made with other weights: calibrate again with `pacs-node calibrate`, or remove it")
    return found


@dataclass(frozen=True, slots=True)
class Statement:
    """What may be said about one study: everything None, and ``verdict`` uncalibrated, where no calibration applies."""

    verdict: Verdict
    calibration: Calibration | None = None
    percentile: float | None = None
    p_value: float | None = None
    pixel_tail: tuple[float, ...] | None = None
    remarks: tuple[str, ...] = ()


def state(score: float, found: CalibrationFile | None, *, synthetic: bool, today: date) -> Statement:
    """Say what ``score`` means for a study that is ``synthetic`` or a patient's, on the day ``today``."""
    reason = _why_not(found, synthetic, today)
    if found is None or found.threshold is None or reason:
        return Statement(Verdict.UNCALIBRATED, remarks=(f"uncalibrated: {reason}",))
    return Statement(
        verdict=Verdict.ABOVE if score > found.threshold else Verdict.NOT_ABOVE,
        calibration=Calibration(found.population, found.studies, found.threshold, found.alpha, found.made_on),
        percentile=arithmetic.percentile(score, found.scores),
        p_value=arithmetic.conformal_p(score, found.scores),
        pixel_tail=found.pixel_tail,
        remarks=_ageing(found, today),
    )


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
    if _age(found, today) > STOP_AFTER_DAYS:
        return f"the newest calibration study is {_age(found, today)} days old, more than {STOP_AFTER_DAYS}: calibrate again"
    return ""


def _age(found: CalibrationFile, today: date) -> int:
    """Days since the newest study; a synthetic calibration does not age."""
    return 0 if found.population is not Population.SITE else (today - (found.newest_study or found.made_on)).days


def _ageing(found: CalibrationFile, today: date) -> tuple[str, ...]:
    age = _age(found, today)
    return (f"the newest calibration study is {age} days old: calibrate again before day {STOP_AFTER_DAYS}",) if age >= WARN_AFTER_DAYS else ()
