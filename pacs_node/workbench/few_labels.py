"""``pacs-node train --head``: what a site's few labels add to a bundle whose network stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.head_file import HEAD, TrainedHead, write_head
from pacs_node.analysis.manifest import read_manifest, sha256
from pacs_node.autoencoder.head import LEAST, Labels, cross_validated, fit_head
from pacs_node.errors import InputError
from pacs_node.workbench import material, metrics
from pacs_node.workbench.material import Report
from pacs_node.workbench.metrics import Estimate


@dataclass(frozen=True, slots=True)
class Compared:
    """A trained head beside the score that needs no labels, on the same studies: AUROC with intervals by patient, and their difference."""

    normal: int
    unusual: int
    patients: int
    head: Estimate
    score: Estimate
    difference: Estimate
    refused: tuple[str, ...]


def train_head(bundle_dir: Path, data: Sequence[Path], labels: Path | None, report: Report = lambda what, fraction: None) -> Compared:
    """Train a head for the bundle on the labelled studies below ``data`` and keep it as ``head.npz``; nothing else of the bundle changes.

    The studies should be none that the network was trained on: those look more usual to it than any other. Raises `InputError` where there
    are fewer than 10 studies of either kind.
    """
    if labels is None or not data:
        raise InputError("a head learns from labels: give folders of studies with --data and a table with the columns file and label with --labels")
    bundle = bundles.load(_without_head(bundle_dir))
    refused: list[str] = []
    known, scores = _labels(bundle, data, labels, report, refused)
    normal, unusual = int((~known.unusual).sum()), int(known.unusual.sum())
    if min(normal, unusual) < LEAST:
        remedy = f"at least {LEAST} of each are needed for a head, so label more, or rely on the score"
        raise InputError(f"{labels} gives {normal} usable studies labelled {material.NORMAL!r} and {unusual} of any other label: {remedy}")
    report("training the head", 0.0)
    try:
        head = fit_head(known, bundle.manifest.recipe.seed)
    except ValueError as error:
        raise InputError(f"{labels}: {error}: label studies of more patients") from error
    compared = _compared(known, scores, cross_validated(known, bundle.manifest.recipe.seed), refused)
    write_head(bundle_dir, TrainedHead(head, normal, unusual, (compared.head.value, compared.head.low, compared.head.high)))
    bundles.record(bundle_dir, {**bundle.manifest.files, HEAD: sha256(bundle_dir / HEAD)})
    report("training the head", 1.0)
    return compared


def _without_head(bundle_dir: Path) -> Path:
    """A head of former weights must not keep a bundle from getting a new one."""
    if (bundle_dir / HEAD).is_file():
        (bundle_dir / HEAD).unlink()
        files = read_manifest(bundle_dir).files
        bundles.record(bundle_dir, {name: digest for name, digest in files.items() if name != HEAD})
    return bundle_dir


def _labels(bundle: Bundle, data: Sequence[Path], labels: Path, report: Report, refused: list[str]) -> tuple[Labels, list[float]]:
    """Judge each labelled study as the node would; returns what the head learns from, and the scores."""
    manifest, rows, scores = bundle.manifest, [], []
    for one in material.each_labelled(data, manifest, labels, report, refused):
        seen, judged = bundle.judge(one.prepared.x, torch.from_numpy(one.prepared.foreground), one.prepared.stratum)
        rows.append((judged.parts, seen.embedding.mean(0).numpy(), one.label != material.NORMAL, one.patient))
        scores.append(judged.study)
    if not rows:
        raise InputError(f"none of the studies that {labels} lists can be used: {refused[0] if refused else 'it lists none'}")
    names = tuple(rows[0][0])
    parts, embedding = (np.array(table, dtype=np.float64) for table in ([[row[0][name] for name in names] for row in rows], [row[1] for row in rows]))
    return Labels(names, parts, embedding, np.array([row[2] for row in rows]), tuple(row[3] for row in rows)), scores


def _compared(known: Labels, scores: Sequence[float], probabilities: np.ndarray, refused: Sequence[str]) -> Compared:
    """Compare on the studies that the cross-validation reached."""
    reached = np.flatnonzero(np.isfinite(probabilities))
    truth, own, usual = known.unusual[reached].tolist(), probabilities[reached].tolist(), np.asarray(scores)[reached].tolist()
    weights = metrics.draws([known.patients[index] for index in reached], truth)
    return Compared(
        normal=int((~known.unusual).sum()),
        unusual=int(known.unusual.sum()),
        patients=len(set(known.patients)),
        head=metrics.measure("auroc", own, truth, weights),
        score=metrics.measure("auroc", usual, truth, weights),
        difference=metrics.difference("auroc", own, usual, truth, weights),
        refused=tuple(refused),
    )
