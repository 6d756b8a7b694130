"""``pacs-node tune``: every recipe of a grid trained and measured on the same folds, resumable cell by cell.

::

    grid ─► cells ─┐
                   ├─► for each cell and fold: train on the other folds ─► measure on this one ─► a line of the ledger ─► table
    studies ─► folds by patient

A cell is measured on normal studies that it saw in no way, and on unusual ones: those labelled so, or phantoms with planted lesions
where the normals are phantoms. The seeds of those phantoms are seen by no training, calibration or evaluation.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.installed import MODEL
from pacs_node.analysis.manifest import Manifest, PhantomPart, read_manifest
from pacs_node.autoencoder.normals import Example
from pacs_node.errors import InputError
from pacs_node.phantoms import LESIONS
from pacs_node.workbench import material, training
from pacs_node.workbench.grid import Cell, Grid, cells, manifest_of, nested, usual_grid
from pacs_node.workbench.material import Report
from pacs_node.workbench.trial import Trial, try_out

LEDGER, WORK = "tuning.jsonl", "tuning.part"
CONTRASTS, SIZES = (1.0, 2.0, 3.0), (0.01, 0.02, 0.05)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is tried: ``folds`` of the patients, only the ``fold``-th of them (from 1) where one is named, ``epochs`` instead of the recipe's.

    ``most``: of how many patients (or phantoms) without anything unusual studies are used. ``device`` as in training.
    """

    folds: int = 5
    fold: int | None = None
    epochs: int | None = None
    most: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.folds < 2:
            raise InputError(f"{self.folds} folds cannot be tried: one is measured on, at least one trained on, so give 2 or more")
        if self.fold is not None and not 1 <= self.fold <= self.folds:
            raise InputError(f"there is no fold {self.fold} of {self.folds}: give 1 to {self.folds}")

    @property
    def tried(self) -> tuple[int, ...]:
        """The folds that are measured on, from 0."""
        return tuple(range(self.folds)) if self.fold is None else (self.fold - 1,)

    @property
    def forced(self) -> dict[str, Any]:
        """Keys that every cell gets."""
        return {} if self.epochs is None else {"recipe.epochs": self.epochs}


@dataclass(frozen=True, slots=True)
class Study:
    """A study to train on or to measure on."""

    name: str
    patient: str
    unusual: bool
    example: Example


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the ledger: a cell measured on one fold. ``epochs``: after how many its best weights stood."""

    key: str
    cell: str
    fold: int
    seconds: float
    epochs: int
    trials: list[Trial] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tuned:
    """What was tried: the cells in the grid's order, each with its lines and its keys as they stand in ``model.yaml``; who was refused and why."""

    plan: Plan
    cells: tuple[Cell, ...]
    lines: dict[str, list[Line]]
    keys: dict[str, dict[str, Any]]
    refused: tuple[str, ...]


def tune(
    bundle_dir: Path,
    data: Sequence[Path] = (),
    labels: Path | None = None,
    grid: Grid | None = None,
    plan: Plan | None = None,
    report: Report = lambda what, fraction: None,
) -> Tuned:
    """Try every cell of ``grid`` on the folds of ``plan``; what the ledger beside the bundle holds already is not done again.

    ``data`` and ``labels`` as in training; without ``data`` the recipe's phantoms, whose planted lesions are then found or not. Raises
    `InputError` or `BundleError` in one sentence, before anything is trained where a cell does not fit.
    """
    base, plan = read_manifest(bundle_dir), plan or Plan()
    grid = grid or usual_grid(base)
    content = yaml.safe_load((bundle_dir / MODEL).read_text(encoding="utf-8"))
    wanted = [(cell, *manifest_of(content, grid, cell, plan.forced)) for cell in cells(grid)]
    ledger, source, shelf = Ledger(bundle_dir / LEDGER), _digest(data or [bundle_dir / folder for folder in base.recipe.data], labels), _Shelf()
    turns = [(cell, written, manifest, fold) for cell, written, manifest in wanted for fold in plan.tried]
    lines: dict[str, list[Line]] = {cell.name: [] for cell, *_ in wanted}
    for done, (cell, written, manifest, fold) in enumerate(turns):
        key = _key(manifest, source, plan, fold)
        line = ledger.get(key)
        if line is None:
            words, share = f"tuning: {cell.name}, fold {fold + 1}", done / len(turns)
            studies = shelf.studies(bundle_dir, manifest, data, labels, plan.most, report)
            where = _Turn(bundle_dir / WORK / key[:16], written, manifest, plan, fold)
            line = _measured(where, studies, key, cell.name, base.recipe.corruptions, _within(report, words, share, 1 / len(turns)))
            ledger.add(line)
        lines[cell.name].append(line)
        report(f"tuning: {cell.name}, fold {fold + 1}", (done + 1) / len(turns))
    shutil.rmtree(bundle_dir / WORK, ignore_errors=True)
    keys = {cell.name: nested(written, cell.settings) for cell, written, _ in wanted}
    return Tuned(plan, tuple(cell for cell, *_ in wanted), lines, keys, tuple(shelf.refused))


