"""``pacs-node train``: from studies, or phantoms, to a bundle that the node can load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import familiar
from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.autoencoder import threads
from pacs_node.autoencoder.baselines import fit_baselines
from pacs_node.autoencoder.familiarity import Familiarity
from pacs_node.autoencoder.fitting import Diverged, History, Schedule, Slices, Step, fit
from pacs_node.autoencoder.network import Detector, Network
from pacs_node.autoencoder.normals import Example, fit_normals, with_whole
from pacs_node.autoencoder.precision import arithmetic, device_of
from pacs_node.autoencoder.reference import keep
from pacs_node.autoencoder.trimming import usual
from pacs_node.errors import InputError
from pacs_node.workbench import material
from pacs_node.workbench.material import Report
from pacs_node.workbench.shelf import Shelf, shelved
from pacs_node.workbench.suspects import Suspect, suspects_in

CHECKPOINT, FIRST_CHECKPOINT, DETECTOR_CHECKPOINT = "training.part", "detector-first.part", "detector.part"
FIRST_LOOK = 0.3  # of a detector's epochs, before it helps to say what it should not be taught
LEAST_STUDIES = 8
LEAST_HELD_OUT = 2
_OTHER_PROTOCOLS = 60  # phantoms, for the gate


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training run did.

    Studies used for the weights and held out, those refused with the reason, the loss (None where the weights were kept), and studies that stand
    out among the others, the most unusual first.
    """

    studies: int
    held_out: int
    refused: tuple[str, ...]
    history: History | None
    suspects: tuple[Suspect, ...] = ()


@dataclass(frozen=True, slots=True)
class Studies:
    """What a recipe is carried out on: studies to train on and held out, those refused by name and reason, and what the gate learnt of them."""

    train_on: Shelf
    held_out: Shelf
    refused: tuple[str, ...] = ()
    familiarity: Familiarity | None = None


def train(
    bundle_dir: Path, data: Sequence[Path] = (), labels: Path | None = None, report: Report = lambda what, fraction: None, *, device: str = "auto"
) -> Trained:
    """Train the bundle in ``bundle_dir`` by the recipe in its ``model.yaml``.

    ``data`` are folders of normal studies (DICOM, NIfTI or pictures); without any, the recipe's own ``data`` and ``phantoms`` are used.
    Interrupted runs resume when the same command is given again. Writes weights and baselines and records their SHA-256; the same data,
    recipe, device and number of threads give the same weights. ``device`` is one of `precision.DEVICES`. Raises `BundleError` or
    `InputError` in one sentence.
    """
    threads.keep_memory()
    manifest = read_manifest(bundle_dir)
    _usable(device, manifest)
    studies = _known(studies_of(bundle_dir, manifest, data, labels, report), manifest, report)
    history = _fit(bundle_dir, manifest, studies, report, device)
    return _trained(bundle_dir, studies, history, report)


def measure(
    bundle_dir: Path, data: Sequence[Path] = (), labels: Path | None = None, report: Report = lambda what, fraction: None, *, device: str = "auto"
) -> Trained:
    """Keep the network of a trained bundle, and measure anew what is usual and the baselines: for changes of ``scoring`` and of this program.

    The studies have to be those that it was trained on, so that the same ones are held out. Raises like `train`.
    """
    manifest = read_manifest(bundle_dir)
    network = bundles.load_network(bundle_dir, manifest).to(_usable(device, manifest))
    studies = _known(studies_of(bundle_dir, manifest, data, labels, report), manifest, report)
    _measure(bundle_dir, manifest, network, studies, report)
    return _trained(bundle_dir, studies, None, report)


def train_detector(
    bundle_dir: Path, data: Sequence[Path] = (), labels: Path | None = None, report: Report = lambda what, fraction: None, *, device: str = "auto"
) -> Trained:
    """Keep the autoencoder of a trained bundle, train its detector anew, and measure what is usual; studies and errors as for `measure`."""
    manifest = read_manifest(bundle_dir)
    if manifest.detector is None:
        raise InputError(f"the bundle {bundle_dir} asks for no detector: add `detector: {{}}` to its model.yaml")
    network = bundles.load_network(bundle_dir, manifest, detector=False).to(_usable(device, manifest))
    studies = _known(studies_of(bundle_dir, manifest, data, labels, report), manifest, report)
    _detect(_Run(bundle_dir, studies, report, _usable(device, manifest)), manifest, network)
    _measure(bundle_dir, manifest, network, studies, report)
    for name in (FIRST_CHECKPOINT, DETECTOR_CHECKPOINT):
        (bundle_dir / name).unlink(missing_ok=True)
    return _trained(bundle_dir, studies, None, report)


