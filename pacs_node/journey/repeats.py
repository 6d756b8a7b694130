"""An instance that came again: a duplicate, a correction, a conflict, or one whose file had been removed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from pacs_node.assembly import grouping
from pacs_node.database import deliveries, embeddings, jobs, originals, studies
from pacs_node.database.alerts import raise_alert
from pacs_node.database.tables import AsideRow, InstanceRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House
from pacs_node.journey.arriving import Batch, Item
from pacs_node.journey.reject import accept_again
from pacs_node.monitoring.logs import study_tag


@dataclass(frozen=True)
class Known:
    """What a repeat is compared with."""

    path: Path
    study_uid: str
    own: bool
    removed: bool  # its file, by retention


def known(house: House, row: InstanceRow) -> Known:
    """Return what is here of an instance."""
    return Known(house.data / studies.instance_path(row), row.series.study.study_uid, row.own, row.removed_at is not None)


def compare(known: Known, item: Item) -> grouping.Repeat:
    """Compare a repeat with what is here; raises `UnreadableObject` where the new object is the one that cannot be read."""
    if known.own:
        return grouping.Repeat(grouping.Likeness.SAME, "it is a result of this node")
    if item.instance.study_uid != known.study_uid:
        return grouping.Repeat(grouping.Likeness.CONFLICT, "the same SOP Instance UID is known from another study")
    if known.removed:
        grouping.ensure_readable(item.arrival.path)
        return grouping.Repeat(grouping.Likeness.IDENTITY_CHANGED, "the object received before has been removed since")  # see `_bring_back`
    try:
        return grouping.compare(known.path, item.arrival.path)
    except UnreadableObject:
        grouping.ensure_readable(item.arrival.path)
        return grouping.Repeat(grouping.Likeness.IDENTITY_CHANGED, "the object received before cannot be read")  # the whole one takes its place


@dataclass(frozen=True)
class Repeated:
    """An arrival, the instance that it repeats, and how they compare."""

    item: Item
    row: InstanceRow
    repeat: grouping.Repeat
    digest: str  # of the new dataset, where the file of the old one was removed


def take_repeat(house: House, session: Session, batch: Batch, repeated: Repeated, now: datetime) -> None:
    """Decide what becomes of an instance that came again."""
    arrival, study, repeat = repeated.item.arrival, repeated.row.series.study, repeated.repeat
    facts: dict[str, object] = {"study": study_tag(study.study_uid), "sender": arrival.sender.calling_ae, "why": repeat.why}
    if repeated.row.rejected and accept_again(session, repeated.row):
        studies.reopen(study, arrival.received_at, house.patience)
        batch.remarks.append(("received again after it was removed elsewhere", facts))
    if repeated.row.removed_at is not None and not repeated.row.own and repeated.item.instance.study_uid == study.study_uid:
        same = _bring_back(house, session, batch, repeated, now)
        batch.remarks.append(("received again after its removal", facts | {"same": same}))
        return
    match repeat.likeness:
        case grouping.Likeness.SAME | grouping.Likeness.SAME_PIXELS:
            batch.drops.append(arrival)
            batch.remarks.append(("duplicate", facts))
        case grouping.Likeness.IDENTITY_CHANGED:
            _correct(house, session, batch, repeated, now)
            batch.remarks.append(("corrected", facts))
        case grouping.Likeness.CONFLICT:
            path = f"aside/{arrival.name}.dcm"
            reason = f"SOP Instance UID {repeated.row.sop_uid} is known with other content: {repeat.why}"
            row = AsideRow(kind="conflict", reason=reason, path=path, sop_uid=repeated.row.sop_uid, study_uid=study.study_uid, received_at=arrival.received_at)
            row.calling_ae = arrival.sender.calling_ae[:16]
            if studies.add_aside(session, row):
                raise_alert(session, "conflict", f"file {arrival.name}"[:96], f"kept aside: {reason}", now)
                house.log.error("alert", kind="conflict", **facts)
            batch.moves.append((arrival.path, path))


def _correct(house: House, session: Session, batch: Batch, repeated: Repeated, now: datetime) -> None:
    """Take a corrected object in the place of the old one; what runs on the old one is withdrawn."""
    item, study = repeated.item, repeated.row.series.study
    before = repeated.row.identity
    old = studies.replace_instance(repeated.row, item.instance, item.arrival)
    reason = f"replaced by a corrected object: {repeated.repeat.why}"
    aside = AsideRow(kind="superseded", reason=reason, path=old, sop_uid=repeated.row.sop_uid, study_uid=study.study_uid, received_at=item.arrival.received_at)
    studies.add_aside(session, aside)
    _withdraw(house, session, repeated, before, now)
    studies.reopen(study, item.arrival.received_at, house.patience)
    batch.moves.append((item.arrival.path, studies.instance_path(repeated.row)))
    batch.studies.add(study.id)


def _withdraw(house: House, session: Session, repeated: Repeated, before: list[str], now: datetime) -> None:
    """Stop what runs on an object as it was; ``before``: the patient it named. What is out under another identity is said."""
    study = repeated.row.series.study
    jobs.cancel_unfinished(session, study.id, now, "an object of the study was corrected")
    deliveries.cancel_unfinished(session, study.id, "an object of the study was corrected")
    originals.cancel(session, repeated.row.id, "the instance was corrected")
    embeddings.forget(session, study.id)  # the new run makes new ones
    if repeated.row.identity != before:
        say_old_identity(house, session, study.id, now)


def _bring_back(house: House, session: Session, batch: Batch, repeated: Repeated, now: datetime) -> bool:
    """Take an object in again whose file was removed; returns whether it is byte for byte what it was.

    Then the study gathers again and makes no new job, unless something else came with it. Other bytes count as another version: nobody can
    tell any more what differs.
    """
    row, item = repeated.row, repeated.item
    study, before = row.series.study, row.identity
    same = repeated.digest == row.fingerprint != "" and row.transfer_syntax_uid == item.instance.transfer_syntax_uid
    studies.bring_back(row, item.instance, item.arrival, same=same)
    if row.identity != before:
        _withdraw(house, session, repeated, before, now)
    study.removed_at = None
    studies.reopen(study, item.arrival.received_at, house.patience)
    batch.moves.append((item.arrival.path, studies.instance_path(row)))
    batch.studies.add(study.id)
    return same


def say_old_identity(house: House, session: Session, study_id: int, now: datetime) -> None:
    """Raise the alert that results or originals are out under a patient identity that is known to be wrong, where there are any."""
    results, places = deliveries.delivered_count(session, study_id), originals.delivered_before_correction(session, study_id)
    sent = [f"{results} results"] * bool(results) + [f"{count} original instances (to {name})" for name, count in places.items()]
    if not sent:
        return
    message = (
        f"{' and '.join(sent)} of study {study_id} were delivered under a patient identity that has been corrected since: have them rejected in the archive"
    )
    if raise_alert(session, "identity", f"study {study_id}", message, now):
        house.log.error("alert", kind="identity", subject=f"study {study_id}", message=message)
