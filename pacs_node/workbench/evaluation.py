"""``pacs-node evaluate``: how well a bundle finds planted lesions, beside the baselines it has to beat.

The phantoms come from seeds that neither training nor calibration saw; the four families of lesions are none of the training's
corruptions. The numbers describe phantoms and are no clinical evidence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.manifest import WEIGHTS, sha256
from pacs_node.autoencoder import scoring
from pacs_node.autoencoder.baselines import BASELINES, baseline_score
from pacs_node.errors import InputError
from pacs_node.phantoms import LESIONS
from pacs_node.workbench import material, metrics
from pacs_node.workbench.map_metrics import is_hit
from pacs_node.workbench.material import Planted, Report

FAMILIES = tuple(LESIONS)
CONTRASTS = (1.5, 3.0)
SIZES = (0.015, 0.05)
SET = "held-out phantoms"

Heat = Callable[[Planted], NDArray[np.float32]]


@dataclass
class _Row:
    """One detector's results: a study score for each case, and by the case's number the pixel AP and whether the hottest place is a lesion's."""

    scores: list[float] = field(default_factory=list)
    pixel_ap: dict[int, float] = field(default_factory=dict)
    hit: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One phantom of the evaluation set; ``family`` is None for one without a lesion."""

    seed: int
    family: str | None = None
    contrast: float = 3.0
    size: float = 0.05


def cases(normal: int, rounds: int) -> list[Case]:
    """Return ``normal`` phantoms without a lesion, and ``rounds`` of every family, contrast and size; no seed is used twice."""
    first = material.SEEDS["evaluate"]
    planted = [(family, contrast, size) for _ in range(rounds) for family, contrast, size in product(FAMILIES, CONTRASTS, SIZES)]
    return [Case(first + index) for index in range(normal)] + [Case(first + normal + index, *what) for index, what in enumerate(planted)]


def evaluate(
    bundle_dir: Path, json_file: Path | None = None, *, normal: int = 40, rounds: int = 3, report: Report = lambda what, fraction: None
) -> dict[str, Any]:
    """Evaluate the bundle on ``normal`` phantoms without and 16 × ``rounds`` with a lesion; returns, and writes, the table.

    The table holds ``set``, ``n``, ``score`` and ``baselines`` (name to auroc, ci95, pixel AP) and ``families``. Raises `InputError`
    where the bundle's recipe names no phantoms.
    """
    bundle = bundles.load(bundle_dir)
    wanted = cases(normal, rounds)
    rows: dict[str, _Row] = {name: _Row() for name in ("study", *scoring.STUDY_PARTS, *BASELINES)}
    flagged = []
    for done, case in enumerate(wanted, start=1):
        planted = make(bundle, case)
        scores = judged(bundle, planted)
        flagged.append(bundle.calibration is not None and bundle.calibration.threshold is not None and scores.study > bundle.calibration.threshold)
        _add(rows, bundle, planted, scores)
        report("evaluating on phantoms", done / len(wanted))
    result = _table(bundle, wanted, rows, flagged)
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def make(bundle: Bundle, case: Case) -> Planted:
    """Make and prepare the phantom of one case."""
    part = bundle.manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the recipe of {bundle.folder} names no phantoms: add `phantoms` to its recipe, they are what it is evaluated on")
    what = {} if case.family is None else {"lesion": case.family, "contrast": case.contrast, "size": case.size}
    return material.phantom(part, bundle.manifest, case.seed, **what)


def judged(bundle: Bundle, planted: Planted) -> scoring.Scores:
    """Score one prepared phantom as the node would."""
    prepared = planted.prepared
    foreground = torch.from_numpy(prepared.foreground)
    return scoring.judge(prepared.x, scoring.look(bundle.network, prepared.x), foreground, bundle.normals, bundle.manifest.scoring.fusion, prepared.stratum)


def _add(rows: dict[str, _Row], bundle: Bundle, planted: Planted, scores: scoring.Scores) -> None:
    for name, value in (("study", scores.study), *scores.parts.items()):
        rows[name].scores.append(value)
    _add_pixels(rows["study"], scores.z, planted)
    x, foreground = planted.prepared.x, torch.from_numpy(planted.prepared.foreground)
    for name, heat_of in BASELINES.items():
        heat = heat_of(x, foreground, bundle.baselines)
        rows[name].scores.append(baseline_score(heat, foreground, bundle.manifest.scoring.top))
        _add_pixels(rows[name], heat, planted)


def _add_pixels(row: _Row, heat: Tensor, planted: Planted) -> None:
    """Judge a map on the slices that hold the lesion, within the body."""
    lesion, inside = planted.lesion & planted.prepared.foreground, planted.prepared.foreground
    if not lesion.any():
        return
    values, case = heat.numpy(), len(row.scores) - 1
    held = lesion.any((1, 2))
    row.pixel_ap[case] = metrics.average_precision(values[held][inside[held]], lesion[held][inside[held]])
    row.hit[case] = is_hit(values, lesion)


def _table(bundle: Bundle, wanted: list[Case], rows: dict[str, _Row], flagged: list[bool]) -> dict[str, Any]:
    truth = [case.family is not None for case in wanted]
    measured = {name: _measured(row, truth) for name, row in rows.items()}
    normal = [flag for flag, positive in zip(flagged, truth, strict=True) if not positive]
    return {
        "bundle": bundle.name,
        "version": bundle.manifest.version,
        "weights_sha256": sha256(bundle.folder / WEIGHTS),
        "set": SET,
        "n": len(wanted),
        "lesions": sum(truth),
        "score": {name: row for name, row in measured.items() if name not in BASELINES},
        "baselines": {name: measured[name] for name in BASELINES},
        "families": {family: _family(family, wanted, rows) for family in FAMILIES},
        "false_positive_rate": float(np.mean(normal)) if bundle.calibration is not None else None,
    }


def _measured(row: _Row, truth: list[bool]) -> dict[str, Any]:
    result: dict[str, Any] = {"auroc": metrics.auroc(row.scores, truth), "ci95": list(metrics.auroc_interval(row.scores, truth))}
    result["ap"] = metrics.average_precision(np.asarray(row.scores, dtype=np.float32), np.asarray(truth))
    if row.pixel_ap:
        mean, low, high = metrics.mean_interval(list(row.pixel_ap.values()))
        result |= {"pixel_ap": mean, "pixel_ap_ci95": [low, high], "hottest_place_in_lesion": float(np.mean(list(row.hit.values())))}
    return result


def _family(family: str, wanted: list[Case], rows: dict[str, _Row]) -> dict[str, Any]:
    """Results of one family against all phantoms without a lesion."""
    chosen = [index for index, case in enumerate(wanted) if case.family in (None, family)]
    truth = [wanted[index].family is not None for index in chosen]
    lesions = [index for index in chosen if wanted[index].family is not None and index in rows["study"].hit]
    result: dict[str, Any] = {}
    for name in ("study", *BASELINES):
        row = rows[name]
        result[name] = {
            "auroc": metrics.auroc([row.scores[index] for index in chosen], truth),
            "pixel_ap": float(np.mean([row.pixel_ap[index] for index in lesions])),
            "hottest_place_in_lesion": float(np.mean([row.hit[index] for index in lesions])),
        }
    return result
