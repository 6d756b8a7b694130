"""`pacs-node fsck`: spool, study folders, results and database compared, and what differs put right.

Nothing is deleted that a sender was told is kept: it is indexed again, or moved to quarantine. Only what was never acknowledged goes,
half-written files and result files of runs that were never committed, and what retention has given up already.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import select, text
from sqlalchemy.orm import selectinload

from pacs_node import node
from pacs_node.config import Settings
from pacs_node.database import deliveries, removal, studies
from pacs_node.database.alerts import audit
from pacs_node.database.engine import Store
from pacs_node.database.tables import AsideRow, DeliveryRow, InstanceRow, ObjectRow
from pacs_node.dicom.file_meta import read_meta
from pacs_node.errors import DatabaseUnavailable, DataFolderInUse, InputError, UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.operate import operator
from pacs_node.journey.pressure import half_files, uncommitted
from pacs_node.journey.receive import note_quarantined, receive
from pacs_node.journey.reconcile import index_again, put_into_quarantine, unknown_files, waiting
from pacs_node.journey.retire import work_off
from pacs_node.reception.notes import read_note
from pacs_node.reception.part10 import sender_of
from pacs_node.routing import Rules
from pacs_node.workbench.deidentify.pseudonyms import MAP, too_open

_PAGE = 1000  # rows looked at at once


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. ``remedy`` is a participle: what is, or would be, done about it."""

    what: str
    where: str
    remedy: str
    mend: Callable[[], object] | None = None  # None: only a person can

    def line(self, repaired: bool) -> str:
        """Return what, where, what was done, as one line."""
        return f"{self.what}: {self.where}: {self.outcome(repaired)}"

    def outcome(self, repaired: bool) -> str:
        """Say what was done about it, or would be, or has to be."""
        return self.remedy if self.mend is None or repaired else f"would be {self.remedy} (--repair)"


@dataclass
class Report:
    """What was looked at and found."""

    findings: list[Finding]
    repaired: bool
    waiting: int = 0  # arrivals in the spool: no fault
    node_runs: bool = False

    @property
    def open(self) -> int:
        """How many findings remain as they are."""
        return sum(1 for finding in self.findings if not self.repaired or finding.mend is None)

    def sentence(self) -> str:
        """Sum it up."""
        found = f"{len(self.findings)} differences, {self.open} of them remain" if self.findings else "spool, study folders, results and database agree"
        waits = f"; {self.waiting} arrivals wait in the spool to be indexed" if self.waiting else ""
        runs = "; the node runs: what it has in hand just now may be among them" if self.node_runs and self.findings else ""
        return found + waits + runs

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        rows = [{"what": one.what, "where": one.where, "outcome": one.outcome(self.repaired)} for one in self.findings]
        return {"findings": rows, "open": self.open, "waiting": self.waiting, "repaired": self.repaired, "node_runs": self.node_runs}


def examine(settings: Settings, *, repair: bool, deep: bool, said: Callable[[Finding], None] = lambda finding: None) -> Report:
    """Compare, and mend where ``repair`` says so; ``said`` hears of each finding as soon as it is dealt with.

    ``deep`` also reads the beginning of every received file. Raises `DataFolderInUse` where a node runs that ``repair`` would disturb,
    `InputError` where there is no data folder.
    """
    if not settings.node.data.is_dir():
        raise InputError(f"there is no data folder {settings.node.data}: name the node's configuration with --config")
    with ExitStack() as stack:
        report = Report([], repair)
        try:
            stack.enter_context(node.locked(settings.node.data, node.ROLES["all"]))
        except DataFolderInUse:
            if repair:
                raise
            report.node_runs = True
        house = stack.enter_context(_opened(settings, repair=repair))
        for finding in _findings(house, repair=repair, deep=deep):
            if repair and finding.mend is not None:
                finding.mend()
            report.findings.append(finding)
            said(finding)
        if repair and report.findings:
            with suppress(DatabaseUnavailable), house.store.write() as session:  # it may be what is broken
                audit(session, operator(), "repair", f"node {settings.node.name}", dict(Counter(finding.what for finding in report.findings)), house.clock())
        report.waiting = sum(1 for shard in house.spool.new.iterdir() for path in shard.glob("*.dcm"))
    return report


