"""What the audit trail says of the journey: who sent, what was analysed by which model, which result went where. Never of whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node.config import DicomDestination, Settings, StowDestination
from pacs_node.database import studies
from pacs_node.database.alerts import audit
from pacs_node.database.tables import AssociationRow, DeliveryRow, JobRow
from pacs_node.journey import House
from pacs_node.journey.arriving import Batch, Item
from pacs_node.records import AssociationEnd, Finding, Outcome, Refusal, Sender

_MOST_KNOWN = 10_000  # pairs of study and sender that a process remembers


def note_begun(house: House, session: Session, batch: Batch, item: Item, study_id: int, now: datetime) -> None:
    """Note that a sender begins to send a study; called before the instance's row is added. What it has sent is noted at the end of its association."""
    sender = item.arrival.sender
    key = (study_id, sender.calling_ae)
    if key in house.begun or key in batch.begun:
        return
    batch.begun.add(key)
    if not studies.has_sent(session, *key):
        audit(session, "reception", "receiving", f"study {study_id}", {"study_uid": item.instance.study_uid, **_who(sender)}, now)


def remember_begun(house: House, batch: Batch) -> None:
    """Remember, after the commit, what need not be looked up again."""
    if len(house.begun) > _MOST_KNOWN:
        house.begun.clear()
    house.begun |= batch.begun


def note_end(session: Session, end: AssociationEnd, now: datetime) -> None:
    """Note what an association has brought, study by study; once, however often its marker is met."""
    if session.get(AssociationRow, end.sender.association) is not None:
        return
    facts = {**_who(end.sender), "association": end.sender.association, "released": end.released, "stored": end.stored, "refused": end.refused}
    brought = studies.brought_by(session, end.sender.association)
    for study_id, study_uid, count in brought:
        audit(session, "reception", "received", f"study {study_id}", {"study_uid": study_uid, "instances": count, **facts}, now)
    if not brought:  # nothing that was new, or nothing that was taken
        audit(session, "reception", "received", f"association {end.sender.association}", facts, now)


def note_refusal(session: Session, refusal: Refusal, now: datetime) -> None:
    """Note that a peer was refused, and how often. A marker that is met twice, after a crash, makes two rows that name it."""
    counted = {"reason": refusal.reason, "count": refusal.count, "last": refusal.refused_at.isoformat(), "marker": refusal.name}
    if refusal.kind == "login":
        user = refusal.sender.calling_ae or "several"
        audit(session, user, "login failed", f"user {user}", {"address": refusal.sender.address, **counted}, now)
        return
    facts = {**_who(refusal.sender), **counted}
    subject = f"peer {refusal.sender.calling_ae or refusal.sender.address or 'several'}"
    audit(session, "reception", "sender refused", subject, facts, now)


def _who(sender: Sender) -> dict[str, object]:
    return {"calling_ae": sender.calling_ae, "called_ae": sender.called_ae, "address": sender.address}


def note_analysed(session: Session, worker: str, job: JobRow, finding: Finding | None, now: datetime) -> None:
    """Note which model judged a study, by the digests of all that its judgement depends on."""
    facts: dict[str, object] = {"study_uid": job.study.study_uid, "pipeline": job.pipeline, "run": job.run, "state": job.state.value}
    if finding is not None:
        model = finding.algorithm
        facts |= {"bundle": f"{model.name} {model.version}", "bundle_hash": model.bundle_hash, "config_hash": model.config_hash}
        facts["calibration_hash"] = model.calibration_hash
    audit(session, f"worker {worker}", "analysed", f"job {job.id}", facts, now)


def note_sent(house: House, session: Session, arrived: Sequence[tuple[DeliveryRow, Outcome]], now: datetime) -> None:
    """Note what has reached a destination: each result, and how many originals of each study."""
    originals: Counter[tuple[int, str, str]] = Counter()
    for row, outcome in arrived:
        if row.object_id is None:
            originals[row.study_id, row.study.study_uid, row.destination] += 1
            continue
        status = {} if outcome.status is None else {"status": f"0x{outcome.status:04X}"}
        audit(session, "delivery", "sent", f"object {row.object_id}", {**of_delivery(house.settings, row), **status}, now)
    for (study_id, study_uid, destination), count in originals.items():
        facts = {"study_uid": study_uid, **place_of(house.settings, destination), "kind": "original", "instances": count}
        audit(session, "delivery", "sent", f"study {study_id}", facts, now)


def of_delivery(settings: Settings, row: DeliveryRow) -> dict[str, object]:
    """Return what the trail says of an object on its way."""
    job = {} if row.job_id is None else {"job": row.job_id}
    facts = {"study_uid": row.study.study_uid, **place_of(settings, row.destination), "kind": row.kind, **job}
    return {**facts, "sop_uid": row.sop_uid, "sop_class_uid": row.sop_class_uid}


def place_of(settings: Settings, name: str) -> Mapping[str, object]:
    """Return name and address of a destination."""
    match settings.destinations.get(name):
        case DicomDestination(ae_title=title, address=address, port=port):
            return {"destination": name, "ae_title": title, "address": f"[{address}]:{port}" if ":" in address else f"{address}:{port}"}
        case StowDestination(url=url):
            return {"destination": name, "address": url}
    return {"destination": name}