def _within(report: Report, words: str, start: float, width: float) -> Report:
    """Tell the progress of one turn as a part of the whole."""
    return lambda what, fraction: report(f"{words}: {what.split(': ')[-1]}", start + width * 0.9 * (fraction if what.startswith("training") else 1.0))


# --- one cell, one fold ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Turn:
    """One cell on one fold, in a folder of its own, which outlives an interruption."""

    folder: Path
    written: dict[str, Any]
    manifest: Manifest
    plan: Plan
    fold: int


def _measured(turn: _Turn, studies: Sequence[Study], key: str, name: str, spoiling: Sequence[str], report: Report) -> Line:
    """Train on the other folds and measure on this one; ``spoiling``: the corruptions that every cell has to restore normals from."""
    begun, manifest = time.monotonic(), turn.manifest
    train_on, held_out, rest = split(studies, turn.plan.folds, turn.fold, manifest.recipe.seed, manifest.recipe.held_out_share)
    turn.folder.mkdir(parents=True, exist_ok=True)
    (turn.folder / MODEL).write_text(yaml.safe_dump(turn.written, sort_keys=False), encoding="utf-8")
    history = training.fit_bundle(turn.folder, manifest, [one.example for one in train_on], [one.example for one in held_out], report, device=turn.plan.device)
    bundle = bundles.load(turn.folder)
    trials = [try_out(bundle, one.name, one.patient, one.unusual, one.example, spoiling) for one in rest]
    shutil.rmtree(turn.folder)
    return Line(key, name, turn.fold, round(time.monotonic() - begun, 1), history.best_epoch + 1, trials)


def split(studies: Sequence[Study], folds: int, fold: int, seed: int, share: float) -> tuple[list[Study], list[Study], list[Study]]:
    """Return what is trained on, what is held out in training, and what is measured on: the fold's normals and the unusual studies.

    No patient is in two of them: an unusual study of a patient who is trained on is left out. Raises `InputError` for too few studies.
    """
    normal = [one for one in studies if not one.unusual]
    measured = material.folds([one.patient for one in normal], folds, seed)[fold]
    others = [one for one in normal if one.patient not in measured]
    aside = material.held_out_patients([one.patient for one in others], seed, share)
    train_on = [one for one in others if one.patient not in aside]
    held_out = [one for one in others if one.patient in aside]
    if len(train_on) < 2 or len(held_out) < training.LEAST_HELD_OUT:
        raise InputError(f"{len(normal)} normal studies are too few for {folds} folds: add studies, or ask for fewer folds")
    seen = {one.patient for one in others}
    return train_on, held_out, [one for one in studies if one.patient in measured or (one.unusual and one.patient not in seen)]


# --- studies ---------------------------------------------------------------------------------------------------------------


class _Shelf:
    """The studies as the last cell's preprocessing made them: most cells share it."""

    def __init__(self) -> None:
        self._made_for = ""
        self._studies: list[Study] = []
        self.refused: list[str] = []

    def studies(self, bundle_dir: Path, manifest: Manifest, data: Sequence[Path], labels: Path | None, most: int | None, report: Report) -> list[Study]:
        parts = (manifest.modality, manifest.preprocessing, manifest.scope, manifest.scoring.strata, manifest.recipe.phantoms, manifest.recipe.data)
        if repr(parts) != self._made_for:
            self.refused, self._made_for = [], repr(parts)
            self._studies = fewer(list(_studies(_lessened(manifest, most), bundle_dir, data, labels, report, self.refused)), most, manifest.recipe.seed)
        return self._studies


