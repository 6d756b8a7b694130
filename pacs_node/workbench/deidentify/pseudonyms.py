"""New UIDs and pseudonyms: the same for the same original in every run, and nothing that leads back without the map.

The map is a file of its own (SQLite, mode 0600), never among what is exported. Its secret makes the new values: a keyed hash of the old
ones, so that an export that is interrupted or done twice comes to the same. It also lists what became of what, for who has to find back,
and with which options each folder is filled.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
import stat
import uuid
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from pacs_node.errors import InputError
from pacs_node.records import PatientIdentity
from pacs_node.workbench.deidentify.options import Options

MAP = "export-map.db"  # the one that is taken where none is named, in the data folder

_DAYS = (365, 3650)  # how far back dates are moved
_WELL_KNOWN = "1.2.840.10008."  # UIDs of the standard itself (PS3.6 Annex A): they identify nobody
_TABLES = """
CREATE TABLE IF NOT EXISTS secret (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL, key BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS uids (old TEXT PRIMARY KEY, new TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS patients (pseudonym TEXT PRIMARY KEY, identity TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outputs (folder TEXT PRIMARY KEY, options TEXT NOT NULL);
"""
_VERSION = 1


class Pseudonyms:
    """The map, opened; a context manager that commits at its end. Raises `InputError` where the file is none of ours or open to others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        _make_or_check(path)
        self._uids: dict[str, str] = {}
        self._unsaved: list[str] = []  # old ones that are not written down yet
        self._known: set[str] = set()  # pseudonyms that were given out here
        self._patients: dict[str, str] = {}  # those that are not written down yet
        try:
            self._database = sqlite3.connect(path, timeout=60)
            self._database.executescript(_TABLES)
            self._key = self._secret()
        except sqlite3.Error as error:
            raise InputError(f"the map of pseudonyms {path} cannot be used ({error}): name another one with --map, or put a copy of it back") from error

    def _secret(self) -> bytes:
        with self._database as database:
            database.execute("INSERT OR IGNORE INTO secret VALUES (1, ?, ?)", (_VERSION, secrets.token_bytes(32)))
            version, key = database.execute("SELECT version, key FROM secret").fetchone()
        if version != _VERSION:
            raise InputError(f"the map of pseudonyms {self.path} is of version {version}, this program writes {_VERSION}: name another one with --map")
        return bytes(key)

    def __enter__(self) -> Pseudonyms:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if error is None:
                self.save()
        finally:
            self._database.close()

    def save(self) -> None:
        """Write down what was given out since the last time; raises `InputError` where that cannot be done."""
        if not self._unsaved and not self._patients:
            return
        new = [(old, self._uids[old]) for old in self._unsaved]
        try:
            with self._database as database:
                database.executemany("INSERT OR IGNORE INTO uids VALUES (?, ?)", new)
                database.executemany("INSERT OR IGNORE INTO patients VALUES (?, ?)", self._patients.items())
        except sqlite3.Error as error:
            raise InputError(
                f"the map of pseudonyms {self.path} cannot be written ({error}): try again when nobody else uses it and the disk has room"
            ) from error
        self._unsaved, self._patients = [], {}

    def uid(self, old: str) -> str:
        """Return the UID that stands for another one; those of the standard stand for themselves."""
        if not old or old.startswith(_WELL_KNOWN):
            return old
        if old not in self._uids:
            self._uids[old] = f"2.25.{uuid.UUID(bytes=self._hash('uid', old)[:16], version=5).int}"
            self._unsaved.append(old)
        return self._uids[old]

    def patient(self, identity: PatientIdentity, study_uid: str) -> str:
        """Return a patient's pseudonym: of Patient ID and issuer, else of name and birth date, else of the study alone."""
        if identity.patient_id:
            facts = ("id", identity.patient_id, identity.issuer)
        elif identity.name:
            facts = ("name", identity.name, identity.birth_date)
        else:
            facts = ("study", study_uid, "")
        pseudonym = "P" + self._hash("patient", *facts).hex()[:12].upper()
        if pseudonym not in self._known:
            self._known.add(pseudonym)
            self._patients[pseudonym] = "\x1f".join(facts)
        return pseudonym

    def keep_options(self, out: Path, options: Options) -> bool:
        """Write down with which options a folder is filled; raises `InputError` where it holds what was exported with others.

        False where it holds files, and nothing is known of their options: of an earlier version, or of another map.
        """
        folder, wanted, empty = str(out.resolve()), options.as_text(), not any(path.is_file() for path in out.rglob("*"))
        try:
            with self._database as database:
                known = database.execute("SELECT options FROM outputs WHERE folder = ?", [folder]).fetchone()
                if known is None or empty:
                    database.execute("INSERT OR REPLACE INTO outputs VALUES (?, ?)", (folder, wanted))
        except sqlite3.Error as error:
            raise InputError(f"the map of pseudonyms {self.path} cannot be written ({error}): try again when nobody else uses it") from error
        if known is not None and not empty and known[0] != wanted:
            was = f"{out} holds what was exported with other options ({known[0]}) than these ({wanted})"
            raise InputError(f"{was}: name another folder with --out, or give the same options")
        return empty or known is not None

    def shift(self, pseudonym: str) -> timedelta:
        """Return by how much a patient's dates are moved: whole days into the past."""
        low, high = _DAYS
        return -timedelta(days=low + int.from_bytes(self._hash("shift", pseudonym)[:8], "big") % (high - low))

    def _hash(self, *facts: str) -> bytes:
        return hmac.digest(self._key, "\x1f".join(facts).encode("utf-8", "surrogatepass"), "sha256")


def _make_or_check(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if not path.is_file():
            raise InputError(f"the map of pseudonyms {path} is no file: name one with --map") from None
        if too_open(path):
            problem = f"the map of pseudonyms {path} may be read by others: it leads back to patients; `chmod 600` it, and ask who has read it"
            raise InputError(problem) from None
    except OSError as error:
        raise InputError(f"the map of pseudonyms {path} cannot be made ({error.strerror}): name a file that can be written with --map") from error


def copy_map(path: Path, to: Path) -> None:
    """Copy a map as it is at one moment, though an export may write it; the copy is its owner's only. Raises `sqlite3.Error`."""
    os.close(os.open(to, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(to)) as copy:
        source.backup(copy)


def too_open(path: Path) -> bool:
    """Tell whether others than its owner may do anything with a file."""
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))
