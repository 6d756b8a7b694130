"""Requests for storage commitment → reports: we vouch for what an archive has committed to, and for nothing else (PS3.4 Annex J).

::

    N-ACTION ─► note ─► waiting ─► every instance is decided ─► judged ─► N-EVENT-REPORT to who asked ─► reported
                           │  forwarded, and the archive's own report came: committed
                           │  never received: 0x0112, at once;   no rule forwards it: 0x0110, at once
                           └─ on its way, or its study is not complete yet: later

A request is judged only once everything that was received before it is indexed.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from ipaddress import ip_address

from pydicom.dataset import Dataset

from pacs_node.config import AllowedSender, DicomDestination, Settings
from pacs_node.database import requests
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.states import RequestState, move
from pacs_node.database.tables import CommitmentRequestRow
from pacs_node.delivery import backoff, commitment
from pacs_node.dicom.commitment import Reference, Report, judge, read_request
from pacs_node.errors import PermanentRefusal, TemporaryFailure
from pacs_node.journey import House
from pacs_node.journey.commit import asks_for_commitment
from pacs_node.records import Note

POLICY = backoff.Policy()
PATIENCE = timedelta(days=7)  # for archives and incomplete studies; what is undecided then is reported as failed
_LOOK_AGAIN = timedelta(seconds=5)
_AFTER_A_FAULT = timedelta(minutes=1)
_AT_ONCE = 10  # requests of one round


def take_note(house: House, note: Note, dataset: Dataset, now: datetime) -> None:
    """Write a request down; raises `UnreadableObject` for one that names no transaction or no instance."""
    request = read_request(dataset)
    with house.store.write() as session:
        new = requests.add(session, note, request, now)
    if new:
        house.log.info("asked for storage commitment", sender=note.sender.calling_ae, objects=len(request.references))


def vouch(house: House, moment: datetime) -> int:
    """Judge the requests that are due, and report on those that are judged; returns how many reports were tried."""
    with house.store.read() as session:
        waiting = [(row.id, row.note) for row in requests.due(session, RequestState.WAITING, moment, _AT_ONCE)]
    for number, note in waiting:
        _judge(house, number, moment, indexed=not _older_waits(house, note))
    with house.store.read() as session:
        judged = list(requests.due(session, RequestState.JUDGED, moment, _AT_ONCE))
    for row in judged:
        _report(house, row, moment)
    return len(judged)


def _older_waits(house: House, note: str) -> bool:
    """Tell whether something that was received before a note is not indexed yet: looked at when the note is here, so nothing is missed."""
    return any(path.stem < note for path in house.spool.new.glob("*/*.dcm"))


# --- judging ---------------------------------------------------------------------------------------------------------------


def _judge(house: House, number: int, moment: datetime, *, indexed: bool) -> None:
    committing = {name for name, destination in house.settings.destinations.items() if asks_for_commitment(destination)}
    forwards = any(committing.intersection(rule.forward) for rule in house.rules.rules)
    with house.store.write() as session:
        row = requests.get(session, number)
        if row is None or row.state is not RequestState.WAITING:
            return
        undecided = {Reference(item.sop_class_uid, item.sop_uid): item for item in row.items if item.reason is None}
        patient = moment < row.received_at + PATIENCE
        known = requests.standings(session, undecided, committing) if indexed else {}
        for reference, item in undecided.items() if indexed else ():
            item.reason = judge(known.get(reference), forwards=forwards, patient=patient)
        if all(item.reason is not None for item in row.items):
            row.state, row.next_at, row.judged_at = move(row.state, RequestState.JUDGED), moment, moment
        else:
            row.next_at = moment + (_LOOK_AGAIN if indexed else timedelta(seconds=1))


# --- reporting -------------------------------------------------------------------------------------------------------------


def _report(house: House, row: CommitmentRequestRow, moment: datetime) -> None:
    with house.store.write() as session:
        current = requests.get(session, row.id)
        if current is None or current.state is not RequestState.JUDGED:
            return
        current.next_at = moment + _AFTER_A_FAULT  # until the outcome is known
    target = reports_to(house.settings, row)
    if target is None:
        advice = "add its `port` in reception.senders, or a DICOM destination with its AE title"
        _put_off(house, row.id, f"it is not known where {row.calling_ae} listens for reports: {advice}")
        return
    references = [(Reference(item.sop_class_uid, item.sop_uid), item.reason or 0) for item in row.items]
    report = Report(
        row.transaction_uid,
        tuple(reference for reference, reason in references if not reason),
        {reference: reason for reference, reason in references if reason},
    )
    try:
        answer = commitment.report(target, report, row.called_ae or house.settings.node.ae_titles[0])
    except (TemporaryFailure, PermanentRefusal) as error:
        _put_off(house, row.id, str(error))
        return
    if answer.accepted:
        _reported(house, row.id, report)
    else:
        _put_off(house, row.id, f"{row.calling_ae} answered the report with status 0x{answer.status:04X}: {answer.comment or 'no comment'}")


def _reported(house: House, number: int, report: Report) -> None:
    moment = house.clock()
    with house.store.write() as session:
        row = requests.get(session, number)
        if row is None or row.state is not RequestState.JUDGED:
            return
        row.state, row.reported_at, row.message = move(row.state, RequestState.REPORTED), moment, ""
        clear_alert(session, "commitment", f"request {number}", moment)
        facts = {"to": row.calling_ae, "committed": len(report.committed), "failed": len(report.failed)}
        audit(session, "vouch", "committed", f"request {number}", facts, moment)
    house.log.info("storage commitment reported", **facts)


def _put_off(house: House, number: int, problem: str) -> None:
    """Report again later; after the limit the request is parked. Both are said."""
    moment = house.clock()
    with house.store.write() as session:
        row = requests.get(session, number)
        if row is None or row.state is not RequestState.JUDGED:
            return
        row.attempts, row.message = row.attempts + 1, problem
        again = backoff.next_attempt(row.attempts, moment, POLICY, random.random)
        text = f"{row.calling_ae} asked for storage commitment and cannot be told the outcome (request {number}): {problem}"
        if again is None:
            row.state = move(row.state, RequestState.PARKED)
            text = f"{text}. It was given up; to try again: `pacs-node retry --parked`"
        else:
            row.next_at = again
        new = raise_alert(session, "commitment", f"request {number}", text, moment)
    log = house.log.error if new else house.log.warning
    log("storage commitment report put off", request=number, problem=problem)


def reports_to(settings: Settings, row: CommitmentRequestRow) -> DicomDestination | None:
    """Return where the one who asked listens for reports, None where nobody has said so.

    That is the `port` of its entry in `reception.senders`, at the address that it called from; or the destination of its AE title.
    """
    host = row.address.rpartition(":")[0].strip("[]")
    for sender in settings.reception.senders:
        if sender.port is not None and sender.ae_title == row.calling_ae and _is_of(sender, host):
            return DicomDestination(kind="dicom", ae_title=sender.ae_title, address=host, port=sender.port)
    known = (destination for destination in settings.destinations.values() if isinstance(destination, DicomDestination))
    return next((destination for destination in known if destination.ae_title == row.calling_ae), None)


def _is_of(sender: AllowedSender, host: str) -> bool:
    if sender.network is None:
        return True
    address = ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in sender.network
