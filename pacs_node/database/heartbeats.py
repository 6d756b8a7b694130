"""Heartbeats: one row for each phantom that was sent, with the moments of its way. Their studies are told by the reserved Patient ID.

The identifier, and not a list, tells them: an index that is made anew from the files knows them as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from pacs_node.database.tables import HeartbeatRow, StudyRow
from pacs_node.records import HEARTBEAT_PATIENT


def is_heartbeat(study: StudyRow) -> bool:
    """Tell whether a study is a heartbeat, of this node or of another one: no patient's."""
    return study.patient_id == HEARTBEAT_PATIENT


def of_patients() -> ColumnElement[bool]:
    """Return the condition on `StudyRow` that leaves heartbeats out: for whatever counts or compares studies."""
    return StudyRow.patient_id != HEARTBEAT_PATIENT


def begin(session: Session, study_uid: str, now: datetime) -> int:
    """Note that a heartbeat is about to be sent; returns its number."""
    row = HeartbeatRow(study_uid=study_uid, begun_at=now)
    session.add(row)
    session.flush()
    return row.id


def latest(session: Session) -> HeartbeatRow | None:
    """Return the newest heartbeat."""
    return session.scalars(select(HeartbeatRow).order_by(HeartbeatRow.id.desc()).limit(1)).first()


def latest_back(session: Session) -> HeartbeatRow | None:
    """Return the newest heartbeat whose results arrived: `delivered_at` − `begun_at` is how long the way takes."""
    query = select(HeartbeatRow).where(HeartbeatRow.delivered_at.is_not(None))
    return session.scalars(query.order_by(HeartbeatRow.id.desc()).limit(1)).first()


def recent(session: Session, limit: int) -> Sequence[HeartbeatRow]:
    """Return the newest heartbeats, newest first."""
    return session.scalars(select(HeartbeatRow).order_by(HeartbeatRow.id.desc()).limit(limit)).all()


def under_way(session: Session) -> Sequence[HeartbeatRow]:
    """Return the heartbeats whose end is not known yet."""
    return session.scalars(select(HeartbeatRow).where(HeartbeatRow.ended_at.is_(None)).order_by(HeartbeatRow.id)).all()


def to_sweep(session: Session, before: datetime) -> Sequence[HeartbeatRow]:
    """Return some heartbeats that ended before a moment and whose files may still be here."""
    query = select(HeartbeatRow).where(HeartbeatRow.swept_at.is_(None), HeartbeatRow.ended_at < before)
    return session.scalars(query.order_by(HeartbeatRow.id).limit(20)).all()


def latency(row: HeartbeatRow) -> timedelta | None:
    """Return how long a heartbeat took from its sending to its results in the destination, None where they did not arrive."""
    return row.delivered_at - row.begun_at if row.delivered_at is not None else None
