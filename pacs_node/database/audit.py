"""The audit trail: rows that are only ever added, each with a hash over its content and the hash of the one before.

::

    0000… ─► row 1 ─► row 2 ─► … ─► row n      hash(n) = SHA-256 of [hash(n−1), number, at, actor, action, subject, detail]

Who changes, removes, inserts or reorders a row breaks the chain from there on, unless all that follows is hashed anew; so the last hash (the
*anchor*) is kept elsewhere as well: in the log, and with a syslog collector. Triggers of both databases refuse to change and to remove rows.

Rows are linked at the very end of the transaction that writes them (`seal`), in the order of their commits: on SQLite one transaction writes
at a time anyway; on PostgreSQL an advisory lock is held from there to the commit. It is the last lock that a transaction takes, so that
nobody who holds it waits for another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.orm import Session

from pacs_node.database.drivers import as_json
from pacs_node.database.tables import AuditRow
from pacs_node.records import AuditChain, AuditEntry

GENESIS = "0" * 64
"""What stands before the first row in place of a hash."""

_LINKING = 7_302_511_880_146_002  # PostgreSQL's advisory lock of a transaction that adds to the trail
_PENDING = "audit"  # where a session keeps what its transaction will add
_PAGE = 500  # rows


# --- writing -------------------------------------------------------------------------------------------------------------


def note(session: Session, actor: str, action: str, subject: str, detail: Mapping[str, object], now: datetime) -> None:
    """Let the session's transaction write down who did what, at its end."""
    session.info.setdefault(_PENDING, []).append((now, actor, action, subject, json.loads(as_json(dict(detail)))))


def seal(session: Session) -> None:
    """Link what the transaction noted to the end of the trail; the last that is done in a transaction."""
    pending = session.info.pop(_PENDING, None)
    if not pending:
        return
    session.flush()
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LINKING})
    number, before = last(session)
    linked = []
    for at, actor, action, subject, detail in pending:
        number += 1
        row = AuditRow(at=at, actor=_storable(actor), action=_storable(action), subject=_storable(subject))  # cuts what is too long
        before = link(before, AuditEntry(number, at, row.actor, row.action, row.subject, detail))
        facts = {"id": number, "at": at, "actor": row.actor, "action": row.action, "subject": row.subject}
        linked.append({**facts, "detail": detail, "hash": before})
    session.execute(insert(cast("Table", AuditRow.__table__)), linked)


def last(session: Session) -> tuple[int, str]:
    """Return number and hash of the last row; 0 and `GENESIS` where there is none."""
    found = session.execute(select(AuditRow.id, AuditRow.hash).order_by(AuditRow.id.desc()).limit(1)).first()
    return (0, GENESIS) if found is None else (found.id, found.hash)


def _storable(words: str) -> str:
    """Return a text as both databases give it back."""
    return words.replace("\0", "")


def link(before: str, entry: AuditEntry) -> str:
    """Return the hash of a row that follows one with the hash ``before``. Its form never changes: it would break every trail there is."""
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    content = [before, entry.number, at, entry.actor, entry.action, entry.subject, entry.detail]
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


# --- reading -------------------------------------------------------------------------------------------------------------


def entry_of(row: AuditRow) -> AuditEntry:
    """Return a row as a value."""
    return AuditEntry(row.id, row.at, row.actor, row.action, row.subject, row.detail, row.hash or "")


def after(session: Session, number: int, limit: int) -> list[AuditEntry]:
    """Return the ``limit`` oldest rows after a number, in their order."""
    query = select(AuditRow).where(AuditRow.id > number).order_by(AuditRow.id).limit(limit)
    return [entry_of(row) for row in session.scalars(query)]


def newest(session: Session, limit: int) -> list[AuditEntry]:
    """Return the newest rows, newest first."""
    return [entry_of(row) for row in session.scalars(select(AuditRow).order_by(AuditRow.id.desc()).limit(limit))]


def every(session: Session) -> Iterator[AuditEntry]:
    """Yield all rows in their order, a page at a time."""
    number = None
    while True:
        query = select(AuditRow).order_by(AuditRow.id).limit(_PAGE)
        page = [entry_of(row) for row in session.scalars(query if number is None else query.where(AuditRow.id > number))]
        session.expunge_all()
        yield from page
        if len(page) < _PAGE:
            return
        number = page[-1].number


def count(session: Session) -> int:
    """Return how many rows there are."""
    return session.scalar(select(func.count()).select_from(AuditRow)) or 0


def follow(entries: Iterable[AuditEntry], anchor: str = "") -> AuditChain:
    """Follow the chain to its end, or to the first row that does not belong where it stands.

    ``anchor``: a hash that was the last one at some time, ``""`` where none is known; a trail without it has lost its end, or was written anew.
    """
    length, number, before, met = 0, 0, GENESIS, anchor in ("", GENESIS)
    for entry in entries:
        if entry.hash != link(before, entry):
            return AuditChain(length, before, entry.number, _why(entry, number))
        length, number, before = length + 1, entry.number, entry.hash
        met = met or before == anchor
    if not met:
        return AuditChain(length, before, None, f"no row has the hash {anchor}: rows at the end were removed, or the trail was written anew")
    return AuditChain(length, before)


def _why(entry: AuditEntry, former: int) -> str:
    what = f"row {entry.number} of {entry.at:%Y-%m-%d %H:%M:%S} UTC ({entry.action} {entry.subject}, by {entry.actor})"
    between = f", or rows between {former} and {entry.number} were removed" if entry.number > former + 1 else ""
    if not former:
        return f"{what}, the first, is not as it was written{between}"
    return f"{what} does not follow row {former}: it was changed, moved or inserted{between}"


def as_line(entry: AuditEntry) -> dict[str, Any]:
    """Return a row as one line of JSON holds it."""
    at = entry.at.astimezone(UTC).isoformat(timespec="microseconds")
    facts = {"number": entry.number, "at": at, "actor": entry.actor, "action": entry.action, "subject": entry.subject}
    return {**facts, "detail": entry.detail, "hash": entry.hash}
