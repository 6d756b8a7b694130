"""The audit trail → where copies of it are kept: a syslog collector, and the log for its last hash.

How far the collector has come stands in the database; it moves on when the collector has read a batch. Whatever goes wrong in between, the
batch is sent again. Nothing else waits for this: rows are committed with what they tell of, and sent later.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import select

from pacs_node.config import Settings, Syslog
from pacs_node.database import audit
from pacs_node.database.alerts import clear_alert, raise_alert
from pacs_node.database.tables import AuditPlaceRow, StudyRow
from pacs_node.delivery import backoff
from pacs_node.errors import CollectorFailed
from pacs_node.journey import House
from pacs_node.monitoring import syslog
from pacs_node.monitoring.audit_messages import Source, message
from pacs_node.records import AuditEntry

BATCH = 200  # rows a connection
_POLICY = backoff.Policy(first=timedelta(seconds=5), longest=timedelta(minutes=10), breaker_after=1)
_SAID_AFTER = 3  # failures in a row


def source_of(settings: Settings) -> Source:
    """Return who reports."""
    return Source(settings.node.name, settings.node.ae_titles[0], socket.gethostname(), settings.node.equipment.institution or "")


def forward(house: House, now: datetime) -> int:
    """Send the rows that the collector lacks, one batch; returns how many. A collector that fails is left alone for a while."""
    collector = house.settings.audit.syslog
    if collector is None:
        return 0
    with house.store.read() as session:
        place = session.get(AuditPlaceRow, _place(collector))
        if place is not None and place.try_again_at is not None and now < place.try_again_at:
            return 0
        entries = audit.after(session, place.number if place else 0, BATCH)
    if not entries:
        return 0
    try:
        syslog.send(collector, _lines(house, entries))
    except CollectorFailed as error:
        _failed(house, collector, error, now)
        return 0
    _arrived(house, collector, entries[-1].number)
    return len(entries)


def _place(collector: Syslog) -> str:
    return f"syslog {collector.name}"


def _lines(house: House, entries: Sequence[AuditEntry]) -> list[bytes]:
    source, patients = source_of(house.settings), _patients(house, {str(_study(entry)) for entry in entries})
    texts = [message(entry, source, patients.get(str(_study(entry)), "")) for entry in entries]
    return [syslog.line(text, entry.at, source.host, entry.number) for text, entry in zip(texts, entries, strict=True)]


def _study(entry: AuditEntry) -> object:
    return entry.detail.get("study_uid", "") if isinstance(entry.detail, dict) else ""


def _patients(house: House, study_uids: Collection[str]) -> dict[str, str]:
    """Return the Patient IDs of studies where messages are to name them."""
    if not house.settings.audit.patient_ids:
        return {}
    with house.store.read() as session:
        found = session.execute(select(StudyRow.study_uid, StudyRow.patient_id).where(StudyRow.study_uid.in_(study_uids)))
        return {row.study_uid: row.patient_id for row in found}


def _arrived(house: House, collector: Syslog, number: int) -> None:
    with house.store.write() as session:
        place = session.get(AuditPlaceRow, _place(collector)) or AuditPlaceRow(name=_place(collector))
        place.number, place.failures, place.try_again_at, place.message = number, 0, None, ""
        session.add(place)
        cleared = clear_alert(session, "audit", _place(collector)[:96], house.clock())
    if cleared:
        house.log.info("alert over", kind="audit", subject=_place(collector))


def _failed(house: House, collector: Syslog, error: CollectorFailed, now: datetime) -> None:
    with house.store.write() as session:
        place = session.get(AuditPlaceRow, _place(collector)) or AuditPlaceRow(name=_place(collector), number=0, failures=0)
        breaker = backoff.failed(backoff.Breaker(place.failures), now, _POLICY, random.random)
        place.failures, place.try_again_at, place.message = breaker.failures, breaker.open_until, error.problem
        session.add(place)
        text = f"the audit trail does not reach its collector, and waits in the database: {error}"
        new = place.failures >= _SAID_AFTER and raise_alert(session, "audit", _place(collector)[:96], text, now)
    if new:
        house.log.error("alert", kind="audit", subject=_place(collector), message=text)


def say_anchor(house: House) -> None:
    """Log the trail's last hash: whoever keeps the log can tell later whether the end was cut off (`pacs-node audit verify --anchor`)."""
    with house.store.read() as session:
        number, anchor = audit.last(session)
    house.log.info("audit anchor", row=number, anchor=anchor)
