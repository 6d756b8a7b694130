"""Which series lie below the folders given: of DICOM objects, NIfTI files or pictures, told by what the files are.

A folder holds one of the three; with labels only what they list counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from pydicom.dataset import Dataset

from pacs_node.analysis import nifti, pictures
from pacs_node.dicom.header import identity, read_header, text_of
from pacs_node.errors import InputError, UnreadableObject
from pacs_node.workbench.material.labels import NORMAL, Labels, read_labels

DICOM, NIFTI, PICTURES = "DICOM", "NIfTI", "pictures"
SUFFIXES = {NIFTI: nifti.SUFFIXES, PICTURES: pictures.SUFFIXES}
"""Kind of file to the ends of its names; DICOM objects may have any other."""


@dataclass(frozen=True, slots=True)
class SeriesFiles:
    """The files of one series below a data folder. ``label`` and ``masks`` come from the labels, ``kind`` is one of the three above.

    A NIfTI file or picture has no UIDs; its path stands for them. ``patient`` is ``issuer/identity``; nothing after the stroke: it names none.
    """

    series_uid: str
    study_uid: str
    patient: str
    study_date: date | None
    files: tuple[Path, ...]
    kind: str = DICOM
    label: str = NORMAL
    masks: tuple[tuple[Path, Path], ...] = ()  # of which file, the mask


def series_in(folders: Sequence[Path], modality: str, labels: Path | None = None) -> list[SeriesFiles]:
    """Return the normal series of ``modality`` below ``folders``, in the order of their UIDs; of each DICOM study only the largest.

    With ``labels`` (see `labels`) only series all of whose listed files are ``normal`` are returned, and none that is not listed. Raises
    `InputError` naming the folder that is missing, mixed or holds nothing of use, or the line of the labels at fault.
    """
    if labels is None:
        return _found(folders, modality, None)
    normal = [one for one in _found(folders, modality, read_labels(labels)) if one.label == NORMAL]
    if not normal:
        raise _labels_nothing(labels, modality)
    return normal


def labelled_series_in(folders: Sequence[Path], modality: str, labels: Path) -> list[SeriesFiles]:
    """Return every series that the table lists, normal or not; raises `InputError` like `series_in`."""
    return _found(folders, modality, read_labels(labels))


def _labels_nothing(path: Path, modality: str, missing: Sequence[Path] = ()) -> InputError:
    first = f" (there is no {missing[0]})" if missing else ""
    return InputError(f"{path} labels no {modality} image below the folders given as {NORMAL!r}: check its column 'file'{first}")


def _found(folders: Sequence[Path], modality: str, labels: Labels | None) -> list[SeriesFiles]:
    parts: dict[str, list[SeriesFiles]] = {}
    for folder in folders:
        here = list(_parts(folder, modality, labels))
        for one in here:
            parts.setdefault(one.series_uid, []).append(one)
        if not here and labels is None:
            raise InputError(f"the folder {folder} holds no {modality} images: give a folder of DICOM studies of that modality, of NIfTI files or pictures")
    missing = labels.missing() if labels is not None else []
    if labels is not None and not parts:
        raise _labels_nothing(labels.path, modality, missing)
    if labels is not None and missing:
        raise InputError(f"the labels {labels.path} list {missing[0]}, which is not there ({len(missing)} such): correct the path or take the line out")
    return _largest_of_each_study([_joined(of_one) for _, of_one in sorted(parts.items())])


def _parts(folder: Path, modality: str, labels: Labels | None) -> Iterator[SeriesFiles]:
    """What each file of a folder contributes to a series."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give a folder of DICOM studies, NIfTI files or pictures")
    files = _files(folder, labels)
    kind = kind_of(folder, files)
    for path in files:
        one = _object(path, modality) if kind == DICOM else _single(folder, path, kind)
        row = labels.of(path) if labels is not None else None
        if one is not None and row is not None:
            one = replace(one, patient=f"/{row.patient}" if row.patient else one.patient, label=row.label, masks=tuple((path, mask) for mask in row.masks))
        if one is not None:
            yield one


def _files(folder: Path, labels: Labels | None) -> list[Path]:
    """Files that may count, in the order of their paths; what begins with a dot belongs to the system."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return [path for path in files if labels is None or labels.of(path) is not None]


def kind_of(folder: Path, files: Iterable[Path]) -> str:
    """Return what the files of a folder are; raises `InputError` where they are of several kinds."""
    kinds: dict[str, Path] = {}
    others: list[Path] = []
    for path in files:
        kind = next((kind for kind, ends in SUFFIXES.items() if path.name.lower().endswith(ends)), None)
        if kind is None:
            others.append(path)
        else:
            kinds.setdefault(kind, path)
    if kinds and (first := next((path for path in others if _is_dicom(path)), None)) is not None:
        kinds[DICOM] = first
    if len(kinds) > 1:
        named = " and ".join(f"{kind} ({path.name})" for kind, path in kinds.items())
        raise InputError(f"the folder {folder} holds {named}: give folders of one kind, or list the files meant in --labels")
    return next(iter(kinds), DICOM)


def _is_dicom(path: Path) -> bool:
    """Tell whether a file begins as PS3.10 7.1 says."""
    with path.open("rb") as handle:
        return handle.read(132)[128:] == b"DICM"


def _object(path: Path, modality: str) -> SeriesFiles | None:
    """A DICOM object of the modality; None for others, and for the licences, tables and DICOMDIRs that data folders hold too."""
    try:
        header = read_header(path)
    except UnreadableObject:
        return None
    if text_of(header, "Modality") != modality:
        return None
    patient = identity(header)
    whose = f"{patient.issuer}/{patient.patient_id or patient.name}"
    return SeriesFiles(str(header.SeriesInstanceUID), str(header.StudyInstanceUID), whose, _date(header), (path,))


def _date(header: Dataset) -> date | None:
    text = text_of(header, "StudyDate")
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _single(folder: Path, path: Path, kind: str) -> SeriesFiles | None:
    """A file that is a study of its own."""
    if not path.name.lower().endswith(SUFFIXES[kind]):
        return None
    subject = re.search(r"(?:^|[/_])(sub-[A-Za-z0-9]+)", path.relative_to(folder).as_posix())  # as in BIDS
    return SeriesFiles(str(path), str(path), f"/{subject[1] if subject else path.resolve()}", None, (path,), kind)


def _joined(parts: Sequence[SeriesFiles]) -> SeriesFiles:
    """One series of its files: not normal if one of them is not."""
    label = next((part.label for part in parts if part.label != NORMAL), NORMAL)
    files = dict.fromkeys(file for part in parts for file in part.files)
    masks = dict.fromkeys(pair for part in parts for pair in part.masks)
    return replace(parts[0], label=label, files=tuple(files), masks=tuple(masks))


def _largest_of_each_study(series: Sequence[SeriesFiles]) -> list[SeriesFiles]:
    best: dict[str, SeriesFiles] = {}
    for one in series:
        if one.study_uid not in best or len(one.files) > len(best[one.study_uid].files):
            best[one.study_uid] = one
    return list(best.values())
