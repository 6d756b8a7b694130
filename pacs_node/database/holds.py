"""What an archive says about the patient of a study where it is another one than here: kept until both agree, or an operator decides."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import case, delete, select, update
from sqlalchemy.orm import Session

from pacs_node.database.originals import UNFINISHED
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow, IdentityHoldRow


def of(session: Session, study_id: int, destination: str) -> IdentityHoldRow | None:
    """Return what is noted about a study and a destination."""
    mine = (IdentityHoldRow.study_id == study_id, IdentityHoldRow.destination == destination)
    return session.scalars(select(IdentityHoldRow).where(*mine)).one_or_none()


def released(row: IdentityHoldRow | None, ours: Sequence[str], theirs: Sequence[str]) -> bool:
    """Tell whether an operator said of exactly these two that they are one patient."""
    return row is not None and row.released_at is not None and (row.ours, row.theirs) == (list(ours), list(theirs))


def note(session: Session, study_id: int, destination: str, ours: Sequence[str], theirs: Sequence[str], now: datetime) -> None:
    """Note that an archive names another patient; what was noted, or released, of others before is forgotten."""
    row = of(session, study_id, destination)
    if row is None:
        row = IdentityHoldRow(study_id=study_id, destination=destination)
        session.add(row)
    row.ours, row.theirs, row.held_at, row.released_at = list(ours), list(theirs), now, None


def forget(session: Session, study_id: int, destination: str, now: datetime) -> None:
    """Note that both agree: what waited for it goes now."""
    look_now(session, study_id, destination, now)
    session.execute(delete(IdentityHoldRow).where(IdentityHoldRow.study_id == study_id, IdentityHoldRow.destination == destination))


def put_off(session: Session, study_id: int, destination: str, until: datetime, message: str) -> None:
    """Let all that a study has for a destination wait, without counting an attempt."""
    mine = (DeliveryRow.study_id == study_id, DeliveryRow.destination == destination, DeliveryRow.state.in_(UNFINISHED))
    tried = case((DeliveryRow.state == DeliveryState.SENDING, DeliveryRow.attempts - 1), else_=DeliveryRow.attempts)
    changes = {"state": DeliveryState.WAITING, "attempts": tried, "next_attempt_at": until, "message": message}
    session.execute(update(DeliveryRow).where(*mine).values(changes).execution_options(synchronize_session=False))


def look_now(session: Session, study_id: int, destination: str, now: datetime) -> None:
    """Let what was held be due, where anything is."""
    if of(session, study_id, destination) is not None:
        mine = (DeliveryRow.study_id == study_id, DeliveryRow.destination == destination, DeliveryRow.state == DeliveryState.WAITING)
        session.execute(update(DeliveryRow).where(*mine).values(next_attempt_at=now).execution_options(synchronize_session=False))


def release(session: Session, study_id: int, now: datetime) -> list[str]:
    """Take an operator's word that the patients named here and there are one; returns the destinations that get the study now."""
    held = session.scalars(select(IdentityHoldRow).where(IdentityHoldRow.study_id == study_id, IdentityHoldRow.released_at.is_(None))).all()
    for row in held:
        look_now(session, study_id, row.destination, now)
        row.released_at = now
    return sorted(row.destination for row in held)
