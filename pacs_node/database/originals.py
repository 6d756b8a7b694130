"""Received instances in the outbox: what rules forward, so that the node can sit between scanner and archive. One row per version and destination.

Also what both halves of the outbox share: which rows are ripe, and which studies send nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from pacs_node.database.states import DeliveryState, StudyState, sources
from pacs_node.database.tables import DeliveryRow, InstanceRow, StudyRow

UNFINISHED = (DeliveryState.WAITING, DeliveryState.SENDING)
UNSENT = (*UNFINISHED, DeliveryState.UNCOMMITTED, DeliveryState.PARKED, DeliveryState.REFUSED)  # what may still have to be sent
LONGEST_PAUSE = timedelta(hours=3)  # no attempt is put off further, unless the clock was set back since
BATCH = 200  # originals that are taken out at once, however many wait
_PATIENCE = 3  # answers with a temporary failure to one original, after which the results of its study wait for it no longer


def ripe(column: Any, now: datetime) -> ColumnElement[bool]:
    """Tell whether a row's turn has come."""
    return or_(column <= now, column > now + LONGEST_PAUSE)


def held() -> ColumnElement[bool]:
    """Tell whether the row's study is held."""
    return exists().where(StudyRow.id == DeliveryRow.study_id, StudyRow.state == StudyState.HELD)


def arrived() -> ColumnElement[bool]:
    """Tell whether a destination has said that it stored the object, whatever became of it here since."""
    return or_(DeliveryRow.state == DeliveryState.DELIVERED, DeliveryRow.stored_at.is_not(None))


def ahead() -> ColumnElement[bool]:
    """Tell whether originals of the row's study are still to go to its destination: what results refer to goes first.

    An archive that cannot be had holds the results back with them. One that answers and will not take one of the originals does so
    for a few attempts only, so that a single instance never keeps the results of its study away.
    """
    original = aliased(DeliveryRow)
    return exists().where(
        original.study_id == DeliveryRow.study_id,
        original.destination == DeliveryRow.destination,
        original.job_id.is_(None),
        original.state.in_(UNFINISHED),
        or_(original.status.is_(None), original.attempts < _PATIENCE),
    )


def due(session: Session, destination: str, now: datetime) -> list[int]:
    """Return the originals that may go to a destination now, of the study that has waited longest: a batch, in the order of their arrival."""
    mine = and_(
        DeliveryRow.destination == destination,
        DeliveryRow.state == DeliveryState.WAITING,
        DeliveryRow.job_id.is_(None),
        ripe(DeliveryRow.next_attempt_at, now),
        ~held(),
    )
    study = session.scalars(select(DeliveryRow.study_id).where(mine).order_by(DeliveryRow.next_attempt_at, DeliveryRow.id).limit(1)).first()
    if study is None:
        return []
    return list(session.scalars(select(DeliveryRow.id).where(mine, DeliveryRow.study_id == study).order_by(DeliveryRow.id).limit(BATCH)))


def forward(session: Session, study: StudyRow, destinations: Iterable[str], now: datetime) -> int:
    """Put the received instances of a study into the outbox, as far as these versions of them are not there yet; returns how many.

    Our own results are left out: what came back to us goes round no second time. So is what retention has removed.
    """
    received = [(row.id, row.version) for series in study.series for row in series.instances if not row.own and row.removed_at is None]
    new = []
    for destination in destinations:
        known = select(DeliveryRow.instance_id, DeliveryRow.version).where(DeliveryRow.study_id == study.id, DeliveryRow.destination == destination)
        there = {(row.instance_id, row.version) for row in session.execute(known)}
        facts = {"study_id": study.id, "destination": destination, "position": 0, "state": DeliveryState.WAITING, "next_attempt_at": now}
        new += [{**facts, "instance_id": number, "version": version} for number, version in sorted(received) if (number, version) not in there]
    if new:
        session.execute(insert(DeliveryRow), new)
    return len(new)


def cancel(session: Session, instance_id: int, reason: str) -> None:
    """Withdraw what has not been sent of an instance that a corrected one replaces."""
    unsent = (DeliveryRow.instance_id == instance_id, DeliveryRow.state.in_(sources(DeliveryState.CANCELLED)))
    session.execute(update(DeliveryRow).where(*unsent).values(state=DeliveryState.CANCELLED, message=reason))


def delivered_before_correction(session: Session, study_id: int) -> dict[str, int]:
    """Return how many instances of a study each destination got in a version that a corrected one has replaced here."""
    query = (
        select(DeliveryRow.destination, func.count(DeliveryRow.instance_id.distinct()))
        .join(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
        .where(DeliveryRow.study_id == study_id, arrived(), DeliveryRow.version < InstanceRow.version)
        .group_by(DeliveryRow.destination)
        .order_by(DeliveryRow.destination)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def studies_that_need_originals(session: Session, study_ids: Iterable[int]) -> set[int]:
    """Return those of the studies whose received files are still to be forwarded somewhere: waiting, or stuck where `retry` sends them.

    What was parked or refused counts: the archive does not have it, and nobody has decided that it need not.
    """
    query = select(DeliveryRow.study_id).where(DeliveryRow.study_id.in_(list(study_ids)), DeliveryRow.job_id.is_(None), DeliveryRow.state.in_(UNSENT))
    return set(session.scalars(query.distinct()))


@dataclass(frozen=True, slots=True)
class Summary:
    """How many originals of a study stand where on their way to a destination."""

    first: int  # the lowest delivery number among them
    study_id: int
    destination: str
    state: DeliveryState
    count: int
    attempts: int  # of the one tried most often
    next_attempt_at: datetime
    delivered_at: datetime | None  # of the last
    message: str


def summaries(session: Session, limit: int) -> Sequence[Summary]:
    """Return the forwarded originals by study, destination and state, newest first: thousands of rows are one line."""
    found = (
        select(
            func.min(DeliveryRow.id), DeliveryRow.study_id, DeliveryRow.destination, DeliveryRow.state, func.count(), func.max(DeliveryRow.attempts),
            func.min(DeliveryRow.next_attempt_at), func.max(DeliveryRow.delivered_at), func.max(DeliveryRow.message),
        )
        .where(DeliveryRow.job_id.is_(None))
        .group_by(DeliveryRow.study_id, DeliveryRow.destination, DeliveryRow.state)
        .order_by(func.min(DeliveryRow.id).desc())
        .limit(limit)
    )  # fmt: skip
    return [Summary(*row) for row in session.execute(found)]
