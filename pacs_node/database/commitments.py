"""Transactions in which we ask destinations to commit to what they stored (PS3.4 Annex J), and the deliveries that wait for that."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from pacs_node.database.deliveries import whole
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import CommitmentItemRow, CommitmentRow, DeliveryRow

MOST_REFERENCES = 200  # instances that one request names, however many wait


def due(session: Session, destination: str, now: datetime, longest: timedelta, *, asked: bool) -> list[int]:
    """Return the uncommitted deliveries to a destination that something is to be done about: of one study, in order.

    ``asked``: those of which the destination took a request, and which have waited for its report long enough; else those that are to be
    asked about. No moment is set further ahead than ``longest``, unless the clock was set back since.
    """
    ripe = (
        DeliveryRow.destination == destination,
        DeliveryRow.state == DeliveryState.UNCOMMITTED,
        DeliveryRow.asked_at.is_not(None) if asked else DeliveryRow.asked_at.is_(None),
        or_(DeliveryRow.ask_at <= now, DeliveryRow.ask_at > now + longest),
    )
    study = session.scalars(select(DeliveryRow.study_id).where(*ripe).order_by(DeliveryRow.ask_at, DeliveryRow.id).limit(1)).first()
    if study is None:
        return []
    return list(session.scalars(select(DeliveryRow.id).where(*ripe, DeliveryRow.study_id == study).order_by(DeliveryRow.id).limit(MOST_REFERENCES)))


def uncommitted(session: Session, ids: Collection[int]) -> Sequence[DeliveryRow]:
    """Return those of the deliveries that still wait for commitment, with what they sent; nobody else changes them meanwhile."""
    query = select(DeliveryRow).where(DeliveryRow.id.in_(ids), DeliveryRow.state == DeliveryState.UNCOMMITTED).options(*whole())
    return session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow)).all()


def begin(session: Session, transaction_uid: str, destination: str, rows: Sequence[DeliveryRow], now: datetime) -> CommitmentRow:
    """Write a transaction down before the destination is asked: a report on it may come at any time from then on."""
    row = CommitmentRow(transaction_uid=transaction_uid, destination=destination, begun_at=now)
    session.add(row)
    session.flush()
    session.add_all(CommitmentItemRow(commitment_id=row.id, delivery_id=delivery.id) for delivery in rows)
    return row


def find(session: Session, transaction_uid: str) -> CommitmentRow | None:
    """Return a transaction of ours."""
    return session.scalars(select(CommitmentRow).where(CommitmentRow.transaction_uid == transaction_uid)).one_or_none()


def deliveries_of(session: Session, commitment: CommitmentRow) -> Sequence[DeliveryRow]:
    """Return what a transaction is about, with what was sent; nobody else changes it meanwhile."""
    mine = select(CommitmentItemRow.delivery_id).where(CommitmentItemRow.commitment_id == commitment.id)
    return session.scalars(select(DeliveryRow).where(DeliveryRow.id.in_(mine)).options(*whole()).with_for_update(of=DeliveryRow)).all()


def overtaken(session: Session, commitment: CommitmentRow) -> set[int]:
    """Return those of a transaction's deliveries that a later one asks about."""
    mine = select(CommitmentItemRow.delivery_id).where(CommitmentItemRow.commitment_id == commitment.id)
    newest = select(CommitmentItemRow.delivery_id).where(CommitmentItemRow.delivery_id.in_(mine)).group_by(CommitmentItemRow.delivery_id)
    return set(session.scalars(newest.having(func.max(CommitmentItemRow.commitment_id) > commitment.id)))


def wait_no_longer(session: Session, destinations: Collection[str], now: datetime) -> int:
    """Count as delivered what was stored in ``destinations``, which are not asked for commitment any more; returns how many."""
    query = update(DeliveryRow).where(DeliveryRow.destination.in_(destinations), DeliveryRow.state == DeliveryState.UNCOMMITTED)
    message = "stored; the destination is not asked for commitment any more"
    return len(session.scalars(query.values(state=DeliveryState.DELIVERED, delivered_at=now, message=message).returning(DeliveryRow.id)).all())
