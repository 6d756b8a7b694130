"""The lists of the status page, a page at a time, and the search.

A list goes on from where a page ended, never from a count: no page is slower than the first.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from pacs_node.database import overview, studies
from pacs_node.database.overview import Mark
from pacs_node.database.states import STUCK, DeliveryState, JobState, StudyState
from pacs_node.database.tables import StudyRow
from pacs_node.errors import InputError
from pacs_node.monitoring.sources import Sources

ROWS = 50  # of a page
LARGEST = 2**31 - 1  # number of a row
_STUCK = "stuck"

State = TypeVar("State", StudyState, JobState)


def study_list(session: Session, state: str, after: str) -> dict[str, Any]:
    """Return a page of studies; raises `InputError` for words that no link of ours holds."""
    chosen = _state(StudyState, state)
    rows = overview.newest_studies(session, ROWS + 1, state=chosen, after=_mark(after))
    more = _written(rows[ROWS - 1]) if len(rows) > ROWS else ""
    return {"studies": _with_counts(session, rows[:ROWS]), "state": chosen, "states": list(StudyState), "more": more, "first": not after}


def _with_counts(session: Session, rows: Any) -> list[dict[str, Any]]:
    counts = overview.instance_counts(session, [row.id for row in rows])
    return [{"row": row, "instances": counts.get(row.id, 0), "modality": "/".join(dict.fromkeys(series.modality for series in row.series))} for row in rows]


def found_studies(session: Session, word: str) -> list[dict[str, Any]]:
    """Return the studies that a word names."""
    rows = [row for number in overview.find_studies(session, word) if (row := studies.get_study(session, number)) is not None]
    return _with_counts(session, rows)


def job_list(session: Session, state: str, before: str) -> dict[str, Any]:
    """Return a page of jobs; raises `InputError`."""
    chosen = _state(JobState, state)
    rows = overview.newest_jobs(session, ROWS + 1, state=chosen, before=_number(before))
    return {"jobs": rows[:ROWS], "state": chosen, "states": list(JobState), "more": rows[ROWS - 1].id if len(rows) > ROWS else "", "first": not before}


def delivery_list(sources: Sources, session: Session, destination: str, state: str, before: str) -> dict[str, Any]:
    """Return a page of the outbox; ``state`` may be ``stuck``: refused or given up. Raises `InputError`."""
    names = list(dict.fromkeys([*sources.settings.destinations, *overview.destination_names(session)]))
    if destination and destination not in names:
        raise InputError(f"there is no destination {destination[:64]!r}")
    states = STUCK if state == _STUCK else () if not state else (_delivery_state(state),)
    wanted = states or (tuple(DeliveryState) if destination else ())
    rows = overview.newest_deliveries(session, ROWS + 1, destinations=[destination] if destination else names, states=wanted, before=_number(before))
    return {
        "deliveries": rows[:ROWS],
        "destination": destination,
        "state": state,
        "destinations": names,
        "states": [_STUCK, *(one.value for one in DeliveryState)],
        "more": rows[ROWS - 1].id if len(rows) > ROWS else "",
        "first": not before,
    }


def _delivery_state(word: str) -> DeliveryState:
    try:
        return DeliveryState(word)
    except ValueError as error:
        raise InputError(f"there is no state {word[:32]!r} of a delivery") from error


def _state(kind: type[State], word: str) -> State | None:
    try:
        return kind(word) if word else None
    except ValueError as error:
        raise InputError(f"there is no state {word[:32]!r}: there are {', '.join(kind)}") from error


def _number(word: str) -> int | None:
    if not word:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", word) or int(word) > LARGEST:
        raise InputError(f"{word[:32]!r} is no place in this list")
    return int(word)


def _written(row: StudyRow) -> str:
    """Write where a page ended: microseconds since 1970 and number."""
    since = row.last_arrival - datetime(1970, 1, 1, tzinfo=UTC)
    return f"{(since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds}-{row.id}"


def _mark(word: str) -> Mark | None:
    if not word:
        return None
    match = re.fullmatch(r"([0-9]{1,17})-([0-9]{1,10})", word)
    if match is None:
        raise InputError(f"{word[:32]!r} is no place in this list")
    micros, number = int(match[1]), min(int(match[2]), LARGEST)
    return Mark(datetime.fromtimestamp(micros // 1_000_000, UTC).replace(microsecond=micros % 1_000_000), number)
