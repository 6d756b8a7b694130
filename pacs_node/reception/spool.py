"""The durable spool: what was acknowledged is here, under a name that a restart finds.

::

    data/spool/new/00 … 0f/NAME.dcm     an acknowledged instance (Part 10, dataset bytes as received)
                           NAME.end     the end of an association (JSON)
                           NAME.note    a DIMSE-N request (JSON)
                           NAME.refused peers that were refused, counted (JSON)
                           *.part       being written; never acknowledged
    data/quarantine/NAME.dcm, NAME.json kept aside with the reason

NAME is made of the time in nanoseconds, the association identifier and a counter: unique, in the order of arrival, and free of
anything received. One association writes into one shard. A receiver writes, one reader takes away.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
import re
import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from pacs_node.errors import SpoolFull, UnreadableObject
from pacs_node.reception.conversation import NoteRequest
from pacs_node.reception.crashing import file_layer
from pacs_node.reception.files import Bytes, FileLayer
from pacs_node.reception.notes import content_of, read_note
from pacs_node.reception.part10 import Incoming, sender_of
from pacs_node.reception.pressure import measure
from pacs_node.reception.spool_file import SpoolFile, disk_faults, write_note
from pacs_node.records import Arrival, AssociationEnd, Note, Quarantined, Refusal, Sender

SHARDS = 16
SUFFIXES = (".dcm", ".end", ".note", ".refused")  # of the entries of the spool

Entry = Arrival | AssociationEnd | Note | Refusal

_NAME = re.compile(r"([0-9]{20})-([0-9a-z]{1,32})-([0-9]{6,})")
_REFUSED = "refused"  # in the place of an association, which a refused peer has none of
_ASSOCIATION = re.compile(r"[0-9a-z]{1,32}")


class Spool:
    """The spool in a data folder; several processes may write to it at once.

    Parameters
    ----------
    data
        the node's data folder; the folders of the spool are made in it
    address
        this node's presentation address, ``host:port``, for the file meta information
    files
        the file operations, replaced in tests

    Every method that writes raises `SpoolFull` where the disk takes no more; nothing of the file stays behind then.
    """

    def __init__(self, data: Path, address: str = "", files: FileLayer | None = None) -> None:
        self.new, self.quarantine_folder = data / "spool" / "new", data / "quarantine"
        self._address, self._files = address, files or file_layer()
        self._lock, self._last_time, self._count = threading.Lock(), 0, 0
        self._shards = [self.new / f"{number:02x}" for number in range(SHARDS)]
        missing = [folder for folder in (*self._shards, self.quarantine_folder) if not folder.is_dir()]
        for folder in missing:
            folder.mkdir(parents=True, exist_ok=True)
        for parent in dict.fromkeys(parent for folder in missing for parent in (folder.parent, folder.parent.parent, data.parent)):
            with contextlib.suppress(PermissionError):  # the parent of the data folder may be someone else's
                self._files.sync_folder(parent)
        self._last_time = max((int(name[:20]) for name, _ in self._entries()), default=0)  # nor does one that was set back before a restart

    # --- writing -------------------------------------------------------------------------------------------------------

    def open(self, incoming: Incoming) -> SpoolFile:
        """Begin the file of an instance; nothing of it is seen before `SpoolFile.commit`."""
        return SpoolFile(self._files, self._path(incoming.sender, ".dcm"), self.quarantine_folder, incoming, self._address)

    def store(self, sender: Sender, sop_class: str, sop_instance: str, transfer_syntax: str, parts: Iterable[Bytes]) -> Path:
        """Keep an instance; on return it is on the disk and success may be answered.

        ``parts`` are the dataset's bytes as received, in order.
        """
        return self._filled(Incoming(sender, sop_class, sop_instance, transfer_syntax), parts).commit()

    def end_association(self, sender: Sender, *, released: bool, stored: int, refused: int) -> AssociationEnd:
        """Write the marker that says that an association is over, after its instances in the order of names."""
        path = self._path(sender, ".end")
        name = path.stem
        marker = {"sender": asdict(sender), "released": released, "stored": stored, "refused": refused}
        self._write_json(path, marker)
        return AssociationEnd(path, name, sender, released, stored, refused, _time_of(name))

    def note(self, sender: Sender, service: str, request: NoteRequest) -> Path:
        """Keep a DIMSE-N request for the core; on return it is on the disk and success may be answered."""
        path = self._path(sender, ".note")
        self._write_json(path, content_of(sender, service, request))
        return path

    def refusal(self, calling_ae: str, called_ae: str, host: str, reason: str, count: int, kind: str = "sender") -> Path:
        """Write down that a peer, or with ``kind`` ``login`` a user, was refused ``count`` times."""
        sender = Sender(calling_ae, called_ae, host, f"{_REFUSED}{os.getpid()}")
        path = self._path(sender, ".refused")
        self._write_json(path, {"sender": asdict(sender), "reason": reason, "count": count, "kind": kind})
        return path

    def set_aside(self, incoming: Incoming, parts: Iterable[Bytes], reason: str) -> Path:
        """Keep an object that cannot be accepted, with the reason, in quarantine."""
        return self._filled(incoming, parts).set_aside(reason)

    def quarantine(self, arrival: Arrival | Note, reason: str) -> Quarantined:
        """Move an arrival that turned out to be unusable into quarantine, with the reason."""
        target = self.quarantine_folder / arrival.path.name
        self._write_json(target.with_suffix(".json"), {"sender": asdict(arrival.sender), "reason": reason})
        self._files.rename(arrival.path, target)
        self._files.sync_folder(target.parent)
        self._files.sync_folder(arrival.path.parent)
        return Quarantined(target, arrival.name, reason, arrival.sender, arrival.received_at)

    def _path(self, sender: Sender, suffix: str) -> Path:
        if not _ASSOCIATION.fullmatch(sender.association):
            raise ValueError(f"{sender.association!r} is no association identifier: 1 to 32 digits and small letters")
        with self._lock:
            self._last_time = max(self._last_time + 1, time.time_ns())  # a clock that steps back does not change the order
            self._count += 1
            name = f"{self._last_time:020d}-{sender.association}-{self._count:06d}"
        return self._shards[zlib.crc32(sender.association.encode()) % SHARDS] / f"{name}{suffix}"

    def _filled(self, incoming: Incoming, parts: Iterable[Bytes]) -> SpoolFile:
        file = self.open(incoming)
        try:
            for part in parts:
                file.write(part)
        except BaseException:
            file.discard()
            raise
        return file

    def _write_json(self, path: Path, content: object) -> None:
        with disk_faults(path.parent):
            write_note(self._files, path, content)

    # --- reading -------------------------------------------------------------------------------------------------------

    def arrivals(self, limit: int = 500) -> list[Entry]:
        """Return the ``limit`` oldest entries in the order of their names.

        They stay until `forget` takes them away. An entry that cannot be read is moved to quarantine and left out.
        """
        found: list[Entry] = []
        for name, path in heapq.nsmallest(limit, self._entries()):
            try:
                found.append(_read(path, name))
            except FileNotFoundError:
                continue  # taken away since the folder was listed
            except UnreadableObject as error:
                with contextlib.suppress(SpoolFull):  # it stays where it is until there is room for its note
                    self.quarantine(Arrival(path, name, _time_of(name), Sender()), error.reason)
        return found

    def _entries(self) -> Iterator[tuple[str, Path]]:
        for shard in self._shards:
            for entry in os.listdir(shard):
                name, suffix = os.path.splitext(entry)
                if suffix in SUFFIXES and _NAME.fullmatch(name):
                    yield name, shard / entry

    def arriving(self, seconds: float = 60.0) -> set[str]:
        """Return the associations over which an object is coming in: its file grew within the last ``seconds``."""
        found = set()
        for shard in self._shards:
            for entry in os.scandir(shard):
                if entry.name.endswith(".dcm.part") and (match := _NAME.match(entry.name)):
                    with contextlib.suppress(FileNotFoundError):  # it is whole by now
                        if time.time() - entry.stat().st_mtime < seconds:
                            found.add(match[2])
        return found

    def find(self, name: str) -> Path | None:
        """Return where the arrival of this name lies; None where it was taken away."""
        return next((path for shard in self._shards if (path := shard / f"{name}.dcm").is_file()), None)

    def quarantined(self) -> list[Quarantined]:
        """Return what lies in quarantine, oldest first."""
        found = []
        for path in sorted(path for path in self.quarantine_folder.iterdir() if path.suffix in SUFFIXES):
            try:
                note = json.loads(path.with_suffix(".json").read_bytes())
                sender, reason = Sender(**note["sender"]), str(note["reason"])
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                sender, reason = Sender(), "unknown: the note beside the object is missing or damaged"
            received = _time_of(path.stem) if _NAME.fullmatch(path.stem) else datetime.fromtimestamp(path.stat().st_mtime, UTC)
            found.append(Quarantined(path, path.stem, reason, sender, received))
        return found

    def forget(self, *entries: Entry | Quarantined) -> None:
        """Take entries away for good; each folder is synced once."""
        for entry in entries:
            self._files.remove(entry.path)
            if isinstance(entry, Quarantined):
                self._files.remove(entry.path.with_suffix(".json"))
        for folder in dict.fromkeys(entry.path.parent for entry in entries):
            self._files.sync_folder(folder)

    # --- care ----------------------------------------------------------------------------------------------------------

    def sweep_parts(self, untouched: float = 0.0) -> int:
        """Remove half-written files, none of which was acknowledged; return how many.

        ``untouched``: seconds for which nothing was written to them, above zero where receivers of other machines may be writing.
        """
        parts = [path for folder in (*self._shards, self.quarantine_folder) for path in folder.glob("*.part")]
        swept = [path for path in parts if not untouched or _age(path) > untouched]
        for path in swept:
            self._files.remove(path)
        return len(swept)

    def capacity(self) -> int:
        """Return the size of the spool's disk in bytes."""
        return measure(self.new).capacity

    def room(self, reserve_bytes: int) -> bool:
        """Tell whether more than the reserve is free on the spool's disk, in bytes that an ordinary user may take."""
        return measure(self.new).free > reserve_bytes


