"""``labels.csv``: which files are normal and which are not, whose they are, and where lesions were drawn.

Columns ``file,label[,patient][,mask]``. Files are relative to the table's folder; a row may name a folder, for all that is in it. Several
masks of one file are parted by ``;``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pacs_node.errors import InputError

NORMAL = "normal"


@dataclass(frozen=True, slots=True)
class Row:
    """What the table says of a file; ``patient`` is empty where it does not say."""

    label: str
    patient: str = ""
    masks: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Labels:
    """A table that was read; its rows by file or folder."""

    path: Path
    rows: Mapping[Path, Row]

    def of(self, file: Path) -> Row | None:
        """Return what is said of a file, by its own row or that of the nearest folder above it; None where it is not listed."""
        file = file.resolve()
        return next((self.rows[place] for place in (file, *file.parents) if place in self.rows), None)

    def missing(self) -> list[Path]:
        """Return what is listed and not there, masks included."""
        return [path for file, row in self.rows.items() for path in (file, *row.masks) if not path.exists()]


def read_labels(path: Path) -> Labels:
    """Read a table; raises `InputError` naming the file, the line and the remedy."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            table = csv.DictReader(handle)
            columns = set(table.fieldnames or ())
            lines = [(table.line_num, line) for line in table if any(line.values())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the labels {path} cannot be read ({error}): give a CSV with the columns file and label") from error
    if not {"file", "label"} <= columns:
        raise InputError(f"the labels {path} have no columns file and label: add a first line 'file,label'")
    if not lines:
        raise InputError(f"the labels {path} list no file: add a line 'file,label' for each file")
    rows: dict[Path, Row] = {}
    for number, line in lines:
        file, row = _row(path, number, line)
        if rows.setdefault(file, row) != row:
            raise InputError(f"the labels {path}, line {number}, say of {file.name} something else than a line before: keep one of them")
    return Labels(path, rows)


def _row(path: Path, number: int, line: Mapping[str, str | None]) -> tuple[Path, Row]:
    file, label, patient, masks = ((line.get(column) or "").strip() for column in ("file", "label", "patient", "mask"))
    if not file or not label:
        raise InputError(f"the labels {path}, line {number}, lack a file or its label: write {NORMAL!r} or what else it is")
    folder = path.parent
    drawn = tuple((folder / mask.strip()).resolve() for mask in masks.split(";") if mask.strip())
    return (folder / file).resolve(), Row(label.lower(), patient, drawn)
