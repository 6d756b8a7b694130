"""Files → index: what lies in the studies folder and stands in no row is taken back into the spool, and indexed again like any arrival.

A row is committed before its file is moved, so this finds nothing as long as the database is whole. It matters where the database was lost,
or an older copy of it was put back: then the files are the truth.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import select

from pacs_node.database import removal, studies
from pacs_node.database.alerts import audit
from pacs_node.database.tables import InstanceRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.receive import note_quarantined, receive
from pacs_node.reception.files import FileLayer
from pacs_node.reception.returning import take_back
from pacs_node.reception.spool import SUFFIXES
from pacs_node.reception.spool_file import write_note
from pacs_node.records import Quarantined, Sender


def catch_up(house: House) -> int:
    """At the start of the core: take back what the index lacks, then index all that waits; returns how many files were taken back.

    Everything is indexed before any study is judged, however long it has waited: a study that lies in the spool is not complete by halves. Then
    all that wait are looked at, since rules and settings may have changed.
    """
    count = sum(1 for path in unknown_files(house) if index_again(house, path))
    if count:
        house.log.warning("files taken back into the spool", count=count, why="the index knew nothing of them")
        with house.store.write() as session:
            audit(session, "core", "reindex", "studies folder", {"files": count}, house.clock())
    moment = house.clock()
    while waiting(house, f"{int(moment.timestamp() * 1e9):020d}") and receive(house, moment):
        pass
    with house.store.write() as session:
        studies.wake_all(session, house.clock())
    return count


def waiting(house: House, before: str = "~") -> bool:
    """Tell whether the spool holds an entry whose name is below ``before``: names begin with the moment of arrival."""
    return any(name < before for shard in house.spool.new.iterdir() for name in os.listdir(shard) if name.endswith(SUFFIXES))


def unknown_files(house: House) -> Iterator[Path]:
    """Give the files of the studies folder that no row names; files with names that are not ours are left alone."""
    with house.store.read() as session:
        kept = studies.aside_paths(session, "superseded").union(removal.listed(session))
    for folder in sorted((house.data / "studies").glob("[0-9]*/[0-9]*"), key=lambda folder: (len(folder.name), folder.name)):
        if not folder.name.isdecimal():
            continue
        with house.store.read() as session:
            rows = session.scalars(select(InstanceRow).where(InstanceRow.study_id == int(folder.name)))
            known = {studies.instance_path(row) for row in rows}
        for path in sorted(folder.glob("[0-9]*.[0-9]*.dcm")):
            relative = str(path.relative_to(house.data))
            if relative not in known and relative not in kept:
                yield path


def index_again(house: House, path: Path) -> bool:
    """Take a file back into the spool; one that names no sender goes to quarantine with the reason. False there."""
    try:
        take_back(house.spool.new, path)
    except UnreadableObject as error:
        put_into_quarantine(house, path, f"it lay in the studies folder, unknown to the index, and cannot be indexed: {error.reason}")
        return False
    return True


def put_into_quarantine(house: House, path: Path, reason: str) -> None:
    """Move any file of the data folder into quarantine, with an alert."""
    moment, files = house.clock(), FileLayer()
    name = "-".join((*path.relative_to(house.data).with_suffix("").parts, f"{moment:%Y%m%dT%H%M%S%f}"))
    target = house.spool.quarantine_folder / f"{name}{path.suffix}"
    write_note(files, target.with_suffix(".json"), {"sender": asdict(Sender()), "reason": reason})
    files.rename(path, target)
    files.sync_folder(target.parent)
    files.sync_folder(path.parent)
    note_quarantined(house, [Quarantined(target, name, reason, Sender(), moment)], moment)
