"""The outbox: one row per object and destination, in groups that keep their order.

What one job sends to one destination is a group; so are the forwarded originals of a study (`pacs_node.database.originals`), and a
study's originals go to a destination before the results that refer to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased, selectinload
from sqlalchemy.sql.base import ExecutableOption

from pacs_node.database import originals
from pacs_node.database.alerts import clear_alert
from pacs_node.database.engine import add_new
from pacs_node.database.states import DeliveryState, move, sources
from pacs_node.database.tables import DeliveryRow, DestinationRow, JobRow, ObjectRow

UNFINISHED = (*originals.UNFINISHED, DeliveryState.UNCOMMITTED)
LONGEST_PAUSE = originals.LONGEST_PAUSE
ASK_AFTER = timedelta(seconds=3)  # after an object was stored: time for the others of its group, so that one request names them all
STUCK = (DeliveryState.PARKED, DeliveryState.REFUSED)


def add(session: Session, obj: ObjectRow, destination: str, now: datetime) -> DeliveryRow:
    """Put an object into the outbox for a destination."""
    row = DeliveryRow(study_id=obj.job.study_id, object_id=obj.id, job_id=obj.job_id, destination=destination, position=obj.position)
    row.state, row.next_attempt_at = DeliveryState.WAITING, now
    session.add(row)
    return row


def due_group(session: Session, destination: str, now: datetime) -> list[int]:
    """Return the rows of the oldest group that may go to a destination now, in order; results before the originals of other studies.

    A row whose turn has not come (its back-off runs) holds back those after it, since they may refer to it, and so does a refused one
    in whose place another kind is still to be made; other refused and parked ones hold nothing back. Studies that are held send nothing.
    """
    return _due_results(session, destination, now) or originals.due(session, destination, now)


def _due_results(session: Session, destination: str, now: datetime) -> list[int]:
    earlier = aliased(DeliveryRow)
    blocked = exists().where(
        earlier.job_id == DeliveryRow.job_id,
        earlier.destination == DeliveryRow.destination,
        earlier.position < DeliveryRow.position,
        or_(
            and_(earlier.state == DeliveryState.WAITING, ~originals.ripe(earlier.next_attempt_at, now)),
            and_(earlier.state == DeliveryState.REFUSED, earlier.fallback != ""),
        ),
    )
    ripe = originals.ripe(DeliveryRow.next_attempt_at, now)
    due = (
        DeliveryRow.destination == destination,
        DeliveryRow.state == DeliveryState.WAITING,
        DeliveryRow.job_id.is_not(None),
        ripe,
        ~blocked,
        ~originals.ahead(),
        ~originals.held(),
    )
    first = session.scalars(select(DeliveryRow.job_id).where(*due).order_by(DeliveryRow.job_id).limit(1)).first()
    if first is None:
        return []
    return list(session.scalars(select(DeliveryRow.id).where(*due, DeliveryRow.job_id == first).order_by(DeliveryRow.position, DeliveryRow.id)))


def start(session: Session, ids: Sequence[int], now: datetime) -> Sequence[DeliveryRow]:
    """Move rows to ``sending`` and return those that could be moved, with what they send, in order."""
    moved = session.scalars(
        update(DeliveryRow)
        .where(DeliveryRow.id.in_(ids), DeliveryRow.state == DeliveryState.WAITING, ~originals.held())
        .values(state=DeliveryState.SENDING, attempts=DeliveryRow.attempts + 1, first_attempt_at=func.coalesce(DeliveryRow.first_attempt_at, now))
        .returning(DeliveryRow.id)
    ).all()
    query = select(DeliveryRow).where(DeliveryRow.id.in_(moved)).options(*whole())
    return session.scalars(query.order_by(DeliveryRow.position, DeliveryRow.id).execution_options(populate_existing=True)).all()


def whole() -> tuple[ExecutableOption, ...]:
    """Load with a row what it sends."""
    return selectinload(DeliveryRow.object), selectinload(DeliveryRow.job), selectinload(DeliveryRow.instance)


def get(session: Session, delivery_id: int) -> DeliveryRow | None:
    """Return one row with what it sends, locked, as it is once nobody else works on it."""
    return session.scalars(_locked(select(DeliveryRow).where(DeliveryRow.id == delivery_id).options(*whole()))).one_or_none()


def get_all(session: Session, ids: Sequence[int]) -> dict[int, DeliveryRow]:
    """Return rows by their numbers, each as `get` does."""
    query = select(DeliveryRow).where(DeliveryRow.id.in_(ids)).options(*whole()).order_by(DeliveryRow.id)
    return {row.id: row for row in session.scalars(_locked(query))}


def _locked(query: Select[tuple[DeliveryRow]]) -> Select[tuple[DeliveryRow]]:
    return query.with_for_update(of=DeliveryRow, key_share=True).execution_options(populate_existing=True)


def settle(row: DeliveryRow, state: DeliveryState, status: int | None, message: str, now: datetime) -> None:
    """Note what a destination said about an object for good."""
    row.state = move(row.state, state)
    row.status, row.message = status, message
    if state is DeliveryState.DELIVERED:
        row.delivered_at = now
    elif state is DeliveryState.UNCOMMITTED:
        row.stored_at, row.ask_at, row.asked_at = now, now + ASK_AFTER, None


def postpone(row: DeliveryRow, until: datetime, status: int | None, message: str) -> None:
    """Try again later."""
    row.state = move(row.state, DeliveryState.WAITING)
    row.next_attempt_at, row.status, row.message = until, status, message


def left_sending(session: Session, destination: str) -> Sequence[int]:
    """Return what still stands as being sent to a destination: asked when nothing is, so it was left by a crash."""
    return session.scalars(select(DeliveryRow.id).where(DeliveryRow.destination == destination, DeliveryRow.state == DeliveryState.SENDING)).all()


def give_back(session: Session, ids: Sequence[int], until: datetime) -> int:
    """Let rows that were left in the middle of sending wait again; returns how many. Sending again is safe: same UID, same bytes."""
    query = update(DeliveryRow).where(DeliveryRow.id.in_(ids), DeliveryRow.state == DeliveryState.SENDING)
    return len(session.scalars(query.values(state=DeliveryState.WAITING, next_attempt_at=until).returning(DeliveryRow.id)).all())


def not_tried(session: Session, ids: Sequence[int], now: datetime) -> None:
    """Let rows that were started and not offered wait again, as if they had not been started."""
    query = update(DeliveryRow).where(DeliveryRow.id.in_(ids), DeliveryRow.state == DeliveryState.SENDING)
    session.execute(query.values(state=DeliveryState.WAITING, attempts=DeliveryRow.attempts - 1, next_attempt_at=now))


def still_sending(session: Session, delivery_id: int) -> bool:
    """Tell whether an object may still go out: not withdrawn, its study not held since the group was started."""
    query = select(DeliveryRow.id).where(DeliveryRow.id == delivery_id, DeliveryRow.state == DeliveryState.SENDING, ~originals.held())
    return session.scalars(query).first() is not None


def withdrawn(session: Session, job_id: int, run: int) -> bool:
    """Tell whether anything that a run had built was withdrawn before it was sent."""
    gone = (DeliveryRow.job_id == job_id, ObjectRow.run == run, DeliveryRow.state == DeliveryState.CANCELLED, DeliveryRow.stored_at.is_(None))
    query = select(DeliveryRow.id).join(ObjectRow).where(*gone)
    return session.scalars(query.limit(1)).first() is not None


def park_unknown(session: Session, known: Iterable[str]) -> list[str]:
    """Park what waits for destinations that are not configured any more; returns their names."""
    query = update(DeliveryRow).where(DeliveryRow.state.in_(UNFINISHED), DeliveryRow.destination.not_in(list(known)))
    message = "the destination is not configured any more"
    return sorted(set(session.scalars(query.values(state=DeliveryState.PARKED, message=message).returning(DeliveryRow.destination))))


def cancel_unfinished(session: Session, study_id: int, reason: str) -> int:
    """Withdraw what a study's jobs have not sent yet, and what was to follow; returns how many rows.

    Its originals are not withdrawn: they are what was received.
    """
    return _withdraw(session, DeliveryRow.job_id.in_(select(JobRow.id).where(JobRow.study_id == study_id)), reason)


def cancel_of_job(session: Session, job_id: int, reason: str) -> None:
    """Withdraw what a job has not sent yet, and what was to follow."""
    _withdraw(session, DeliveryRow.job_id == job_id, reason)


def _withdraw(session: Session, whose: ColumnElement[bool], reason: str) -> int:
    session.execute(update(DeliveryRow).where(whose, DeliveryRow.afterwards != "").values(afterwards=""))
    query = update(DeliveryRow).where(whose, DeliveryRow.state.in_(sources(DeliveryState.CANCELLED)))
    return len(session.scalars(query.values(state=DeliveryState.CANCELLED, message=reason).returning(DeliveryRow.id)).all())


def delivered_count(session: Session, study_id: int) -> int:
    """Return how many results of a study have reached a destination."""
    mine = (DeliveryRow.study_id == study_id, DeliveryRow.job_id.is_not(None), originals.arrived())
    return session.scalar(select(func.count(DeliveryRow.id)).where(*mine)) or 0


def to_replace(session: Session, destination: str, now: datetime) -> Sequence[DeliveryRow]:
    """Return refused rows in whose place another kind is to be made now, a few at a time."""
    mine = (DeliveryRow.destination == destination, DeliveryRow.state == DeliveryState.REFUSED, DeliveryRow.fallback != "")
    query = select(DeliveryRow).where(*mine, originals.ripe(DeliveryRow.next_attempt_at, now)).options(*whole())
    return session.scalars(query.order_by(DeliveryRow.id).limit(20)).all()


def of_run(session: Session, row: DeliveryRow) -> Sequence[DeliveryRow]:
    """Return what the same run of a job sends to the same destination."""
    mine = (DeliveryRow.job_id == row.job_id, DeliveryRow.destination == row.destination)
    rows = session.scalars(select(DeliveryRow).where(*mine).options(*whole()).order_by(DeliveryRow.position, DeliveryRow.id)).all()
    return [one for one in rows if one.object is not None and row.object is not None and one.object.run == row.object.run]


def add_after(session: Session, arrived: DeliveryRow, object_id: int, position: int, now: datetime) -> None:
    """Put an object into the outbox that follows what has arrived."""
    row = DeliveryRow(study_id=arrived.study_id, object_id=object_id, job_id=arrived.job_id, destination=arrived.destination, position=position)
    row.state, row.next_attempt_at = DeliveryState.WAITING, now
    session.add(row)


def add_instead(session: Session, refused: DeliveryRow, object_id: int, now: datetime) -> None:
    """Put an object into the outbox in the place of a refused one."""
    row = DeliveryRow(study_id=refused.study_id, object_id=object_id, job_id=refused.job_id, destination=refused.destination, position=refused.position)
    row.state, row.next_attempt_at = DeliveryState.WAITING, now
    session.add(row)
    session.flush()


def list_deliveries(session: Session, limit: int = 100, job_id: int | None = None, *, bundled: bool = False) -> Sequence[DeliveryRow]:
    """Return the newest rows of the outbox (of one job), with what they send; ``bundled``: without the originals, except stuck ones."""
    query = select(DeliveryRow).options(*whole())
    if job_id is not None:
        query = query.where(DeliveryRow.job_id == job_id)
    if bundled:
        query = query.where(or_(DeliveryRow.job_id.is_not(None), DeliveryRow.state.in_(STUCK)))
    return session.scalars(query.order_by(DeliveryRow.id.desc()).limit(limit)).all()


def stuck(session: Session) -> Sequence[DeliveryRow]:
    """Return all parked and refused rows, locked: what ``retry --parked`` sends again."""
    return session.scalars(_locked(select(DeliveryRow).where(DeliveryRow.state.in_(STUCK)).order_by(DeliveryRow.id).options(*whole()))).all()


def stuck_like(session: Session, row: DeliveryRow, state: DeliveryState) -> int:
    """Return how many deliveries the alert about ``row`` speaks of in a state: one, or the originals of its study for its destination."""
    mine = [DeliveryRow.state == state, DeliveryRow.fallback == ""]
    if row.job_id is not None:
        mine.append(DeliveryRow.id == row.id)
    else:
        mine += [DeliveryRow.study_id == row.study_id, DeliveryRow.destination == row.destination, DeliveryRow.job_id.is_(None)]
    return session.scalar(select(func.count(DeliveryRow.id)).where(*mine)) or 0


def clear_stuck(session: Session, row: DeliveryRow, now: datetime) -> None:
    """Take the alerts back that a delivery was refused or parked, unless they speak of others that still are."""
    session.flush()
    for state in STUCK:
        if not stuck_like(session, row, state):
            clear_alert(session, state.value, row.subject, now)


def destination_row(session: Session, name: str) -> DestinationRow:
    """Return what is known of a destination, locked, made where nothing is."""
    row = session.get(DestinationRow, name, with_for_update={"key_share": True})
    if row is None:
        add_new(session, DestinationRow(name=name, failures=0, message=""), DestinationRow.name)
        row = session.get_one(DestinationRow, name, with_for_update={"key_share": True})
    return row
