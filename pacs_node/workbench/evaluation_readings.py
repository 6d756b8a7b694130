"""The numbers of one study in an evaluation, and a file that keeps them over an interruption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

import pacs_node
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.pipeline import Prepared
from pacs_node.autoencoder import calibration, scoring
from pacs_node.autoencoder.baselines import judge_baselines
from pacs_node.workbench import map_metrics, metrics
from pacs_node.workbench.evaluation_sets import EvaluationSet, Sample, Subject

STUDY = "study"
KEPT = "evaluation.part"
_TAIL = 3.0  # −log10 of the share of healthy pixels at which the calibrated map is cut for its Dice
_JUDGING = ("autoencoder", "analysis", "phantoms", *(f"workbench/{name}*" for name in ("evaluation_readings", "map_metrics", "material", "planting")))


class MapReading(BaseModel):
    """How well one map shows the marked place: pixel AP on the slices that hold it, whether the hottest place is in it, Dice of the series.

    ``dice``: at each of `map_metrics.THRESHOLDS`; ``dice_calibrated``: where one in a thousand healthy pixels is above, None without a calibration.
    """

    model_config = ConfigDict(frozen=True)

    pixel_ap: float
    hit: bool
    dice: tuple[float, ...]
    dice_calibrated: float | None = None


class Reading(BaseModel):
    """The numbers of one study: ``scores`` by name (study, parts, baselines), ``maps`` where a mask is known.

    ``p_value`` and ``flagged`` by the bundle's calibration, None without; ``brightness`` the mean of the network's input in the foreground;
    ``error`` and ``similarity`` of the reconstruction; ``embedding`` the mean over the slices.
    """

    model_config = ConfigDict(frozen=True)

    subject: Subject
    scores: dict[str, float]
    maps: dict[str, MapReading]
    p_value: float | None
    flagged: bool | None
    brightness: float
    error: float
    similarity: float
    embedding: tuple[float, ...]


def judge(bundle: Bundle, prepared: Prepared) -> tuple[scoring.Seen, scoring.Scores]:
    """Look at a prepared study and score it as the node would."""
    return bundle.judge(prepared.x, torch.from_numpy(prepared.foreground), prepared.stratum)


def read(bundle: Bundle, subject: Subject, sample: Sample) -> Reading:
    """Judge one study and measure everything that the tables need."""
    prepared = sample.prepared
    seen, scores = judge(bundle, prepared)
    named, heats = {STUDY: scores.study, **scores.parts}, {STUDY: scores.z}
    for name, (value, heat) in _baselines(bundle, prepared).items():
        named[name], heats[name] = value, heat
    found, x, mean = bundle.calibration, prepared.x.numpy(), seen.mean.numpy()
    threshold = None if found is None else found.threshold
    return Reading(
        subject=subject,
        scores={name: round(float(value), 6) for name, value in named.items()},
        maps=_maps(bundle, sample, heats),
        p_value=None if found is None else calibration.conformal_p(scores.study, found.scores),
        flagged=None if threshold is None else scores.study > threshold,
        brightness=float(x[prepared.foreground].mean()),
        error=map_metrics.root_mean_square(x, mean, prepared.foreground),
        similarity=map_metrics.similarity(x, mean, prepared.foreground),
        embedding=tuple(round(float(value), 4) for value in seen.embedding.float().mean(0)),
    )


def _baselines(bundle: Bundle, prepared: Prepared) -> dict[str, tuple[float, Tensor]]:
    """Score and map of every baseline."""
    foreground = torch.from_numpy(prepared.foreground)
    return judge_baselines(prepared.x, foreground, bundle.baselines, bundle.manifest.scoring.top)


def _maps(bundle: Bundle, sample: Sample, heats: dict[str, Tensor]) -> dict[str, MapReading]:
    if sample.mask is None or not (sample.mask & sample.prepared.foreground).any():
        return {}
    tail = None if bundle.calibration is None else bundle.calibration.pixel_tail
    return {name: _map(heat.numpy(), sample.mask, sample.prepared.foreground, tail if name == STUDY else None) for name, heat in heats.items()}


def _map(heat: NDArray[np.float32], mask: NDArray[np.bool_], inside: NDArray[np.bool_], tail: tuple[float, ...] | None) -> MapReading:
    lesion = mask & inside
    held = lesion.any((1, 2))
    marked = None if tail is None else (calibration.tail(heat, tail) >= _TAIL) & inside
    return MapReading(
        pixel_ap=metrics.average_precision(heat[held][inside[held]], lesion[held][inside[held]]),
        hit=map_metrics.is_hit(heat, lesion),
        dice=tuple(round(float(value), 4) for value in map_metrics.dice_curve(heat, lesion, inside)),
        dice_calibrated=None if marked is None else map_metrics.dice(marked, lesion),
    )


# --- kept over an interruption ---------------------------------------------------------------------------------------------


class Kept:
    """Finished readings, one JSON line each, in a file beside the bundle; a line counts for the very bundle, code and study that it was made with."""

    def __init__(self, bundle: Bundle) -> None:
        self._path = bundle.folder / KEPT
        self._print = fingerprint(bundle)
        self._found = dict(self._lines())

    def _lines(self) -> Iterator[tuple[str, Reading]]:
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                row = json.loads(line)
                if row["made_with"] == self._print:
                    yield row["key"], Reading.model_validate(row["reading"])
            except (ValueError, KeyError, ValidationError):
                continue  # the line that an interruption cut off

    def get(self, known: EvaluationSet, subject: Subject) -> Reading | None:
        """Return the reading of a subject of a set, None where it is not there."""
        return self._found.get(_key(known, subject))

    def add(self, known: EvaluationSet, reading: Reading) -> None:
        """Keep a reading; a folder that cannot be written keeps nothing, which costs time only."""
        key = _key(known, reading.subject)
        self._found[key] = reading
        line = {"made_with": self._print, "key": key, "reading": reading.model_dump()}
        try:
            with self._path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line) + "\n")
        except OSError:
            return

    def tidy(self) -> None:
        """Drop the lines of other weights, of other code, and those that were cut off."""
        rows = [{"made_with": self._print, "key": key, "reading": reading.model_dump()} for key, reading in self._found.items()]
        try:
            self._path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        except OSError:
            return


def _key(known: EvaluationSet, subject: Subject) -> str:
    return f"{known.name}: {subject.model_dump_json()}"


def fingerprint(bundle: Bundle) -> str:
    """Return a digest of everything that a reading depends on beside the study: the bundle, its calibration, and this version's code."""
    return hashlib.sha256("\n".join([bundle.algorithm.bundle_hash, bundle.algorithm.calibration_hash, _code()]).encode()).hexdigest()


@cache
def _code() -> str:
    root = Path(pacs_node.__file__).parent
    files = sorted({path for part in _JUDGING for path in _python(root, part)})
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _python(root: Path, part: str) -> Iterable[Path]:
    whole = root / part
    return whole.rglob("*.py") if whole.is_dir() else [path for one in root.glob(part) for path in (one.rglob("*.py") if one.is_dir() else [one])]