def _lessened(manifest: Manifest, most: int | None) -> Manifest:
    """Ask for no more phantoms than are used: they take time to make."""
    part = manifest.recipe.phantoms
    if part is None or most is None or part.train + part.held_out <= most:
        return manifest
    fewer_phantoms = part.model_copy(update={"train": min(part.train, most), "held_out": max(0, most - part.train)})
    return manifest.model_copy(update={"recipe": manifest.recipe.model_copy(update={"phantoms": fewer_phantoms})})


def fewer(studies: Sequence[Study], most: int | None, seed: int) -> list[Study]:
    """Keep the normal studies of ``most`` patients, chosen by the seed, and everything unusual."""
    patients = {one.patient for one in studies if not one.unusual}
    if most is None or len(patients) <= most:
        return list(studies)
    kept = sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}/most/{patient}".encode()).digest())[:most]
    return [one for one in studies if one.unusual or one.patient in kept]


def _studies(manifest: Manifest, bundle_dir: Path, data: Sequence[Path], labels: Path | None, report: Report, refused: list[str]) -> Iterator[Study]:
    recipe = manifest.recipe
    folders = list(data) or [bundle_dir / folder for folder in recipe.data]
    if folders and labels is not None:
        for one in material.each_labelled(folders, manifest, labels, report, refused):
            yield Study(one.name, one.patient, one.label != material.NORMAL, material.example(one.prepared))
    elif folders:
        for series, example in material.usable(material.series_in(folders, manifest.modality), manifest, report, refused):
            yield Study(series.series_uid, series.patient, False, example)
    elif recipe.phantoms is not None:
        yield from _phantoms(recipe.phantoms, manifest, report)
    else:
        raise InputError(f"the recipe of {bundle_dir} names neither data nor phantoms: give folders of studies with --data")


def _phantoms(part: PhantomPart, manifest: Manifest, report: Report) -> Iterator[Study]:
    """Phantoms without a lesion, each a patient of its own, and one with a lesion of each family, contrast and size."""
    for use, count in (("train", part.train), ("held out", part.held_out)):
        for number, example in enumerate(material.phantoms(part, manifest, use, count, report)):
            yield Study(f"{use} {number}", f"{use} {number}", False, example)
    planted = list(product(LESIONS, CONTRASTS, SIZES))
    for number, (family, contrast, size) in enumerate(planted):
        made = material.phantom(part, manifest, material.SEEDS["tune"] + number, lesion=family, contrast=contrast, size=size)
        yield Study(f"{family} {contrast:g} {size:g}", f"planted {number}", True, material.example(made.prepared))
        report("making phantoms (planted)", (number + 1) / len(planted))


# --- the ledger ------------------------------------------------------------------------------------------------------------


class Ledger:
    """What has been measured: a file of JSON lines, one added and synced for each cell and fold. A line cut short is done again."""

    def __init__(self, path: Path) -> None:
        self.path, self._lines = path, dict[str, Line]()
        for text in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                content = json.loads(text)
                line = Line(**content | {"trials": [Trial(**trial) for trial in content["trials"]]})
            except (ValueError, TypeError, KeyError):
                continue
            self._lines[line.key] = line

    def get(self, key: str) -> Line | None:
        """Return what was measured under a key."""
        return self._lines.get(key)

    def add(self, line: Line) -> None:
        """Keep a line, on the disk when this returns."""
        self._lines[line.key] = line
        with self.path.open("a", encoding="utf-8") as handle:
            handle.write(f"\n{json.dumps(asdict(line), separators=(',', ':'))}\n")  # on a line of its own, whatever stood before
            handle.flush()
            os.fsync(handle.fileno())


def _key(manifest: Manifest, source: str, plan: Plan, fold: int) -> str:
    """Everything that decides the numbers of one cell on one fold."""
    return hashlib.sha256(f"{manifest.model_dump_json(exclude={'files'})} {source} {fold}/{plan.folds} of {plan.most}".encode()).hexdigest()


def _digest(folders: Sequence[Path], labels: Path | None) -> str:
    """What tells the data of one run from those of another: names and sizes of the files, and the labels' bytes."""
    found = hashlib.sha256(labels.read_bytes() if labels is not None and labels.is_file() else b"")
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                found.update(f"{path.relative_to(folder)} {path.stat().st_size}\n".encode())
    return found.hexdigest()
