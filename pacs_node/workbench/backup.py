"""`pacs-node backup`: a consistent copy of a node, made while it runs.

::

    1 pin         retention removes nothing from now on (`retention.sweep.pinned`); the pin ends with this process, however that ends
    2 database    copied at one moment T: SQLite by its online backup, PostgreSQL by pg_dump of an exported snapshot
    3 spool       every entry that lies there after T
    4 kept files  whatever the copied database names and step 3 did not meet
    5 newcomers   what came into the study folders after T goes into the copy's spool
    6 the rest    configuration, and a list of what is in the copy

Why every file that the copied database names is in the copy: received files are written once under a name that is never used again, and
then only moved, from the spool to where a row says, after that row was committed. A row of the copy was committed before T; its file is
where the row says, or still in the spool. Looked for in the spool first and at its place afterwards, it is met at least once; met in the
spool, it is put at its place in the copy. Files that rows name are removed by retention only (pinned), and results are on the disk before
their rows. What was acknowledged after T and before its part of the copy was made is in the copy as an arrival, to be indexed at the start.

What is missing all the same (a disk's fault, or retention that a full disk forced) is listed, and so is what could not be read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from pacs_node.config import Settings
from pacs_node.database.alerts import audit
from pacs_node.database.engine import Store
from pacs_node.errors import DatabaseUnavailable, InputError, UnreadableObject
from pacs_node.journey import now, rules_file
from pacs_node.journey.operate import operator
from pacs_node.reception.part10 import sender_of
from pacs_node.reception.spool import SUFFIXES
from pacs_node.retention.sweep import pinned
from pacs_node.workbench.backup_database import Named, copy_database, leave_out_finished
from pacs_node.workbench.backup_target import PACKED, Target, target_of
from pacs_node.workbench.deidentify.pseudonyms import MAP, copy_map
from pacs_node.workbench.tables import open_store

MANIFEST = "backup.json"


@dataclass
class Copied:
    """What a backup holds, and what it does not."""

    out: str
    made_at: str = ""
    node: str = ""
    version: str = ""
    database: str = ""  # file in the copy
    files: int = 0
    bytes: int = 0
    newcomers: int = 0  # arrivals of the copy's spool
    left_out: int = 0  # studies whose originals are not in it, as was asked
    missing: list[str] = field(default_factory=list)  # files that the database names and that could not be copied

    def sentence(self) -> str:
        """Sum it up."""
        parts = [f"{self.out}: {self.files} files, {self.bytes / 1e6:.1f} MB, of node {self.node} at {self.made_at}"]
        parts += [f"{self.newcomers} arrivals that were not indexed yet"] * bool(self.newcomers)
        parts += [f"without the originals of {self.left_out} finished studies"] * bool(self.left_out)
        parts += [f"{len(self.missing)} files are missing: {', '.join(self.missing[:5])}"] * bool(self.missing)
        return "; ".join(parts)


def back_up(settings: Settings, config: Path | None, out: Path, *, originals: bool = True, said: Callable[[str], None] = lambda step: None) -> Copied:
    """Copy a node to ``out``, a folder or a file named ``.tar``; ``originals`` False leaves those of finished studies out.

    ``said`` hears of each step. Raises `InputError` where the target is in the way, the disk too small, the database damaged or a program
    missing; nothing is left at ``out`` then.
    """
    data = settings.node.data
    _refuse_bad_target(settings, out, originals=originals)
    copied = Copied(str(out), datetime.now(UTC).isoformat(timespec="seconds"), settings.node.name, version("pacs-node"))
    with pinned(data), _scratch(out) as scratch:
        said("database")
        with open_store(settings) as store:
            _note_in_audit(store, out, originals=originals)
            named = copy_database(store, scratch)
            if not originals:
                copied.left_out = leave_out_finished(named, datetime.now(UTC))
        with target_of(out) as target:
            copy = _Copy(data, named, target, copied)
            said("files")
            copy.spool()
            copy.kept()
            copy.newcomers()
            copy.map(scratch)
            copied.database = _put_database(target, named, copied)
            _put_configuration(settings, config, target, copied)
            target.put_text(MANIFEST, json.dumps(asdict(copied), indent=1) + "\n")
    return copied


def _note_in_audit(store: Store, out: Path, *, originals: bool) -> None:
    """Write down that all that the node holds is copied. A database that takes nothing more can still be copied, which matters more then."""
    with suppress(DatabaseUnavailable), store.write() as session:
        audit(session, operator(), "backup", "node", {"to": str(out), "originals": originals}, now())


class _Copy:
    """The files of a data folder on their way into a copy."""

    def __init__(self, data: Path, named: Named, target: Target, copied: Copied) -> None:
        self._data, self._named, self._target, self._copied = data, named, target, copied
        self._met: set[str] = set()  # paths of the copy that are there
        self._inodes: set[tuple[int, int]] = set()  # of what was met in the spool: it may be met again where it is moved to

    def spool(self) -> None:
        """Copy the spool; what a row of the copied database waits for is put where that row says."""
        for path in sorted(self._data.glob("spool/new/*/*")):
            if path.suffix in SUFFIXES:
                place = self._named.arrivals.get(path.stem) if path.suffix == ".dcm" else None
                inode = self._put(path, place or str(path.relative_to(self._data)))
                if inode is not None:
                    self._inodes.add(inode)
                    self._copied.newcomers += place is None and path.suffix == ".dcm"

    def kept(self) -> None:
        """Copy what the copied database names."""
        for name in sorted(self._named.paths - self._met):
            if self._put(self._data / name, name) is None and not (name.startswith("quarantine/") and name.endswith(".json")):
                self._copied.missing.append(name)

    def newcomers(self) -> None:
        """Copy what came since into the copy's spool; what came into quarantine goes there."""
        for path in sorted(self._data.glob("quarantine/*")):
            name = str(path.relative_to(self._data))
            if path.suffix in (*SUFFIXES, ".json") and name not in self._met and name not in self._named.removed:
                self._put(path, name)
        for path in (*self._data.glob("studies/[0-9]*/[0-9]*/[0-9]*.dcm"), *self._data.glob("aside/*.dcm")):
            name = str(path.relative_to(self._data))
            if name not in self._met and name not in self._named.removed:
                self._admit(path, name)

    def map(self, scratch: Path) -> None:
        """Copy the map of pseudonyms: without it later exports would give the patients other ones."""
        try:
            if (self._data / MAP).is_file():
                copy_map(self._data / MAP, scratch / MAP)
                self._put(scratch / MAP, MAP)
        except sqlite3.Error as error:
            self._copied.missing.append(f"{MAP} ({error})")

    def _admit(self, path: Path, name: str) -> None:
        try:
            facts, sender = path.stat(), sender_of(path)
        except (OSError, UnreadableObject) as error:
            self._copied.missing.append(f"{name} ({error})")
            return
        if (facts.st_dev, facts.st_ino) not in self._inodes:
            association = re.sub("[^0-9a-z]", "", sender.association)[:26]
            self._copied.newcomers += self._put(path, f"spool/new/00/{time.time_ns():020d}-{association}copied-{len(self._met):06d}.dcm") is not None

    def _put(self, source: Path, name: str) -> tuple[int, int] | None:
        """Copy one file; None where it is not there any more, else what it is to the file system."""
        try:
            with source.open("rb") as stream:
                facts = os.fstat(stream.fileno())
                self._target.put(stream, name, facts)
        except FileNotFoundError:
            return None
        self._met.add(name)
        self._copied.files, self._copied.bytes = self._copied.files + 1, self._copied.bytes + facts.st_size
        return facts.st_dev, facts.st_ino


