"""Alerts (what a person should know, until it is cleared), and what is to stand in the audit trail.

Whatever is raised or cleared is an event of the same transaction, of which others are told (`journey/events.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from pacs_node.database import events
from pacs_node.database.audit import note
from pacs_node.database.engine import add_new
from pacs_node.database.tables import AlertRow


def raise_alert(session: Session, kind: str, subject: str, message: str, now: datetime) -> bool:
    """Open an alert; False where the same one is open already (its message is brought up to date)."""
    new = AlertRow(raised_at=now, kind=kind, subject=subject, message=message)
    if add_new(session, new, AlertRow.kind, AlertRow.subject, where=AlertRow.cleared_at.is_(None)) is not None:
        events.add(session, kind, new.subject, {"message": message}, now)
        return True
    same = (AlertRow.cleared_at.is_(None), AlertRow.kind == kind, AlertRow.subject == new.subject, AlertRow.message != message)
    session.execute(update(AlertRow).where(*same).values(message=message))
    return False


def clear_alert(session: Session, kind: str, subject: str, now: datetime) -> bool:
    """Close an alert; False where there was none."""
    return _clear(session, now, AlertRow.kind == kind, AlertRow.subject == subject)


def clear_kind(session: Session, kind: str, now: datetime) -> None:
    """Close all alerts of a kind."""
    _clear(session, now, AlertRow.kind == kind)


def clear_number(session: Session, alert_id: int, now: datetime) -> bool:
    """Close one alert by its number; False where it is not open."""
    return _clear(session, now, AlertRow.id == alert_id)


def _clear(session: Session, now: datetime, *which: ColumnElement[bool]) -> bool:
    query = update(AlertRow).where(AlertRow.cleared_at.is_(None), *which).values(cleared_at=now)
    closed = session.execute(query.returning(AlertRow.kind, AlertRow.subject, AlertRow.raised_at)).all()
    for kind, subject, raised_at in closed:
        events.add(session, kind, subject, {"since": raised_at.isoformat()}, now, over=True)
    return bool(closed)


def open_alerts(session: Session) -> Sequence[AlertRow]:
    """Return the open alerts, newest first."""
    return session.scalars(select(AlertRow).where(AlertRow.cleared_at.is_(None)).order_by(AlertRow.id.desc())).all()


def audit(session: Session, actor: str, action: str, subject: str, detail: Mapping[str, object], now: datetime) -> None:
    """Write down who did what: at the end of the session's transaction, or not at all where that ends without a commit (see `database.audit`).

    ``action``: a word of `monitoring.audit_events`; ``detail``: facts, never a name, number or date of a patient.
    """
    note(session, actor, action, subject, detail, now)
