"""``pacs-node train``: from studies, or phantoms, to a bundle that the node can load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import familiar
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.autoencoder.baselines import fit_baselines
from pacs_node.autoencoder.familiarity import Familiarity
from pacs_node.autoencoder.fitting import Diverged, History, Slices, Step, fit
from pacs_node.autoencoder.network import Network, with_neighbours
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.autoencoder.precision import arithmetic, device_of
from pacs_node.autoencoder.reference import keep
from pacs_node.errors import InputError
from pacs_node.workbench import material
from pacs_node.workbench.material import Report

CHECKPOINT = "training.part"
LEAST_STUDIES = 8
LEAST_HELD_OUT = 2
_OTHER_PROTOCOLS = 60  # phantoms, for the gate


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run did: studies used for the weights and held out, those refused with the reason, and the loss."""

    studies: int
    held_out: int
    refused: tuple[str, ...]
    history: History


def train(
    bundle_dir: Path, data: Sequence[Path] = (), labels: Path | None = None, report: Report = lambda what, fraction: None, *, device: str = "auto"
) -> Trained:
    """Train the bundle in ``bundle_dir`` by the recipe in its ``model.yaml``.

    ``data`` are folders of normal DICOM studies; without any, the recipe's own ``data`` and ``phantoms`` are used. Interrupted runs
    resume when the same command is given again. Writes weights and baselines and records their SHA-256; the same data, recipe, device and
    number of threads give the same weights. ``device`` is one of `precision.DEVICES`. Raises `BundleError` or `InputError` in one sentence.
    """
    manifest = read_manifest(bundle_dir)
    _usable(device, manifest)
    train_on, held_out, refused = _studies(bundle_dir, manifest, data, labels, report)
    familiarity = _familiarity(manifest, [*train_on, *held_out], report)
    history = fit_bundle(bundle_dir, manifest, train_on, held_out, report, device=device, familiarity=familiarity)
    return Trained(len(train_on), len(held_out), tuple(refused), history)


def fit_bundle(
    bundle_dir: Path,
    manifest: Manifest,
    train_on: Sequence[Example],
    held_out: Sequence[Example],
    report: Report,
    *,
    device: str = "auto",
    familiarity: Familiarity | None = None,
) -> History:
    """Train on studies at hand, measure what is usual, and write weights and baselines into ``bundle_dir``, which holds the ``model.yaml``."""
    torch.manual_seed(manifest.recipe.seed)
    network = Network(manifest.architecture)
    checkpoint = bundle_dir / CHECKPOINT
    try:
        history = fit(
            network,
            _slices(train_on, manifest),
            _slices(held_out, manifest),
            manifest.recipe.schedule,
            device=_usable(device, manifest),
            checkpoint=checkpoint,
            progress=lambda step: report(_told(step), step.done / step.total),
        )
    except Diverged as error:
        raise InputError(f"{bundle_dir}: {error}") from error
    report("measuring what is usual", 0.0)
    normals = fit_normals(network, [one.x for one in train_on], held_out, manifest.scoring.fusion, manifest.scoring.bins)
    baselines = fit_baselines([(one.x, one.foreground) for one in train_on])
    report("measuring what is usual", 1.0)
    network.cpu()
    reference = keep(network, [one.x for one in train_on], manifest.recipe.reference)
    bundles.save(bundle_dir, network, normals, baselines, reference, familiarity)
    checkpoint.unlink(missing_ok=True)
    return history


def _usable(device: str, manifest: Manifest) -> torch.device:
    """Return the device that is to train; raises `InputError` where it is not there or cannot compute in the recipe's precision."""
    try:
        found = device_of(device)
        arithmetic(manifest.recipe.precision, found)
    except ValueError as error:
        raise InputError(str(error)) from error
    return found


def _familiarity(manifest: Manifest, studies: Sequence[Example], report: Report) -> Familiarity | None:
    """Fit the learnt part of the gate, where ``model.yaml`` asks for it and the studies are enough."""
    part = manifest.scope.familiarity
    if part is None:
        return None
    portraits = [one.portrait for one in studies if one.portrait is not None]
    if manifest.recipe.phantoms is not None and all(one.synthetic for one in portraits):
        portraits += material.of_other_protocols(manifest.recipe.phantoms, manifest, _OTHER_PROTOCOLS, report)
    return familiar.fit(portraits, part.refused)


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
