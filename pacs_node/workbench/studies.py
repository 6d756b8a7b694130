"""DICOM files in folders, grouped into studies, and studies of the node by what people call them: for commands that start from one of these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import ColumnElement, select
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


def readable(path: Path, damaged: Callable[[Path, str], None] = lambda file, reason: None) -> Iterator[tuple[Path, Dataset]]:
    """Yield the DICOM objects below a path with their headers; other files are passed over. ``damaged`` hears of those that look like DICOM and why."""
    for file in files_below(path):
        try:
            header = read_header(file)
        except UnreadableObject as error:
            if _is_marked(file):
                damaged(file, error.reason)
            continue
        if str(header.SOPClassUID) != "1.2.840.10008.1.3.10":  # a DICOMDIR is an index, not an image
            yield file, header


def _is_marked(file: Path) -> bool:
    """Tell whether a file has the letters of a DICOM file at their place (PS3.10 7.1), and is no DICOMDIR."""
    try:
        with file.open("rb") as opened:
            head = opened.read(512)
    except OSError:
        return True
    return head[128:132] == b"DICM" and b"1.2.840.10008.1.3.10\0" not in head


def studies_below(path: Path, damaged: Callable[[Path, str], None] = lambda file, reason: None) -> list[FolderStudy]:
    """Return the studies below a path, ``damaged`` as of `readable`; raises `InputError` where there is no DICOM object."""
    groups: dict[str, list[tuple[Path, Dataset]]] = {}
    for file, header in readable(path, damaged):
        groups.setdefault(str(header.StudyInstanceUID), []).append((file, header))
    if not groups:
        raise InputError(f"no DICOM object was found below {path}")
    return [FolderStudy(uid, tuple(file for file, _ in items), tuple(header for _, header in items)) for uid, items in groups.items()]


ACCESSION = "accession:"  # before a name: no number, but an accession number


def rows_named(session: Session, name: str) -> list[StudyRow]:
    """Return the node's study of a number or UID, or those of an accession number; raises `InputError` where there is none.

    A number that is a study's is no accession number, unless ``accession:`` stands before it.
    """
    for meant in _meant(name):
        rows = list(session.scalars(select(StudyRow).where(meant).order_by(StudyRow.id)))
        if rows:
            return rows
    raise InputError(f"there is no study {name}: give a number of `pacs-node status`, a Study Instance UID or an accession number")


def _meant(name: str) -> Iterator[ColumnElement[bool]]:
    if name.startswith(ACCESSION):
        yield StudyRow.accession == name.removeprefix(ACCESSION)
        return
    if name.isascii() and name.isdecimal() and len(name) <= 9:
        yield StudyRow.id == int(name)
    yield StudyRow.study_uid == name
    yield StudyRow.accession == name


def row_named(session: Session, name: str) -> StudyRow:
    """Return the one study of a name; raises `InputError` where there is none, or more than one."""
    rows = rows_named(session, name)
    if len(rows) > 1:
        raise InputError(f"{len(rows)} studies have the accession number {name}: name one by its number, {', '.join(str(row.id) for row in rows)}")
    return rows[0]


def other_meanings(session: Session, name: str) -> list[int]:
    """Return the numbers of the studies that a name might mean as well: those with an accession number that is the number of another study."""
    rows = rows_named(session, name)
    others = session.scalars(select(StudyRow.id).where(StudyRow.accession == name, StudyRow.id.not_in([row.id for row in rows])).order_by(StudyRow.id))
    return list(others)
