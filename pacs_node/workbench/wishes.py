"""What `pacs-node fetch` is to bring, and what it has brought: the table of accession numbers, and the ledger in the folder of the studies."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pacs_node.errors import InputError

LEDGER = "fetched.jsonl"
_COLUMNS = ("accession", "accessionnumber")
_LONGEST = 16  # characters of an SH value (PS3.5 6.2)
_WILDCARDS = "*?\\"  # would match other studies, or be several values (PS3.4 C.2.2.2)


def read_accessions(path: Path) -> list[str]:
    """Return the accession numbers of a CSV file, each once, in their order.

    They stand in the column ``accession``, or in the first one where none is called so. Raises `InputError` naming what cannot be asked for.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the list {path} cannot be read ({error}): give a CSV with a column accession") from error
    rows = [row for row in csv.reader(text.splitlines(), delimiter=_delimiter(text)) if any(cell.strip() for cell in row)]
    names = ["".join(cell.lower().replace("_", " ").split()) for cell in rows[0]] if rows else []
    column = next((index for index, name in enumerate(names) if name in _COLUMNS), None)
    found = [row[column or 0].strip() for row in (rows if column is None else rows[1:]) if len(row) > (column or 0)]
    wanted = list(dict.fromkeys(value for value in found if value))
    if not wanted:
        raise InputError(f"the list {path} holds no accession number: give a CSV with a column accession")
    for value in wanted:
        if len(value) > _LONGEST or any(character in _WILDCARDS or not character.isprintable() for character in value):
            raise InputError(f"the list {path}: {value!r} is no accession number (at most {_LONGEST} characters, none of {' '.join(_WILDCARDS)})")
    return wanted


def _delimiter(text: str) -> str:
    """Tell what separates the columns by the first line: a spreadsheet may write ``;`` or tabs."""
    first = text.partition("\n")[0]
    return next((character for character in ",;\t" if character in first), ",")


@dataclass(frozen=True, slots=True)
class Fetched:
    """One study that is here as a whole: the folder below --out, and how many instances it holds."""

    accession: str
    modalities: str
    study_uid: str
    folder: str
    instances: int


class Ledger:
    """Which studies are here: one JSON line each, on the disk before the next study is asked for. A line that was not ended does not count."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LEDGER
        self.done: Mapping[tuple[str, str], Fetched] = self._read()

    def has(self, accession: str, modalities: str) -> bool:
        """Tell whether a study is here with these modalities."""
        return (accession, modalities) in self.done

    def add(self, fetched: Fetched) -> None:
        """Write down a study."""
        with self._path.open("ab") as file:
            file.write(json.dumps(asdict(fetched)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.done = {**self.done, (fetched.accession, fetched.modalities): fetched}

    def _read(self) -> dict[tuple[str, str], Fetched]:
        if not self._path.is_file():
            return {}
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._path.write_bytes(whole)
        try:
            rows = [Fetched(**json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise InputError(f"the ledger {self._path} is damaged ({error}): remove it, and everything is fetched anew; or give another folder") from error
        return {(row.accession, row.modalities): row for row in rows}
