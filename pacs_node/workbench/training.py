"""``pacs-node train`` and ``pacs-node calibrate``: from studies, or phantoms, to a bundle that the node can load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.manifest import CALIBRATION, WEIGHTS, Manifest, read_manifest, sha256
from pacs_node.analysis.pipeline import prepare, read_series
from pacs_node.analysis.statement import CalibrationFile
from pacs_node.autoencoder import calibration as arithmetic
from pacs_node.autoencoder import scoring
from pacs_node.autoencoder.baselines import fit_baselines
from pacs_node.autoencoder.fitting import History, Slices, Step, fit
from pacs_node.autoencoder.network import Network, with_neighbours
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.records import Population
from pacs_node.workbench import material
from pacs_node.workbench.material import Report

CHECKPOINT = "training.part"
LEAST_STUDIES = 8
LEAST_HELD_OUT = 2
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run did: studies used for the weights and held out, those refused with the reason, and the loss."""

    studies: int
    held_out: int
    refused: tuple[str, ...]
    history: History


def train(bundle_dir: Path, data: Sequence[Path] = (), labels: Path | None = None, report: Report = lambda what, fraction: None) -> Trained:
    """Train the bundle in ``bundle_dir`` by the recipe in its ``model.yaml``.

    ``data`` are folders of normal DICOM studies; without any, the recipe's own ``data`` and ``phantoms`` are used. Interrupted runs
    resume when the same command is given again. Writes weights and baselines and records their SHA-256; the same data, recipe and number
    of threads give the same weights. Raises `BundleError` or `InputError` in one sentence.
    """
    manifest = read_manifest(bundle_dir)
    train_on, held_out, refused = _studies(bundle_dir, manifest, data, labels, report)
    torch.manual_seed(manifest.recipe.seed)
    network = Network(manifest.architecture)
    checkpoint = bundle_dir / CHECKPOINT
    history = fit(
        network,
        _slices(train_on, manifest),
        _slices(held_out, manifest),
        manifest.recipe.schedule,
        checkpoint=checkpoint,
        progress=lambda step: report(_told(step), step.done / step.total),
    )
    report("measuring what is usual", 0.0)
    normals = fit_normals(network, [one.x for one in train_on], held_out, manifest.scoring.fusion, manifest.scoring.bins)
    baselines = fit_baselines([(one.x, one.foreground) for one in train_on])
    report("measuring what is usual", 1.0)
    bundles.save(bundle_dir, network, normals, baselines)
    checkpoint.unlink(missing_ok=True)
    return Trained(len(train_on), len(held_out), tuple(refused), history)


def _told(step: Step) -> str:
    return f"training: epoch {step.epoch + 1}, loss {step.loss:.4f}, held out {step.held_out:.4f}"


def _studies(bundle_dir: Path, manifest: Manifest, data: Sequence[Path], labels: Path | None, report: Report) -> tuple[list[Example], list[Example], list[str]]:
    """Studies to train on, studies held out, and what was refused."""
    recipe = manifest.recipe
    folders = list(data) or [bundle_dir / folder for folder in recipe.data]
    train_on: list[Example] = []
    held_out: list[Example] = []
    refused: list[str] = []
    if folders:
        pairs, refused = material.usable(material.series_in(folders, manifest.modality, labels), manifest, report)
        aside = material.held_out_patients([series.patient for series, _ in pairs], recipe.seed, recipe.held_out_share)
        for series, example in pairs:
            (held_out if series.patient in aside else train_on).append(example)
    if not data and recipe.phantoms is not None:
        train_on += material.phantoms(recipe.phantoms, manifest, "train", recipe.phantoms.train, report)
        held_out += material.phantoms(recipe.phantoms, manifest, "held out", recipe.phantoms.held_out, report)
    _enough(train_on, held_out, folders, refused)
    return train_on, held_out, refused


def _enough(train_on: list[Example], held_out: list[Example], folders: Sequence[Path], refused: Sequence[str]) -> None:
    where = ", ".join(str(folder) for folder in folders) or "the recipe"
    usable = len(train_on) + len(held_out)
    if usable < LEAST_STUDIES or not train_on or len(held_out) < LEAST_HELD_OUT:
        first = f" (the first refused: {refused[0]})" if refused else ""
        raise InputError(
            f"{where} gives {usable} usable studies, training needs at least {LEAST_STUDIES}, of three patients or more: add studies labelled normal{first}"
        )


def _slices(examples: Sequence[Example], manifest: Manifest) -> Slices:
    """Stack studies for the training loop; half precision keeps a site's hundreds of studies in memory."""
    inputs = manifest.architecture.inputs
    return Slices(torch.cat([with_neighbours(one.x, inputs).half() for one in examples]), torch.cat([one.foreground for one in examples]))


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