def _trained(bundle_dir: Path, studies: Studies, history: History | None, report: Report) -> Trained:
    suspects = suspects_in(bundles.load(bundle_dir), (studies.train_on, studies.held_out), report)
    return Trained(len(studies.train_on), len(studies.held_out), studies.refused, history, suspects)


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
    return _fit(bundle_dir, manifest, Studies(shelved(train_on), shelved(held_out), familiarity=familiarity), report, device)


def _fit(bundle_dir: Path, manifest: Manifest, studies: Studies, report: Report, device: str) -> History:
    torch.manual_seed(manifest.recipe.seed)
    network = Network(manifest.architecture)
    run = _Run(bundle_dir, studies, report, _usable(device, manifest))
    history = run.fit("training", network, manifest.recipe.schedule, CHECKPOINT, run.slices(network.architecture.inputs))
    _detect(run, manifest, network)
    _measure(bundle_dir, manifest, network, studies, report)
    for name in (CHECKPOINT, FIRST_CHECKPOINT, DETECTOR_CHECKPOINT):
        (bundle_dir / name).unlink(missing_ok=True)
    return history


def _detect(run: _Run, manifest: Manifest, network: Network) -> None:
    """Train the detector beside the autoencoder, where ``model.yaml`` asks for one: after a first look, where something is to be left out (`trimming`)."""
    part = manifest.detector
    if part is None or manifest.detectors is None:
        return
    schedule, lessons = part.schedule(manifest.recipe), run.slices(manifest.detectors.inputs)
    network.detector = None
    if part.left_out:
        first = replace(schedule, epochs=math.ceil(FIRST_LOOK * schedule.epochs))
        network.detector = _learn(run, manifest, first, FIRST_CHECKPOINT, _without_the_unusual(run, manifest, network, lessons))
        lessons = _without_the_unusual(run, manifest, network, lessons)
    network.detector = _learn(run, manifest, schedule, DETECTOR_CHECKPOINT, lessons)


def _learn(run: _Run, manifest: Manifest, schedule: Schedule, checkpoint: str, lessons: Slices) -> Detector:
    assert manifest.detectors is not None
    torch.manual_seed(schedule.seed)
    detector = Detector(manifest.detectors)
    run.fit("training the detector" if checkpoint == DETECTOR_CHECKPOINT else "a first look", detector, schedule, checkpoint, lessons)
    return detector


def _without_the_unusual(run: _Run, manifest: Manifest, network: Network, lessons: Slices) -> Slices:
    """Take what the network finds unusual so far out of the foreground of all training slices."""
    assert manifest.detector is not None
    scoring, found = manifest.scoring, run.studies
    run.report("looking for what is unusual", 0.0)
    foreground = usual(network, found.train_on.studies, found.held_out.studies, scoring.fusion, scoring.bins, manifest.detector.left_out)
    run.report("looking for what is unusual", 1.0)
    return Slices(lessons.pixels, torch.cat(foreground))


@dataclass(frozen=True, slots=True)
class _Run:
    """Where and on what one training command computes."""

    folder: Path
    studies: Studies
    report: Report
    device: torch.device

    def slices(self, inputs: int) -> Slices:
        """Return all slices to train on, each with its neighbours."""
        return self.studies.train_on.slices(inputs)

    def fit(self, what: str, network: Network | Detector, schedule: Schedule, checkpoint: str, lessons: Slices) -> History:
        """Train one network on ``lessons``; raises `InputError` where it diverges."""
        inputs = network.architecture.inputs
        try:
            return fit(
                network,
                lessons,
                self.studies.held_out.slices(inputs),
                schedule,
                device=self.device,
                checkpoint=self.folder / checkpoint,
                progress=lambda step: self.report(_told(what, step), step.done / step.total),
            )
        except Diverged as error:
            raise InputError(f"{self.folder}: {error}") from error


