"""How much working time has passed since something came: a pure decision, in the node's own time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from pacs_node.config import Silence
from pacs_node.config.events import DAYS

_LONGEST_LOOK = timedelta(days=60)  # what is silent for longer is silent anyway


def zone_of(name: str | None) -> ZoneInfo | None:
    """Return the node's time zone, None for the system's."""
    return ZoneInfo(name) if name is not None else None


def worked(since: datetime, now: datetime, silence: Silence, zone: ZoneInfo | None) -> timedelta:
    """Return the working time between two moments; a day on which clocks change has the hours that it has."""
    since = max(since, now - _LONGEST_LOOK)
    day, last, total = since.astimezone(zone).date(), now.astimezone(zone).date(), timedelta()
    while day <= last:
        if DAYS[day.weekday()] in silence.days:
            begin, end = (_moment(datetime.combine(day, at), zone) for at in silence.span)
            total += max(min(now, end) - max(since, begin), timedelta())
        day += timedelta(days=1)
    return total


def _moment(local: datetime, zone: ZoneInfo | None) -> datetime:
    """Return the moment of a wall clock time: compared in UTC, where every second counts once."""
    return (local.astimezone() if zone is None else local.replace(tzinfo=zone)).astimezone(UTC)