@contextmanager
def _opened(settings: Settings, *, repair: bool) -> Iterator[House]:
    """Give the house as it is; without a database, a look-only run gets an empty one in memory."""
    house = node.make_house(settings, Rules((), {}))  # nothing is judged here, so that faulty rules are no obstacle
    fresh = settings.database.url is None and not (settings.node.data / "node.db").is_file()
    if fresh and not repair:
        house.store = Store("sqlite://")
    if fresh or repair:
        house.store.upgrade()
    try:
        yield house
    finally:
        house.store.close()


def _findings(house: House, *, repair: bool, deep: bool) -> Iterator[Finding]:
    """Give what is found, in an order in which a repair makes later findings vanish: strangers are indexed before anybody is missed."""
    yield from _database(house)
    yield from _map(house)
    yield from _half_files(house)
    yield from _given_up(house)
    yield from _strangers(house)
    yield from _damaged_arrivals(house)
    if deep:
        yield from _damaged(house)
    if repair:
        while waiting(house) and receive(house, house.clock()):
            pass
    yield from _missing(house)
    yield from _aside(house)
    yield from _results(house)


# --- the database ----------------------------------------------------------------------------------------------------------


def _database(house: House) -> Iterator[Finding]:
    if not house.store.url.startswith("sqlite"):
        return
    try:
        with house.store.read() as session:
            said = [*session.scalars(text("PRAGMA integrity_check(5)")), *session.execute(text("PRAGMA foreign_key_check"))]
    except DatabaseUnavailable as error:
        said = [error.reason]
    for problem in said:
        if problem != "ok":
            remedy = "put a backup in its place, or move it aside: the index is then made anew from the files, and studies are judged again"
            yield Finding("damaged database", f"node.db ({problem})", remedy)


def _map(house: House) -> Iterator[Finding]:
    path = house.data / MAP
    if path.is_file() and too_open(path):
        yield Finding("map of pseudonyms that others may read", MAP, "closed to others; ask who has read it", partial(path.chmod, 0o600))


# --- files without rows ----------------------------------------------------------------------------------------------------


def _half_files(house: House) -> Iterator[Finding]:
    for path in half_files(house.data):
        yield Finding("half-written file, never acknowledged", _name(house, path), "removed", path.unlink)
    for path in uncommitted(house):
        yield Finding("result file of a run that was not committed", _name(house, path), "removed", path.unlink)


def _given_up(house: House) -> Iterator[Finding]:
    """Give the files whose removal was interrupted: a running node removes them at its next look."""
    with house.store.read() as session:
        listed = removal.listed(session)
    if any((house.data / path).exists() for path in listed):
        yield Finding("removal that was interrupted", f"{len(listed)} files", "finished", partial(work_off, house))


def _strangers(house: House) -> Iterator[Finding]:
    for path in list(unknown_files(house)):
        try:
            sender_of(path)
            remedy = "indexed again"
        except UnreadableObject:
            remedy = "moved to quarantine"
        yield Finding("file that the index does not know", _name(house, path), remedy, partial(index_again, house, path))


def _damaged_arrivals(house: House) -> Iterator[Finding]:
    for path in sorted(house.spool.new.glob("*/*.dcm")):
        try:
            sender_of(path)
        except UnreadableObject as error:
            reason = f"it lay in the spool and cannot be read: {error.reason}"
            yield Finding("arrival that cannot be read", _name(house, path), "moved to quarantine", partial(put_into_quarantine, house, path, reason))
    for path in sorted(house.spool.new.glob("*/*.note")):
        try:
            read_note(path, house.clock())
        except UnreadableObject as error:
            reason = f"it lay in the spool and cannot be read: {error.reason}"
            yield Finding("request that cannot be read", _name(house, path), "moved to quarantine", partial(put_into_quarantine, house, path, reason))


