"""How far the scores of a bundle in bfloat16 lie from those in float32, on phantoms that it was neither trained nor calibrated on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pacs_node.analysis import pipeline
from pacs_node.analysis.agreement import AGREEMENT, Agreement
from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder import scoring
from pacs_node.errors import InputError, OutOfScope
from pacs_node.workbench import material

_APART = 500_000  # of the seeds of evaluation, so that what is tuned on this is not evaluated on
_LESION = {"lesion": "ellipsoid", "contrast": 1.5, "size": 0.02}  # every other study: scores below, about and above the threshold


def measure(bundle: Bundle, studies: int, device: str, *, faster: bool, report: material.Report = lambda what, fraction: None) -> Agreement:
    """Score ``studies`` phantoms in both precisions on ``device``.

    Raises `InputError` where the bundle has no phantoms or no threshold: then there is nothing to agree about.
    """
    part, calibration = bundle.manifest.recipe.phantoms, bundle.calibration
    if part is None or calibration is None or calibration.threshold is None:
        raise InputError(f"the bundle {bundle.name} has no phantoms or no threshold to measure agreement at: calibrate it first with `pacs-node calibrate`")
    shifts: list[float] = []
    for index in range(studies):
        try:
            made = material.phantom(part, bundle.manifest, material.SEEDS["evaluate"] + _APART + index, **(_LESION if index % 2 else {}))
        except OutOfScope:
            continue  # the gate refuses a few in a hundred
        whole, half = (_score(made.prepared, bundle, device, half=choice) for choice in (False, True))
        shifts.append(half - whole)
        report("scoring in both precisions", (index + 1) / studies)
    moved = moved_percentile(calibration.scores, calibration.threshold, shifts)
    largest = float(np.abs(shifts).max()) if shifts else 0.0
    hashes = bundle.algorithm.bundle_hash, bundle.algorithm.calibration_hash
    return Agreement(bundle_hash=hashes[0], calibration_hash=hashes[1], studies=len(shifts), score=largest, percentile=moved, faster=faster)


def _score(prepared: pipeline.Prepared, bundle: Bundle, device: str, *, half: bool) -> float:
    seen = pipeline.pass_through(prepared, bundle, device, half=half)
    foreground, fusion = torch.from_numpy(prepared.foreground), bundle.manifest.scoring.fusion
    return scoring.judge(prepared.x, seen, foreground, bundle.normals, fusion, prepared.stratum, device).study


def moved_percentile(calibration: Sequence[float], threshold: float, shifts: Sequence[float]) -> float:
    """Return by how many percentile points a score at the threshold moves at most, with any of the ``shifts``.

    Between calibration scores the percentile is interpolated: with 200 of them a single one is half a point already.
    """
    ordered = np.sort(np.asarray(calibration))
    ranks = 100 * np.arange(len(ordered)) / len(ordered)
    at, moved = np.interp(threshold, ordered, ranks), np.interp(threshold + np.asarray(shifts), ordered, ranks)
    return float(np.abs(moved - at).max()) if len(shifts) else 0.0


def record(bundle: Bundle, found: Agreement) -> None:
    """Keep it in the bundle's folder."""
    (bundle.folder / AGREEMENT).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
