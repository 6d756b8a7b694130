"""What training, calibration and evaluation work on: studies in folders, and phantoms made from seeds.

Every study becomes an `Example`, prepared by the same lines as in the node. Phantom seeds of the four uses are disjoint.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.analysis.grid import resample_mask
from pacs_node.analysis.manifest import Manifest, PhantomPart
from pacs_node.analysis.pipeline import Prepared, prepare, read_series
from pacs_node.autoencoder.normals import Example
from pacs_node.dicom.header import identity, read_header, text_of
from pacs_node.errors import InputError, NotAnalysable, UnreadableObject
from pacs_node.phantoms import PhantomSpec, make_volume

Report = Callable[[str, float], None]
"""Called with what is being done and the fraction of it that is over."""

SEEDS = {"train": 1_000_000, "held out": 2_000_000, "calibrate": 3_000_000, "evaluate": 4_000_000}
"""First phantom seed of each use, far enough apart that none is used twice."""

NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The files of one series below a data folder."""

    series_uid: str
    study_uid: str
    patient: str
    study_date: date | None
    files: tuple[Path, ...]


def series_in(folders: Sequence[Path], modality: str, labels: Path | None = None) -> list[SeriesFiles]:
    """Return the series of ``modality`` below ``folders``, in the order of their UIDs; of each study only the largest.

    With ``labels`` (CSV: file, label, optionally patient and mask) only series all of whose listed files are ``normal`` are returned, and
    none that is not listed. Raises `InputError` naming the folder that is missing or holds nothing of use.
    """
    listed = _labels(labels) if labels is not None else None
    found: dict[str, list[tuple[Path, SeriesFiles]]] = {}
    for folder in folders:
        before = len(found)
        for path, one in _objects_in(folder, modality):
            if listed is None or listed.get(path.resolve()) == NORMAL:
                found.setdefault(one.series_uid, []).append((path, one))
        if len(found) == before and listed is None:
            raise InputError(f"the folder {folder} holds no {modality} images: give a folder of DICOM studies of that modality")
    if not found:
        raise InputError(f"{labels} labels no {modality} image below the folders given as {NORMAL!r}: check its column 'file'")
    return _largest_of_each_study([_joined(parts) for _, parts in sorted(found.items())])


def _objects_in(folder: Path, modality: str) -> Iterator[tuple[Path, SeriesFiles]]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give a folder of DICOM studies")
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            header = read_header(path)
        except UnreadableObject:
            continue  # data folders hold licences, tables and DICOMDIRs too
        if text_of(header, "Modality") == modality:
            patient = identity(header)
            yield (
                path,
                SeriesFiles(
                    str(header.SeriesInstanceUID), str(header.StudyInstanceUID), f"{patient.issuer}/{patient.patient_id or patient.name}", _date(header), ()
                ),
            )


def _date(header: Dataset) -> date | None:
    text = text_of(header, "StudyDate")
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _joined(parts: list[tuple[Path, SeriesFiles]]) -> SeriesFiles:
    one = parts[0][1]
    return SeriesFiles(one.series_uid, one.study_uid, one.patient, one.study_date, tuple(path for path, _ in parts))


def _largest_of_each_study(series: list[SeriesFiles]) -> list[SeriesFiles]:
    best: dict[str, SeriesFiles] = {}
    for one in series:
        if one.study_uid not in best or len(one.files) > len(best[one.study_uid].files):
            best[one.study_uid] = one
    return list(best.values())


def _labels(path: Path) -> dict[Path, str]:
    """Read ``labels.csv``; files are relative to its folder."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the labels {path} cannot be read ({error}): give a CSV with the columns file and label") from error
    if not rows or not {"file", "label"} <= set(rows[0]):
        raise InputError(f"the labels {path} have no columns file and label: add a first line 'file,label'")
    return {(path.parent / row["file"]).resolve(): row["label"].strip().lower() for row in rows if row["file"]}


def held_out_patients(patients: Sequence[str], seed: int, share: float) -> frozenset[str]:
    """Choose the patients all of whose studies are held out: about ``share`` of them, two at least, but never all.

    Their order depends on the seed and each patient's own identity only.
    """
    shuffled = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{patient}".encode()).digest())
    return frozenset(shuffled[: min(max(2, round(share * len(shuffled))), len(shuffled) - 1)])


def example(prepared: Prepared) -> Example:
    """Return what training needs of a prepared study."""
    return Example(prepared.x, torch.from_numpy(prepared.foreground), prepared.stratum)


def prepared_series(series: SeriesFiles, manifest: Manifest) -> Prepared:
    """Read and prepare one series; raises `NotAnalysable`."""
    return prepare(read_series(series.files, manifest), manifest)


def usable(series: Sequence[SeriesFiles], manifest: Manifest, report: Report) -> tuple[list[tuple[SeriesFiles, Example]], list[str]]:
    """Prepare every series; returns those in scope, and for each other its UID and the reason."""
    kept, refused = [], []
    for done, one in enumerate(series, start=1):
        try:
            kept.append((one, example(prepared_series(one, manifest))))
        except NotAnalysable as reason:
            refused.append(f"{one.series_uid}: {reason}")
        report("reading studies", done / len(series))
    return kept, refused


@dataclass(frozen=True, slots=True)
class Planted:
    """A prepared phantom and where its lesion lies on the analysis grid, (slices, P, P)."""

    prepared: Prepared
    lesion: NDArray[np.bool_]


def phantom(part: PhantomPart, manifest: Manifest, seed: int, **what: object) -> Planted:
    """Make and prepare one phantom; ``what`` are further fields of `PhantomSpec`, such as ``lesion`` and ``contrast``."""
    turns = list(product(part.planes, part.sequences))
    plane, sequence = turns[seed % len(turns)]
    usual = {"modality": manifest.modality, "region": part.region, "slices": part.slices, "rows": part.rows, "plane": plane, "sequence": sequence}
    spec = PhantomSpec(seed=seed, **(usual | what))  # type: ignore[arg-type]
    made = make_volume(spec)
    return Planted(prepare(made.volume, manifest), resample_mask(made.lesion, made.volume, manifest.preprocessing.grid))


def phantoms(part: PhantomPart, manifest: Manifest, use: str, count: int, report: Report) -> Iterator[Example]:
    """Make ``count`` normal phantoms for one of the uses in `SEEDS`."""
    for index in range(count):
        yield example(phantom(part, manifest, SEEDS[use] + index).prepared)
        report(f"making phantoms ({use})", (index + 1) / count)