# --- rows without files ----------------------------------------------------------------------------------------------------


def _instances(house: House) -> Iterator[tuple[InstanceRow, Path]]:
    last = 0
    while True:
        with house.store.read() as session:
            rows = session.scalars(select(InstanceRow).where(InstanceRow.id > last).order_by(InstanceRow.id).limit(_PAGE)).all()
        for row in rows:
            if row.removed_at is None:  # the others are tombstones
                yield row, house.data / studies.instance_path(row)
        if not rows:
            return
        last = rows[-1].id


def _missing(house: House) -> Iterator[Finding]:
    arrived = {path.stem for path in house.spool.new.glob("*/*.dcm")}
    for row, path in _instances(house):
        if not path.is_file():
            if row.arrival in arrived:
                take = partial(receive, house, house.clock())
                yield Finding("file that is still in the spool", f"instance {row.id} of study {row.study_id}", "moved into place", take)
                continue
            message = f"the file of instance {row.id} of study {row.study_id} is missing ({_name(house, path)}): have the study sent again"
            where = f"instance {row.id} of study {row.study_id}, {_name(house, path)}"
            yield Finding("missing file", where, "said as an alert: have the study sent again", partial(house.alert, "file", f"instance {row.id}", message))


def _damaged(house: House) -> Iterator[Finding]:
    for row, path in _instances(house):
        if not path.is_file():
            continue
        try:
            meta = read_meta(path)
            found = str(meta.get("MediaStorageSOPInstanceUID") or "")
            problem = "" if found == row.sop_uid else f"it holds another object than the index says ({found or 'none'})"
        except UnreadableObject as error:
            problem = error.reason
        if problem:
            where = f"instance {row.id} of study {row.study_id}, {_name(house, path)} ({problem})"
            yield Finding("damaged file", where, "moved to quarantine", partial(put_into_quarantine, house, path, problem))


def _aside(house: House) -> Iterator[Finding]:
    with house.store.read() as session:
        known = {row.path: row for row in session.scalars(select(AsideRow))}
    arrived = {path.stem for path in house.spool.new.glob("*/*.dcm")}
    for relative, row in known.items():
        if row.removed_at is None and not (house.data / relative).is_file() and Path(relative).stem not in arrived:
            yield Finding(f"missing file kept aside ({row.kind})", relative, "taken off the list", partial(_forget, house, row.id))
    for item in house.spool.quarantined():
        if _name(house, item.path) not in known:
            yield Finding("quarantined file that is on no list", _name(house, item.path), "listed", partial(note_quarantined, house, [item], house.clock()))
    for path in sorted((house.data / "aside").glob("*.dcm")):
        if _name(house, path) not in known:
            yield Finding("file kept aside that is on no list", _name(house, path), "indexed again", partial(_readmit, house, path))


def _forget(house: House, number: int) -> None:
    with house.store.write() as session:
        session.delete(session.get_one(AsideRow, number))


def _readmit(house: House, path: Path) -> None:
    index_again(house, path)
    receive(house, house.clock())


def _results(house: House) -> Iterator[Finding]:
    """Look at the stored objects that are still to be sent: what is out already cannot be mended here."""
    with house.store.read() as session:
        mine = (DeliveryRow.state.in_(deliveries.UNFINISHED), DeliveryRow.object_id.is_not(None))
        query = select(DeliveryRow).where(*mine).options(selectinload(DeliveryRow.object))
        objects = {row.object.id: row.object for row in session.scalars(query) if row.object is not None}
    for obj in objects.values():
        problem = _fault_of(house.data / obj.path, obj)
        if problem:
            yield Finding(f"result to be sent that {problem}", obj.path, f"run the job again: `pacs-node retry job {obj.job_id}`")


def _fault_of(path: Path, obj: ObjectRow) -> str:
    try:
        return "" if hashlib.sha256(path.read_bytes()).hexdigest() == obj.sha256 else "is not what was built"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _name(house: House, path: Path) -> str:
    return str(path.relative_to(house.data))
