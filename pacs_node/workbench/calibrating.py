"""``pacs-node calibrate``: from normal studies that the bundle was not trained on to ``calibration.json``.

The promise of a threshold holds for units that are exchangeable: each patient counts once, whatever the number of studies.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.calibration_file import UNUSUAL, Bin, CalibrationFile, NamedScore, described
from pacs_node.analysis.manifest import CALIBRATION, WEIGHTS, Manifest, sha256
from pacs_node.analysis.origin import is_known
from pacs_node.analysis.pipeline import prepare, refuse_unfamiliar
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.autoencoder.normals import Example
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.records import Origin, Population, Volume
from pacs_node.workbench import material
from pacs_node.workbench.material import DICOM, Report, SeriesFiles

ALPHA = 0.05
LARGEST = 5  # scores that are always named, so that a person can look


@dataclass(frozen=True, slots=True)
class Promise:
    """What a calibration is to say: the false-positive rate ``alpha``, and which share of routine studies may truly be ``unusual``."""

    alpha: float = ALPHA
    unusual: float = UNUSUAL


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration run did: the file that it wrote, the series refused with the reason, and the studies needed for the promise.

    ``nameless``: studies that name no patient, each counted as one of its own.
    """

    found: CalibrationFile
    refused: tuple[str, ...]
    needed: int
    nameless: int

    @property
    def studies(self) -> int:
        """How many studies count."""
        return self.found.studies

    @property
    def threshold(self) -> float | None:
        """The score above which a study is flagged, None with too few studies."""
        return self.found.threshold


@dataclass(frozen=True, slots=True)
class Scored:
    """One study that counts: its score, its name for people, the scanner and the day that it comes from."""

    score: float
    name: str
    origin: Origin
    made: date | None = None


@dataclass
class _Tally:
    """What is found on the way: refused series with the reason, further studies of patients that count already, studies that name none."""

    refused: list[str] = field(default_factory=list)
    repeats: int = 0
    nameless: int = 0


def calibrate(
    bundle_dir: Path,
    data: Sequence[Path],
    population: Population,
    *,
    labels: Path | None = None,
    today: date,
    promise: Promise = Promise(),
    report: Report = lambda what, fraction: None,
) -> Calibrated:
    """Score normal studies and write ``calibration.json``.

    ``data`` are folders of studies that the bundle was not trained on; for ``synthetic`` they may be left out: the recipe's phantoms are
    made from seeds of their own. With ``labels`` only what they list as normal counts. Raises `InputError` where the
    studies do not belong to ``population`` or none is usable.
    """
    bundle = bundles.load(_without_calibration(bundle_dir))
    tail, tally = arithmetic.PixelTail(), _Tally()
    scored = list(_scored(bundle, _series(bundle, data, labels), population, tail, tally, report))
    if not scored:
        raise InputError(f"none of the {len(tally.refused)} studies given is within the bundle's scope: {tally.refused[0]}")
    scores = sorted(one.score for one in scored)
    largest = sorted(scored, key=lambda one: -one.score)
    suspects = sum(score > arithmetic.suspect_beyond(scores) for score in scores)
    dates = [one.made for one in scored if one.made is not None]
    found = CalibrationFile(
        population=population,
        studies=len(scores),
        alpha=promise.alpha,
        confidence=arithmetic.CONFIDENCE,
        threshold=arithmetic.threshold(scores, promise.alpha),
        made_on=today,
        newest_study=max(dates) if dates and population is Population.SITE else None,
        weights_sha256=sha256(bundle_dir / WEIGHTS),
        scores=tuple(scores),
        pixel_tail=_table(tail, bundle_dir),
        repeats=tally.repeats,
        bins=bins_of(scored, promise.alpha),
        largest=tuple(NamedScore(study=one.name, score=one.score) for one in largest[: max(LARGEST, suspects)]),
        suspects=suspects,
        unusual=promise.unusual,
    )
    (bundle_dir / CALIBRATION).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Calibrated(found, tuple(tally.refused), arithmetic.studies_needed(promise.alpha), tally.nameless)


def told(done: Calibrated) -> tuple[str, ...]:
    """Say what a person should know of a calibration beside its threshold."""
    nameless = f"{done.nameless} studies name no patient and count each; where they are of fewer patients, the promise is weaker than it says"
    return (*((nameless,) if done.nameless else ()), *described(done.found))


