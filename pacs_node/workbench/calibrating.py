"""``pacs-node calibrate``: from normal studies that the bundle was not trained on to ``calibration.json``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.manifest import CALIBRATION, WEIGHTS, Manifest, sha256
from pacs_node.analysis.pipeline import prepare, read_series
from pacs_node.analysis.statement import CalibrationFile
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.autoencoder import scoring
from pacs_node.autoencoder.normals import Example
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.records import Population
from pacs_node.workbench import material
from pacs_node.workbench.material import Report

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a calibration run did."""

    studies: int
    refused: tuple[str, ...]
    threshold: float | None
    needed: int


def calibrate(
    bundle_dir: Path, data: Sequence[Path], population: Population, *, today: date, alpha: float = ALPHA, report: Report = lambda what, fraction: None
) -> Calibrated:
    """Score normal studies and write ``calibration.json``.

    ``data`` are folders of studies that the bundle was not trained on; for ``synthetic`` they may be left out: the recipe's phantoms are
    made from seeds of their own. Raises `InputError` where the studies do not belong to ``population`` or none is usable.
    """
    bundle = bundles.load(_without_calibration(bundle_dir))
    examples, newest, refused = _calibration_studies(bundle.manifest, data, population, report)
    tail = arithmetic.PixelTail()
    scores = []
    for done, one in enumerate(examples, start=1):
        judged = scoring.judge(one.x, scoring.look(bundle.network, one.x), one.foreground, bundle.normals, bundle.manifest.scoring.fusion, one.stratum)
        tail.add(judged.z[one.foreground].numpy())
        scores.append(round(judged.study, 6))
        report("scoring studies", done / len(examples))
    found = CalibrationFile(
        population=population,
        studies=len(scores),
        alpha=alpha,
        confidence=arithmetic.CONFIDENCE,
        threshold=arithmetic.threshold(scores, alpha),
        made_on=today,
        newest_study=newest,
        weights_sha256=sha256(bundle_dir / WEIGHTS),
        scores=tuple(sorted(scores)),
        pixel_tail=_table(tail, bundle_dir),
    )
    (bundle_dir / CALIBRATION).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return Calibrated(len(scores), tuple(refused), found.threshold, arithmetic.studies_needed(alpha))


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


def _calibration_studies(manifest: Manifest, data: Sequence[Path], population: Population, report: Report) -> tuple[list[Example], date | None, list[str]]:
    if not data:
        part = manifest.recipe.phantoms
        if population is not Population.SYNTHETIC or part is None:
            raise InputError(f"a calibration on {population} studies needs --data: give folders of normal studies that the bundle was not trained on")
        return list(material.phantoms(part, manifest, "calibrate", part.calibrate, report)), None, []
    kept, refused = [], []
    series = material.series_in(data, manifest.modality)
    for done, one in enumerate(series, start=1):
        try:
            volume = read_series(one.files, manifest)
            if volume.synthetic != (population is Population.SYNTHETIC):
                kind = "synthetic" if volume.synthetic else "a patient's"
                raise InputError(f"the series {one.series_uid} is {kind} and cannot be part of a {population} calibration: sort the folders by population")
            kept.append((one, material.example(prepare(volume, manifest))))
        except NotAnalysable as reason:
            refused.append(f"{one.series_uid}: {reason}")
        report("reading studies", done / len(series))
    if not kept:
        raise InputError(f"none of the {len(series)} studies given is within the bundle's scope: {refused[0]}")
    dates = [one.study_date for one, _ in kept if one.study_date is not None]
    return [example for _, example in kept], max(dates) if dates and population is Population.SITE else None, refused
