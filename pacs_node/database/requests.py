"""Transactions in which peers ask us to commit to what they sent (PS3.4 Annex J)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, selectinload

from pacs_node.database.alerts import clear_alert
from pacs_node.database.engine import add_new
from pacs_node.database.originals import ripe
from pacs_node.database.states import DeliveryState, RequestState, StudyState, move
from pacs_node.database.tables import CommitmentRequestRow, DeliveryRow, InstanceRow, RequestedRow, StudyRow
from pacs_node.dicom.commitment import DUPLICATE_TRANSACTION, Reference, Request, Standing
from pacs_node.records import Note

_ON_THEIR_WAY = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.UNCOMMITTED)
_AT_ONCE = 500  # UIDs of one query


def add(session: Session, note: Note, request: Request, now: datetime) -> bool:
    """Write a request down; False where this note was written down before. A transaction UID that is known already is refused as a whole."""
    used = session.scalars(select(CommitmentRequestRow.note).where(CommitmentRequestRow.transaction_uid == request.transaction_uid)).all()
    if note.name in used:
        return False
    row = CommitmentRequestRow(note=note.name, transaction_uid=request.transaction_uid, state=RequestState.WAITING, attempts=0, message="")
    row.calling_ae, row.called_ae, row.address = note.sender.calling_ae[:16], note.sender.called_ae[:16], note.sender.address[:128]
    row.received_at, row.next_at = note.received_at, now
    number = add_new(session, row, CommitmentRequestRow.note)
    reason = DUPLICATE_TRANSACTION if used else None
    items = (RequestedRow(request_id=number, sop_class_uid=one.sop_class_uid, sop_uid=one.sop_uid, reason=reason) for one in request.references)
    session.add_all(items)
    return number is not None


def due(session: Session, state: RequestState, now: datetime, limit: int) -> Sequence[CommitmentRequestRow]:
    """Return requests in a state whose turn has come, with their instances, oldest first."""
    query = select(CommitmentRequestRow).where(CommitmentRequestRow.state == state, ripe(CommitmentRequestRow.next_at, now))
    return session.scalars(query.options(selectinload(CommitmentRequestRow.items)).order_by(CommitmentRequestRow.next_at).limit(limit)).all()


def get(session: Session, number: int) -> CommitmentRequestRow | None:
    """Return a request with its instances; nobody else changes it meanwhile."""
    query = select(CommitmentRequestRow).where(CommitmentRequestRow.id == number).options(selectinload(CommitmentRequestRow.items))
    return session.scalars(query.with_for_update(of=CommitmentRequestRow)).one_or_none()


def standings(session: Session, references: Collection[Reference], committing: Collection[str]) -> dict[Reference, Standing]:
    """Return what is known of instances; ``committing``: the destinations that commit to what they store. Unknown ones are left out."""
    found: dict[Reference, Standing] = {}
    wanted: dict[str, list[Reference]] = {}
    for reference in references:
        wanted.setdefault(reference.sop_uid, []).append(reference)
    uids = list(wanted)
    for start in range(0, len(uids), _AT_ONCE):
        query = select(InstanceRow, StudyRow.state).join(StudyRow, StudyRow.id == InstanceRow.study_id)
        rows = session.execute(query.where(InstanceRow.sop_uid.in_(uids[start : start + _AT_ONCE]))).all()
        deliveries = _forwarded(session, [row[0] for row in rows])
        for instance, state in rows:
            sent = deliveries.get(instance.id, [])
            committed = any(row.committed_at is not None for row in sent)
            on_its_way = any(row.state in _ON_THEIR_WAY and row.destination in committing for row in sent)
            decided = state is StudyState.COMPLETE or instance.own
            for one in wanted[instance.sop_uid]:
                found[one] = Standing(instance.sop_class_uid == one.sop_class_uid, committed, on_its_way, decided)
    return found


def _forwarded(session: Session, instances: Sequence[InstanceRow]) -> Mapping[int, list[DeliveryRow]]:
    """Return the deliveries of the present versions of instances."""
    versions = {instance.id: instance.version for instance in instances}
    found: dict[int, list[DeliveryRow]] = {}
    for row in session.scalars(select(DeliveryRow).where(DeliveryRow.instance_id.in_(list(versions)))):
        if row.instance_id is not None and row.version == versions[row.instance_id]:
            found.setdefault(row.instance_id, []).append(row)
    return found


def named(session: Session, study_id: int) -> bool:
    """Tell whether an open request is still to be answered for instances of a study: they may have to be forwarded once more."""
    mine = exists().where(InstanceRow.sop_uid == RequestedRow.sop_uid, InstanceRow.study_id == study_id)
    query = select(RequestedRow.id).join(CommitmentRequestRow).where(CommitmentRequestRow.state == RequestState.WAITING, RequestedRow.reason.is_(None), mine)
    return session.scalars(query.limit(1)).first() is not None


def retry_parked(session: Session, now: datetime) -> int:
    """Let the reports that nobody took go out again; returns how many."""
    rows = session.scalars(select(CommitmentRequestRow).where(CommitmentRequestRow.state == RequestState.PARKED)).all()
    for row in rows:
        row.state, row.next_at, row.attempts = move(row.state, RequestState.JUDGED), now, 0
        clear_alert(session, "commitment", f"request {row.id}", now)
    return len(rows)
