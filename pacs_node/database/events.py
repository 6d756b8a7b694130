"""Events: what happened, written where it happened; who is to be told of it; and what became of that.

A transaction on PostgreSQL may commit after one that began later, so nobody remembers "told up to number N": each event is marked when it
is known who is told, and each of those has a row of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session, joinedload

from pacs_node.database.states import NotificationState, move
from pacs_node.database.tables import EventRow, NotificationRow, ReceiverRow

RESULT = "result"


def add(session: Session, kind: str, subject: str, detail: Mapping[str, object], now: datetime, *, over: bool = False) -> None:
    """Write down that something happened: a ``result``, or an alert of some kind that was raised, or is ``over``."""
    session.add(EventRow(uid=str(uuid.uuid4()), at=now, kind=kind, over=over, subject=subject, detail=dict(detail)))


def unrouted(session: Session, limit: int) -> Sequence[EventRow]:
    """Return events of which it is not known yet who is told, oldest first."""
    return session.scalars(select(EventRow).where(EventRow.routed_at.is_(None)).order_by(EventRow.id).limit(limit)).all()


def route(session: Session, event: EventRow, receivers: Iterable[str], now: datetime) -> None:
    """Note who is told of an event."""
    session.add_all([NotificationRow(event_id=event.id, receiver=name, state=NotificationState.WAITING) for name in receivers])
    event.routed_at = now


def waiting(session: Session, receiver: str, limit: int) -> Sequence[NotificationRow]:
    """Return what a receiver is to be told, in the order in which it happened."""
    query = select(NotificationRow).where(NotificationRow.receiver == receiver, NotificationRow.state == NotificationState.WAITING)
    return session.scalars(query.order_by(NotificationRow.event_id).limit(limit).options(joinedload(NotificationRow.event))).all()


def end(session: Session, ids: Sequence[int], state: NotificationState, now: datetime, message: str = "") -> None:
    """Note that a receiver was told, or never will be; what had ended before stays as it was."""
    for row in session.scalars(select(NotificationRow).where(NotificationRow.id.in_(ids), NotificationRow.state == NotificationState.WAITING)):
        row.state, row.message, row.attempts = move(row.state, state), message, row.attempts + 1
        row.told_at = now if state is NotificationState.TOLD else None


def give_up_old(session: Session, before: datetime, known: Iterable[str]) -> int:
    """Give up what has waited since before a moment, or for a receiver that is not configured any more; returns how many."""
    old = select(EventRow.id).where(EventRow.at < before)
    stale = NotificationRow.event_id.in_(old) | NotificationRow.receiver.not_in(list(known))
    query = update(NotificationRow).where(NotificationRow.state == NotificationState.WAITING, stale)
    return len(session.scalars(query.values(state=NotificationState.GIVEN_UP, message="it waited for too long").returning(NotificationRow.id)).all())


def forget(session: Session, before: datetime, limit: int) -> int:
    """Delete events from before a moment that nobody waits for, a bounded number; returns how many."""
    waits = exists().where(NotificationRow.event_id == EventRow.id, NotificationRow.state == NotificationState.WAITING)
    where = (EventRow.at < before, EventRow.routed_at.is_not(None), ~waits)
    ids = session.scalars(select(EventRow.id).where(*where).order_by(EventRow.at).limit(limit)).all()
    session.execute(delete(NotificationRow).where(NotificationRow.event_id.in_(ids)))
    session.execute(delete(EventRow).where(EventRow.id.in_(ids)))
    return len(ids)


def receiver(session: Session, name: str) -> ReceiverRow:
    """Return what is known of a receiver; the row is made where there is none."""
    row = session.get(ReceiverRow, name)
    if row is None:
        row = ReceiverRow(name=name, failures=0, message="")
        session.add(row)
    return row
