"""Stored objects → committed ones: where a destination's storage commitment decides, it is asked, and its reports are heeded.

::

    stored ─► uncommitted ── N-ACTION ─► report: committed ───────────────────────────────► delivered
                  ▲  │                           it does not have the object ─────────────► waiting (sent again)
                  │  │                           it never will ───────────────────────────► refused
                  │  └─ no report in time ─► C-FIND: there ─► delivered, said;   not there ─► waiting
                  └───────────────────────── cannot be asked: a new request, and after some of them ─► parked

The transaction is written down before the destination is asked. A report counts for the instances of its transaction whenever and from
whomever it comes, as often as it comes; one that says that an object is safe counts even where a later transaction asks about it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy.orm import Session

from pacs_node.config import Destination, DicomDestination
from pacs_node.database import commitments, studies
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.deliveries import clear_stuck, postpone, settle
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import CommitmentRow, DeliveryRow
from pacs_node.delivery import backoff, commitment, query
from pacs_node.dicom.commitment import Reference, Remedy, Report, Request, read_report, reason_of
from pacs_node.dicom.header import read_header
from pacs_node.errors import PermanentRefusal, TemporaryFailure, UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.noting import of_delivery
from pacs_node.journey.telling import say_stuck
from pacs_node.records import Note

POLICY = backoff.Policy()  # of requests that a destination does not take
SEND_AGAIN = backoff.Policy(first=timedelta(minutes=2), longest=timedelta(hours=2), give_up_after=timedelta(days=1))  # of objects that it lost
MOST_SILENT = 3  # requests that a destination took and did not report on, where it cannot be queried either
_AFTER_A_FAULT = timedelta(minutes=5)  # before what a fault of ours left in the middle is asked again
_MOST_QUERIES = 20  # objects of one round


def asks_for_commitment(destination: Destination | None) -> bool:
    """Tell whether an object counts as delivered only when the destination has committed to it."""
    return isinstance(destination, DicomDestination) and destination.commitment


def recover(house: House, moment: datetime) -> None:
    """At the start of the core: what was stored where commitment is not asked for any more is delivered."""
    plain = [name for name, destination in house.settings.destinations.items() if not asks_for_commitment(destination)]
    with house.store.write() as session:
        count = commitments.wait_no_longer(session, plain, moment)
        for name in plain:
            clear_alert(session, "commitment", name, moment)
    if count:
        house.log.warning("commitment is not waited for any more", count=count)


def commit(house: House, name: str, moment: datetime) -> int:
    """Do what is due about the commitment of one destination, for one study; returns for how many objects."""
    destination = house.settings.destinations[name]
    assert isinstance(destination, DicomDestination)
    longest = destination.commitment_within + timedelta(hours=3)
    with house.store.read() as session:
        unasked = commitments.due(session, name, moment, longest, asked=False)
        silent = commitments.due(session, name, moment, longest, asked=True)[:_MOST_QUERIES]
    if unasked:
        _ask(house, name, destination, unasked, moment)
    if silent:
        _look(house, name, destination, silent)
    return len(unasked) + len(silent)


# --- asking ----------------------------------------------------------------------------------------------------------------


def _ask(house: House, name: str, destination: DicomDestination, ids: Sequence[int], moment: datetime) -> None:
    uid, until = generate_uid(prefix=None), moment + _AFTER_A_FAULT
    with house.store.write() as session:
        rows = commitments.uncommitted(session, ids)
        for row in rows:
            row.asks, row.ask_at = row.asks + 1, until
        commitments.begin(session, uid, name, rows, moment)
        request = Request(uid, tuple(dict.fromkeys(Reference(row.sop_class_uid, row.sop_uid) for row in rows)))

    def heed(report: Report) -> None:
        take_report(house, report, destination.ae_title, house.clock())

    def heard() -> bool:
        with house.store.read() as session:
            found = commitments.find(session, uid)
            return found is not None and found.reported_at is not None

    try:
        answer = commitment.ask(destination, request, house.settings.node.ae_titles[0], heed, linger=commitment.LINGER, heard=heard)
    except PermanentRefusal as error:
        _put_off(house, name, ids, str(error), remedy=True)
    except TemporaryFailure as error:
        _put_off(house, name, ids, str(error))
    else:
        if answer.accepted:
            _asked(house, name, destination, uid, until)
        else:
            _put_off(house, name, ids, f"it answered the storage commitment request with status 0x{answer.status:04X}: {answer.comment or 'no comment'}")


def _asked(house: House, name: str, destination: DicomDestination, uid: str, until: datetime) -> None:
    """Note that the destination took the request; what its report has decided by then stays decided."""
    moment = house.clock()
    with house.store.write() as session:
        found = commitments.find(session, uid)
        assert found is not None
        found.accepted_at = moment
        waiting = [row for row in commitments.deliveries_of(session, found) if row.state is DeliveryState.UNCOMMITTED and row.ask_at == until]
        for row in waiting:
            row.asked_at, row.ask_at, row.ask_failures = moment, moment + destination.commitment_within, 0
        clear_alert(session, "commitment", name, moment)
    house.log.info("commitment asked for", destination=name, unanswered=len(waiting))


def _put_off(house: House, name: str, ids: Sequence[int], problem: str, *, remedy: bool = False) -> None:
    """Ask again later, with growing waits; after the limit the objects are parked and it is said."""
    moment, jitter = house.clock(), random.random()
    with house.store.write() as session:
        for row in commitments.uncommitted(session, ids):
            row.asks, row.ask_failures = row.asks - 1, row.ask_failures + 1
            again = backoff.next_attempt(row.ask_failures, moment, POLICY, lambda: jitter)
            row.ask_at, row.message = again, f"stored; its commitment cannot be asked for: {problem}"
            if again is None:
                _park(house, session, row, f"it was stored, but its commitment could not be asked for: {problem}", moment)
        text = f"{name} cannot be asked for storage commitment: {problem}. What it stored waits for that"
        advice = f"have it turned on there, or set destinations.{name}.commitment to false"
        new = raise_alert(session, "commitment", name, f"{text}: {advice}" if remedy else text, moment)
    log = house.log.error if new else house.log.warning
    log("commitment put off", destination=name, objects=len(ids), problem=problem)


# --- reports ---------------------------------------------------------------------------------------------------------------


def take_note(house: House, note: Note, dataset: Dataset, now: datetime) -> None:
    """Heed a report that a destination brought to one of our receivers; raises `UnreadableObject` for one that names no transaction."""
    take_report(house, read_report(dataset), note.sender.calling_ae, now)


def take_report(house: House, report: Report, calling_ae: str, moment: datetime) -> None:
    """Heed a report: each of its instances decides about its own delivery. Doing it again changes nothing."""
    with house.store.write() as session:
        found = commitments.find(session, report.transaction_uid)
        if found is None:
            house.log.warning("storage commitment report on an unknown transaction", sender=calling_ae, transaction=report.transaction_uid)
            return
        rows = {Reference(row.sop_class_uid, row.sop_uid): row for row in commitments.deliveries_of(session, found)}
        overtaken = commitments.overtaken(session, found)
        found.reported_at = found.reported_at or moment
        for reference in report.committed:
            if reference in rows:
                _committed(house, session, rows[reference], moment)
        for reference, reason in report.failed.items():
            if reference in rows and rows[reference].id not in overtaken:
                _failed(house, session, rows[reference], reason, moment)
        strangers = len({*report.committed, *report.failed} - rows.keys())
    _say_report(house, found, report, calling_ae, strangers)


def _say_report(house: House, found: CommitmentRow, report: Report, calling_ae: str, strangers: int) -> None:
    facts = {"destination": found.destination, "committed": len(report.committed), "failed": len(report.failed)}
    destination = house.settings.destinations.get(found.destination)
    if isinstance(destination, DicomDestination) and destination.ae_title != calling_ae:
        house.log.warning("storage commitment report from another AE title", sender=calling_ae, expected=destination.ae_title)
    if strangers:
        house.log.warning("storage commitment report on instances that were not asked about", sender=calling_ae, count=strangers)
    log = house.log.warning if report.failed else house.log.info
    log("storage commitment report", **facts, reasons=sorted({f"0x{reason:04X}" for reason in report.failed.values()}) or None)


def _committed(house: House, session: Session, row: DeliveryRow, moment: datetime) -> None:
    row.committed_at = row.committed_at or moment
    if row.state not in (DeliveryState.UNCOMMITTED, DeliveryState.WAITING, DeliveryState.PARKED):
        return  # delivered already; being sent once more, which ends as delivered then; or withdrawn
    settle(row, DeliveryState.DELIVERED, row.status, "stored, and the destination has committed to keep it", moment)
    clear_stuck(session, row, moment)
    audit(session, "delivery", "committed", _subject(row), of_delivery(house.settings, row), moment)


def _failed(house: House, session: Session, row: DeliveryRow, code: int, moment: datetime) -> None:
    """Do what a failure reason asks for; a delivery that does not wait for a report is left as it is."""
    if row.state is not DeliveryState.UNCOMMITTED:
        return
    reason = reason_of(code)
    said = f"stored, but not committed: {reason.meaning}"
    row.asked_at = None
    if reason.remedy is Remedy.REFUSED:
        settle(row, DeliveryState.REFUSED, code, said, moment)
        say_stuck(house, session, row, "refused", said, moment)
        return
    again = backoff.next_attempt(row.asks, moment, SEND_AGAIN, random.random)
    if again is None:
        _park(house, session, row, said, moment, code)
    elif reason.remedy is Remedy.SEND_AGAIN:
        postpone(row, again, code, said)
    else:
        row.ask_at, row.message = again, said


# --- no report -------------------------------------------------------------------------------------------------------------


def _look(house: House, name: str, destination: DicomDestination, ids: Sequence[int]) -> None:
    """Query for objects on which no report came in time."""
    with house.store.read() as session:
        rows = commitments.uncommitted(session, ids)
    there: dict[int, bool | None] = {row.id: None for row in rows}  # None: it cannot be asked
    problem = ""
    try:
        for row in rows:
            there[row.id] = query.is_there(destination, house.settings.node.ae_titles[0], read_header(_stored(house, row), f"delivery {row.id}"))
    except (TemporaryFailure, UnreadableObject, OSError) as error:
        problem = str(error)
    moment = house.clock()
    with house.store.write() as session:
        for row in commitments.uncommitted(session, ids):
            _decide(house, session, row, there.get(row.id), problem, moment)
    house.log.warning("no storage commitment report", destination=name, objects=len(ids), there=sum(1 for known in there.values() if known), problem=problem)


def _stored(house: House, row: DeliveryRow) -> Path:
    if row.object is not None:
        return house.data / row.object.path
    assert row.instance is not None
    return house.data / studies.instance_path(row.instance, row.version)


def _decide(house: House, session: Session, row: DeliveryRow, there: bool | None, problem: str, moment: datetime) -> None:
    if there:
        settle(row, DeliveryState.DELIVERED, row.status, "stored, as a query shows; no storage commitment report came", moment)
        advice = "let its reports reach this node (AE title, address, port, reception.senders), or set its commitment to false"
        text = f"{row.destination} takes storage commitment requests and does not report on them: objects count as delivered after a query. {advice}"
        raise_alert(session, "commitment", row.destination, text[0].upper() + text[1:], moment)
        return
    row.asked_at = None
    if there is False:
        _resend_lost(house, session, row, moment)
    elif row.asks >= MOST_SILENT:
        _park(house, session, row, f"it was stored, but no storage commitment report came on {row.asks} requests, and no query can tell: {problem}", moment)
    else:
        row.ask_at, row.message = moment, f"stored; no storage commitment report came, and no query can tell: {problem}"


def _resend_lost(house: House, session: Session, row: DeliveryRow, moment: datetime) -> None:
    said = "stored, but no storage commitment report came, and a query does not find the object"
    again = backoff.next_attempt(max(row.asks, 1), moment, SEND_AGAIN, random.random)
    if again is None:
        _park(house, session, row, said, moment)
    else:
        postpone(row, again, row.status, said)


# --- saying ----------------------------------------------------------------------------------------------------------------


def _park(house: House, session: Session, row: DeliveryRow, why: str, moment: datetime, status: int | None = None) -> None:
    settle(row, DeliveryState.PARKED, row.status if status is None else status, why, moment)
    say_stuck(house, session, row, "parked", why, moment)


def _subject(row: DeliveryRow) -> str:
    return f"object {row.object_id}" if row.object_id is not None else f"instance {row.instance_id}"
