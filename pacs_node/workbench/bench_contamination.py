"""`pacs-node bench contamination`: what becomes of promise and sensitivity when part of the *training* studies holds lesions that nobody has seen.

::

    the same phantoms ─┬─ as they are ─────────────────► trained ─┐
                       └─ a share with planted lesions ► trained ─┴─► the same calibration and held-out phantoms, and lesions: rate, sensitivity

The question is about a site's own studies: a detector leaves out what stands out (`autoencoder.trimming`) as it does by default, also where the recipe
of a shipped bundle, whose phantoms hold nothing unseen, says that there is nothing to leave out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.installed import MODEL
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.analysis.recipe import DetectorPart
from pacs_node.autoencoder import calibration
from pacs_node.autoencoder.normals import Example
from pacs_node.phantoms import LESIONS
from pacs_node.workbench import material, training
from pacs_node.workbench.bench_calibration import DRAWS, FIRST_SEED, KEPT, phantoms_of, recalibrate, score
from pacs_node.workbench.material import Report

ALPHA = 0.05
MOST_LOST = 10.0  # points of sensitivity
_SEEDS = {"train": FIRST_SEED + 100_000, "held out": FIRST_SEED + 200_000, "normal": FIRST_SEED + 300_000, "lesions": FIRST_SEED + 400_000}
_KINDS = tuple(product(LESIONS, (1.5, 3.0), (0.015, 0.05)))  # family, contrast in σ, size as a fraction of the body


@dataclass(frozen=True, slots=True)
class Trial:
    """How large the trial is: phantoms to train on, held out, without a lesion to judge (half of them calibrate), and with one; training epochs.

    ``left_out``: of usual pixels, that teach a detector nothing.
    """

    share: float = 0.2
    train: int = 40
    held_out: int = 12
    normal: int = 200
    lesions: int = 96
    epochs: int = 4
    left_out: float = DetectorPart().left_out


def bench_contamination(bundle_dir: Path, trial: Trial, work: Path, report: Report = lambda what, fraction: None) -> dict[str, Any]:
    """Train the bundle's recipe twice in ``work`` and compare; returns rates, sensitivities and what was lost, in points.

    The shipped weights are not touched. Raises `InputError` where the recipe names no phantoms.
    """
    manifest = read_manifest(bundle_dir)
    manifest = manifest.model_copy(update={"recipe": manifest.recipe.model_copy(update={"epochs": trial.epochs})})
    if manifest.detector is not None:
        manifest = manifest.model_copy(update={"detector": manifest.detector.model_copy(update={"left_out": trial.left_out})})
    judged = {}
    for name, share in (("clean", 0.0), ("contaminated", trial.share)):
        judged[name] = _judge(_train(bundle_dir, manifest, trial, share, work / name, report), trial, report)
    lost = 100 * (judged["clean"][1].astype(float) - judged["contaminated"][1])
    drawn = np.random.default_rng(0).choice(lost, (2000, len(lost))).mean(1)
    kept = all(rates["kept"] >= KEPT for rates, _ in judged.values())
    return {
        "bundle": manifest.name,
        "trial": {name: getattr(trial, name) for name in Trial.__slots__},
        **{name: rates for name, (rates, _) in judged.items()},
        "lost_points": float(lost.mean()),
        "lost_points_ci95": [float(value) for value in np.percentile(drawn, [2.5, 97.5])],
        "kept": kept and float(lost.mean()) <= MOST_LOST,
    }


def _train(bundle_dir: Path, manifest: Manifest, trial: Trial, share: float, folder: Path, report: Report) -> Bundle:
    folder.mkdir(parents=True)
    shutil.copy(bundle_dir / MODEL, folder / MODEL)
    train_on = _examples(bundle_dir, manifest, _SEEDS["train"], trial.train, share, report)
    held_out = _examples(bundle_dir, manifest, _SEEDS["held out"], trial.held_out, share, report)
    training.fit_bundle(folder, manifest, train_on, held_out, report)
    return bundles.load(folder)


def _examples(bundle_dir: Path, manifest: Manifest, first: int, count: int, share: float, report: Report) -> list[Example]:
    """Make phantoms, ``share`` of them, spread evenly, with a planted lesion."""
    part, made = phantoms_of(manifest, bundle_dir), []
    kinds = cycle(_KINDS)
    for index in range(count):
        ill = int((index + 1) * share) > int(index * share)
        made.append(material.example(material.phantom(part, manifest, first + index, **(_lesion(next(kinds)) if ill else {})).prepared))
        report("making phantoms to train on", (index + 1) / count)
    return made


def _lesion(kind: tuple[str, float, float]) -> dict[str, object]:
    family, contrast, size = kind
    return {"lesion": family, "contrast": contrast, "size": size}


def _judge(trained: Bundle, trial: Trial, report: Report) -> tuple[dict[str, Any], NDArray[np.bool_]]:
    """Return rate and promise among phantoms without a lesion, the sensitivity, and which of those with one are flagged."""
    healthy = np.asarray(list(_scores(trained, _SEEDS["normal"], [{}] * trial.normal, report)))
    ill = np.asarray(list(_scores(trained, _SEEDS["lesions"], [_lesion(kind) for kind in islice(cycle(_KINDS), trial.lesions)], report)))
    row = recalibrate(healthy, ALPHA, len(healthy) // 2)
    line = calibration.threshold(healthy.tolist(), ALPHA)
    assert line is not None  # half of them were enough
    flagged = ill > line
    rates = {"kept": row.kept, "draws": DRAWS, "median_rate": row.median_rate, "largest_rate": row.largest_rate}
    return rates | {"threshold": line, "sensitivity": float(flagged.mean())}, flagged


def _scores(trained: Bundle, first: int, what: Sequence[dict[str, object]], report: Report) -> Iterator[float]:
    part = phantoms_of(trained.manifest, trained.folder)
    for index, options in enumerate(what):
        yield score(trained, material.phantom(part, trained.manifest, first + index, **options))
        report("judging phantoms", (index + 1) / len(what))