def bins_of(scored: Sequence[Scored], alpha: float) -> tuple[Bin, ...]:
    """Return the studies by region and scanner; those whose header names no scanner are in no bin."""
    groups: dict[Origin, list[float]] = {}
    for one in scored:
        if is_known(one.origin):
            groups.setdefault(one.origin, []).append(one.score)
    return tuple(
        Bin(
            region=origin.region,
            manufacturer=origin.manufacturer,
            model=origin.model,
            station=origin.station,
            threshold=arithmetic.threshold(scores, alpha),
            scores=tuple(sorted(scores)),
        )
        for origin, scores in sorted(groups.items(), key=lambda group: -len(group[1]))
    )


def _without_calibration(bundle_dir: Path) -> Path:
    """A calibration of former weights must not keep a bundle from being calibrated anew."""
    if bundles.read_calibration_hash(bundle_dir) not in (None, sha256(bundle_dir / WEIGHTS) if (bundle_dir / WEIGHTS).is_file() else None):
        (bundle_dir / CALIBRATION).unlink()
    return bundle_dir


def _table(tail: arithmetic.PixelTail, bundle_dir: Path) -> tuple[float, ...]:
    try:
        return tuple(round(value, 6) for value in tail.table())
    except ValueError as error:
        raise InputError(f"the bundle {bundle_dir} cannot be calibrated: {error}") from error


# --- the studies -----------------------------------------------------------------------------------------------------------


def _series(bundle: Bundle, data: Sequence[Path], labels: Path | None) -> list[SeriesFiles]:
    if labels is not None and not data:
        raise InputError(f"the labels {labels} need --data: give the folders that hold the files listed")
    return material.series_in(data, bundle.manifest.modality, labels) if data else []


def _scored(
    bundle: Bundle, series: Sequence[SeriesFiles], population: Population, tail: arithmetic.PixelTail, tally: _Tally, report: Report
) -> Iterator[Scored]:
    """Score one study after the other: a site's hundreds need not be in memory at once."""
    if series:
        patients = patients_of(series, tally)
        for done, studies in enumerate(patients, start=1):
            one = _first_usable(bundle, studies, population, tail, tally)
            if one is not None:
                yield one
            report("scoring studies", done / len(patients))
        return
    part = bundle.manifest.recipe.phantoms
    if population is not Population.SYNTHETIC or part is None:
        raise InputError(f"a calibration on {population} studies needs --data: give folders of normal studies that the bundle was not trained on")
    for index, example in enumerate(material.phantoms(part, bundle.manifest, "calibrate", part.calibrate, report)):
        yield Scored(_score(bundle, example, tail), f"phantom of seed {material.SEEDS['calibrate'] + index}", Origin())


def patients_of(series: Sequence[SeriesFiles], tally: _Tally) -> list[list[SeriesFiles]]:
    """Group studies by patient, those of one patient in an order that depends on nothing but their UIDs.

    The first usable one counts: neither the oldest nor the newest, which may be unlike the others. Studies that name no patient count each.
    """
    groups: dict[str, list[SeriesFiles]] = {}
    for one in series:
        named = bool(one.patient.partition("/")[2])
        tally.nameless += not named
        groups.setdefault(one.patient if named else f"study {one.study_uid}", []).append(one)
    return [sorted(group, key=lambda one: hashlib.sha256(one.study_uid.encode()).digest()) for group in groups.values()]


def _first_usable(bundle: Bundle, series: Sequence[SeriesFiles], population: Population, tail: arithmetic.PixelTail, tally: _Tally) -> Scored | None:
    for index, one in enumerate(series):
        try:
            volume = _volume(one, bundle.manifest, population)
            prepared = prepare(volume, bundle.manifest)
            refuse_unfamiliar(prepared, bundle)
            example = material.example(prepared)
        except NotAnalysable as reason:
            tally.refused.append(f"{one.series_uid}: {reason}")
            continue
        tally.repeats += len(series) - index - 1
        return Scored(_score(bundle, example, tail), one.study_uid, volume.origin, one.study_date)
    return None


def _volume(series: SeriesFiles, manifest: Manifest, population: Population) -> Volume:
    if population is Population.SITE and series.kind != DICOM:
        raise InputError(f"{series.files[0]} is no DICOM object and cannot be part of a site calibration, which gives verdicts on those: use foreign")
    volume = material.volume_of(series, manifest)
    if volume.synthetic != (population is Population.SYNTHETIC):
        kind = "synthetic" if volume.synthetic else "a patient's"
        raise InputError(f"the series {series.series_uid} is {kind} and cannot be part of a {population} calibration: sort the folders by population")
    return volume


def _score(bundle: Bundle, one: Example, tail: arithmetic.PixelTail) -> float:
    """Score one study as the node would, and count its pixels."""
    _, judged = bundle.judge(one.x, one.foreground, one.stratum)
    tail.add(judged.z[one.foreground].numpy())
    return math.ceil(judged.study * 1e6) / 1e6  # never below the score itself: the same study seen again must not be above its own
