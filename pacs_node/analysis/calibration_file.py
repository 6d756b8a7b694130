"""``calibration.json``: the scores of normal studies, and what follows from them. Read by processes that load no model, so nothing heavy is imported here.

::

    scores ──► threshold          of all studies together
    bins   ──► threshold each     of one region and scanner, where there are enough; the others are judged by all together
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pacs_node.analysis.installed import CALIBRATION
from pacs_node.analysis.origin import words
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.errors import BundleError
from pacs_node.records import Origin, Population

UNUSUAL = 0.2  # share of routine studies that may truly be unusual, where nothing else is said
TAIL_LEVELS = round(arithmetic.TAIL_END / arithmetic.TAIL_STEP) + 1


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Bin(_Part):
    """The studies of one region and scanner: their scores in ascending order, ``threshold`` None where they alone cannot promise ``alpha``."""

    region: str
    manufacturer: str
    model: str
    station: str
    threshold: float | None
    scores: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _in_order(self) -> Bin:
        if list(self.scores) != sorted(self.scores):
            raise ValueError("scores of a bin must be in ascending order")
        return self

    @property
    def origin(self) -> Origin:
        """Whose studies these are."""
        return Origin(self.region, self.manufacturer, self.model, self.station)


class NamedScore(_Part):
    """A calibration study by its Study Instance UID (a phantom by its seed), for a person to look at."""

    study: str
    score: float


class CalibrationFile(_Part):
    """The content of ``calibration.json``.

    ``scores`` are the study scores in ascending order; ``threshold`` is None where they are too few for ``alpha``; ``pixel_tail`` the z
    values at -log10 p = 0, 0.1 … 4; ``newest_study`` the date of the latest study (site only); ``weights_sha256`` the weights judged with.
    Each patient counts once: ``repeats`` studies were left out for that. ``bins`` tell scanners apart, none where they were not told apart.
    ``largest`` are the largest scores; the first ``suspects`` of them are larger than the others suggest. ``unusual`` is the share of routine
    studies that may truly be unusual: drift is said only beyond it.
    """

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
    repeats: int = Field(default=0, ge=0)
    bins: tuple[Bin, ...] = ()
    largest: tuple[NamedScore, ...] = ()
    suspects: int = Field(default=0, ge=0)
    unusual: float = Field(default=UNUSUAL, ge=0, lt=1)

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


def described(found: CalibrationFile) -> tuple[str, ...]:
    """Tell people what else a calibration rests on, and what in it to look at: sentences for the command, `check` and the card."""
    return tuple(line for line in (_repeats(found), _scanners(found), _look_at(found)) if line)


def _repeats(found: CalibrationFile) -> str:
    return f"one study a patient: {found.repeats} further studies of the same patients were left out" if found.repeats else ""


def _scanners(found: CalibrationFile) -> str:
    if not found.bins:
        return ""
    alone = [f"{words(one.origin)} ({len(one.scores)} studies, threshold {one.threshold:.3f})" for one in found.bins if one.threshold is not None]
    few = [f"{words(one.origin)} ({len(one.scores)})" for one in found.bins if one.threshold is None]
    parts = [f"judged by their own studies: {'; '.join(alone)}"] if alone else []
    return "; ".join([*parts, f"judged by all studies together, as these are too few alone: {'; '.join(few)}"] if few else parts)


def _look_at(found: CalibrationFile) -> str:
    """Name the studies that may not belong; none is left out, a person has to say so."""
    if not found.largest:
        return ""
    named = ", ".join(f"{one.study} ({one.score:.3f})" for one in found.largest[: found.suspects or None])
    if not found.suspects:
        return f"no score is larger than the others suggest; the largest: {named}"
    verb = "score is" if found.suspects == 1 else "scores are"
    return f"SUSPECT: {found.suspects} {verb} larger than the others suggest; look at them, and calibrate again without those that are not normal: {named}"
