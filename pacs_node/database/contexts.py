"""What destinations were seen to take, a row for each SOP class: learnt from the associations that deliver results, used when the next results are planned.

A fact holds for `HOLDS` after it was last seen, and only for the configuration of the destination with which it was seen: a PACS gets upgraded,
and another one takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.database.tables import ContextRow

HOLDS = timedelta(days=7)
_SEEN_AGAIN = timedelta(hours=1)  # before the same fact is written down anew


def news(session: Session, destination: str, config: str, facts: Mapping[str, bool], now: datetime) -> dict[str, bool]:
    """Return those of the facts, SOP class → accepted, that are not known yet or were not seen lately."""
    known = {row.sop_class_uid: row for row in _rows(session, destination)}

    def is_known(uid: str, accepted: bool) -> bool:
        row = known.get(uid)
        return row is not None and row.accepted is accepted and row.config == config and timedelta(0) <= now - row.seen_at < _SEEN_AGAIN

    return {uid: accepted for uid, accepted in facts.items() if not is_known(uid, accepted)}


def learn(session: Session, destination: str, config: str, facts: Mapping[str, bool], now: datetime) -> None:
    """Write facts down, SOP class → accepted; ``config`` tells one configuration of the destination from another."""
    for uid, accepted in sorted(facts.items()):
        session.merge(ContextRow(destination=destination, sop_class_uid=uid, accepted=accepted, config=config, seen_at=now))


def refused(session: Session, destination: str, config: str, now: datetime) -> frozenset[str]:
    """Return the SOP classes that a destination is known not to take; what is not known, or was known too long ago, is none of them."""
    rows = (row for row in _rows(session, destination) if not row.accepted and row.config == config)
    return frozenset(row.sop_class_uid for row in rows if -HOLDS < now - row.seen_at < HOLDS)


def _rows(session: Session, destination: str) -> list[ContextRow]:
    return list(session.scalars(select(ContextRow).where(ContextRow.destination == destination)))