def _age(path: Path) -> float:
    """Return for how many seconds nothing was written to a file; 0 where it is gone."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _time_of(name: str) -> datetime:
    """Return the moment in a name, UTC."""
    nanoseconds = int(name[:20])
    return datetime.fromtimestamp(nanoseconds // 10**9, UTC).replace(microsecond=nanoseconds % 10**9 // 1000)


def _read(path: Path, name: str) -> Entry:
    match path.suffix:
        case ".end":
            return _read_marker(path)
        case ".note":
            return read_note(path, _time_of(name))
        case ".refused":
            return _read_refusal(path)
    return Arrival(path, name, _time_of(name), sender_of(path))


def _read_marker(path: Path) -> AssociationEnd:
    try:
        marker = json.loads(path.read_bytes())
        sender = Sender(**marker["sender"])
        return AssociationEnd(path, path.stem, sender, bool(marker["released"]), int(marker["stored"]), int(marker["refused"]), _time_of(path.stem))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableObject(path.name, f"the marker of an association's end is damaged ({error})") from error


def _read_refusal(path: Path) -> Refusal:
    try:
        marker = json.loads(path.read_bytes())
        facts = (Sender(**marker["sender"]), str(marker["reason"]), int(marker["count"]), _time_of(path.stem), str(marker.get("kind", "sender")))
        return Refusal(path, path.stem, *facts)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableObject(path.name, f"the marker of a refused peer is damaged ({error})") from error