def _measure(bundle_dir: Path, manifest: Manifest, network: Network, studies: Studies, report: Report) -> None:
    """Measure what is usual to the network, and write the bundle."""
    report("measuring what is usual", 0.0)
    pictures = studies.train_on.pictures
    normals = fit_normals(network, pictures, studies.held_out.studies, manifest.scoring.fusion, manifest.scoring.bins)
    normals = with_whole(normals, chain(studies.train_on.studies, studies.held_out.studies))
    baselines = fit_baselines(studies.train_on.pairs)
    report("measuring what is usual", 1.0)
    network.cpu()
    bundles.save(bundle_dir, network, normals, baselines, keep(network, pictures, manifest.recipe.reference), studies.familiarity)


def _known(studies: Studies, manifest: Manifest, report: Report) -> Studies:
    """Fit the learnt part of the gate, where ``model.yaml`` asks for it and the studies are enough."""
    part = manifest.scope.familiarity
    if part is None:
        return studies
    portraits = [*studies.train_on.portraits, *studies.held_out.portraits]
    if manifest.recipe.phantoms is not None and all(one.synthetic for one in portraits):
        portraits += material.of_other_protocols(manifest.recipe.phantoms, manifest, _OTHER_PROTOCOLS, report)
    return replace(studies, familiarity=familiar.fit(portraits, part.refused))


def _usable(device: str, manifest: Manifest) -> torch.device:
    """Return the device that is to train; raises `InputError` where it is not there or cannot compute in the recipe's precision."""
    try:
        found = device_of(device)
        arithmetic(manifest.recipe.precision, found)
    except ValueError as error:
        raise InputError(str(error)) from error
    return found


def _told(what: str, step: Step) -> str:
    return f"{what}: epoch {step.epoch + 1}, loss {step.loss:.4f}, held out {step.held_out:.4f}"


# --- the studies -----------------------------------------------------------------------------------------------------------


def studies_of(bundle_dir: Path, manifest: Manifest, data: Sequence[Path], labels: Path | None, report: Report) -> Studies:
    """Read the studies that a recipe is carried out on: those in ``data``, else the recipe's own; raises `InputError` where they are too few."""
    recipe = manifest.recipe
    folders = list(data) or [bundle_dir / folder for folder in recipe.data]
    shelf, aside = Shelf(), set[int]()
    refused: list[str] = []
    if labels is not None and not folders:
        raise InputError(f"the labels {labels} need --data: give the folders that hold the files listed")
    if folders:
        series = material.series_in(folders, manifest.modality, labels)
        patients = []
        for one, example in material.usable(series, manifest, report, refused):
            shelf.add(one.series_uid, example)
            patients.append(one.patient)
        kept_aside = material.held_out_patients(patients, recipe.seed, recipe.held_out_share)
        aside = {index for index, patient in enumerate(patients) if patient in kept_aside}
    if not data and recipe.phantoms is not None:
        for use, count in (("train", recipe.phantoms.train), ("held out", recipe.phantoms.held_out)):
            for number, example in enumerate(material.phantoms(recipe.phantoms, manifest, use, count, report)):
                if use == "held out":
                    aside.add(len(shelf))
                shelf.add(f"phantom of seed {material.SEEDS[use] + number}", example)
    train_on, held_out = shelf.take(index for index in range(len(shelf)) if index not in aside), shelf.take(sorted(aside))
    _enough(train_on, held_out, folders, refused)
    return Studies(train_on, held_out, tuple(refused))


def _enough(train_on: Shelf, held_out: Shelf, folders: Sequence[Path], refused: Sequence[str]) -> None:
    where = ", ".join(str(folder) for folder in folders) or "the recipe"
    usable = len(train_on) + len(held_out)
    if usable < LEAST_STUDIES or not len(train_on) or len(held_out) < LEAST_HELD_OUT:
        first = f" (the first refused: {refused[0]})" if refused else ""
        raise InputError(
            f"{where} gives {usable} usable studies, training needs at least {LEAST_STUDIES}, of three patients or more: add studies labelled normal{first}"
        )