def _put_database(target: Target, named: Named, copied: Copied) -> str:
    name = "data/node.db" if named.file.suffix == ".db" else named.file.name
    with named.file.open("rb") as stream:
        facts = os.fstat(stream.fileno())
        target.put(stream, name.removeprefix("data/"), facts, data=name.startswith("data/"))
    copied.files, copied.bytes = copied.files + 1, copied.bytes + facts.st_size
    return name


def _put_configuration(settings: Settings, config: Path | None, target: Target, copied: Copied) -> None:
    """Copy the two files that an administrator edits; certificates, keys and passwords are not in a backup."""
    for name, path in (("node.yaml", config), ("rules.yaml", rules_file(settings))):
        if path is not None and path.is_file():
            target.put_text(f"config/{name}", path.read_text())
            copied.files += 1


# --- before anything is written ----------------------------------------------------------------------------------------------


def _refuse_bad_target(settings: Settings, out: Path, *, originals: bool) -> None:
    data, place = settings.node.data.resolve(), out.resolve()
    if out.suffix in PACKED:
        raise InputError(f"{out}: a backup is a folder or a .tar file; pack that where you wish")
    if out.exists():
        raise InputError(f"{out} is there already: a backup is never written over another; name a new folder or .tar file")
    if not place.parent.is_dir():
        raise InputError(f"there is no folder {place.parent}: make it, or name another place with --out")
    if data == place or data in place.parents:
        raise InputError(f"{out} is in the data folder {data}: name a place outside of it, best on another disk")
    if not originals and not (settings.database.url or "sqlite").startswith("sqlite"):
        raise InputError("--without-originals works with SQLite only: the dump of PostgreSQL cannot say that files are not there")
    folders = [*(["studies"] if originals else []), "spool", "results", "aside", "quarantine"]
    needed = sum(entry.stat().st_size for folder in folders for entry in _files(data / folder)) if data.is_dir() else 0
    free = shutil.disk_usage(place.parent).free
    if needed > free:
        raise InputError(f"{place.parent} has {free / 1e9:.1f} GB free and the backup needs {needed / 1e9:.1f} GB: name another place with --out")


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                elif entry.is_file(follow_symlinks=False):
                    yield entry
    except FileNotFoundError:
        return  # moved on, or never made


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)
