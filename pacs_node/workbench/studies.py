"""DICOM files in folders, grouped into studies, and studies of the node by what people call them: for commands that start from one of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from pacs_node.database.tables import StudyRow
from pacs_node.dicom.header import read_header
from pacs_node.errors import InputError, UnreadableObject


@dataclass(frozen=True)
class FolderStudy:
    """One study found in a folder."""

    study_uid: str
    files: tuple[Path, ...]
    headers: tuple[Dataset, ...]


def files_below(path: Path) -> list[Path]:
    """Return a file, or all files below a folder in the order of their names; raises `InputError` where there is none."""
    if not path.exists():
        raise InputError(f"{path} does not exist: name a DICOM file or a folder")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    if not files:
        raise InputError(f"{path} is empty: name a folder with DICOM files")
    return files


def readable(path: Path) -> Iterator[tuple[Path, Dataset]]:
    """Yield the DICOM objects below a path with their headers; other files are passed over."""
    for file in files_below(path):
        try:
            header = read_header(file)
        except UnreadableObject:
            continue
        if str(header.SOPClassUID) != "1.2.840.10008.1.3.10":  # a DICOMDIR is an index, not an image
            yield file, header


def studies_below(path: Path) -> list[FolderStudy]:
    """Return the studies below a path; raises `InputError` where there is no DICOM object."""
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for file, header in readable(path):
        groups.setdefault(str(header.StudyInstanceUID), []).append((file, header))
    if not groups:
        raise InputError(f"no DICOM object was found below {path}")
    return [FolderStudy(uid, tuple(file for file, _ in items), tuple(header for _, header in items)) for uid, items in groups.items()]


def rows_named(session: Session, name: str) -> list[StudyRow]:
    """Return the node's studies of a number, UID or accession number; raises `InputError` where there is none."""
    meant = or_(StudyRow.study_uid == name, StudyRow.accession == name)
    if name.isascii() and name.isdecimal() and len(name) <= 9:
        meant = or_(meant, StudyRow.id == int(name))
    rows = list(session.scalars(select(StudyRow).where(meant).order_by(StudyRow.id)))
    if not rows:
        raise InputError(f"there is no study {name}: give a number of `pacs-node status`, a Study Instance UID or an accession number")
    return rows
