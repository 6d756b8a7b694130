"""What the first page shows: how fast studies come in, what waits and since when, destinations, the disk, and what a person should look at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from pacs_node.database import alerts, overview
from pacs_node.database.overview import Place
from pacs_node.database.states import DeliveryState
from pacs_node.monitoring import charts
from pacs_node.monitoring.sources import Sources
from pacs_node.monitoring.words import counted
from pacs_node.reception.pressure import WORDS, Pressure, pressure_of

_RATE = timedelta(minutes=10)  # that the intake rate is taken over
_HOURS = 24
_MOST = 20  # rows of a table
_ALERTS = 50


def facts(sources: Sources, session: Session) -> dict[str, Any]:
    """Return what the template shows."""
    now = sources.clock()
    instances, within = overview.intake_rate(session, now, _RATE)
    by_hour = overview.arrivals_by_hour(session, now, _HOURS)
    open_alerts = alerts.open_alerts(session)
    return {
        "rate": 60 * instances / within.total_seconds(),
        "rate_span": within,
        "received": sum(by_hour),
        "intake": charts.bars(by_hour, [_hour(count, _HOURS - 1 - index) for index, count in enumerate(by_hour)], 480, 60),
        "studies": overview.studies_by_state(session),
        "jobs": overview.jobs_by_state(session),
        "gathering": overview.waiting_studies(session),
        "queue": overview.waiting_jobs(session),
        "places": [_place(place) for place in overview.places(session, sources.settings.destinations)],
        "disk": disk_facts(sources),
        "alerts": open_alerts[:_ALERTS],
        "more_alerts": max(len(open_alerts) - _ALERTS, 0),
        "aside": overview.kept_aside(session, _MOST),
        "newest": overview.newest_studies(session, 8),
        "came_back": overview.came_back(session),
    }


def _hour(count: int, back: int) -> str:
    return f"{counted(count, 'study', 'studies')} {'in the last hour' if back == 0 else f'{back} to {back + 1} hours ago'}"


def _place(place: Place) -> dict[str, Any]:
    state = "down" if place.down_since is not None else "up" if place.last_success_at is not None else "not tried yet"
    return {"facts": place, "state": state, "delivered": place.counts[DeliveryState.DELIVERED], "uncommitted": place.counts[DeliveryState.UNCOMMITTED]}


def disk_facts(sources: Sources) -> dict[str, Any]:
    """Return how full the disk of the data folder is, and what that means; what it says is empty where it cannot be measured."""
    try:
        disk = sources.measure(sources.data)
    except OSError as error:
        return {"problem": f"the disk of the data folder cannot be measured: {error.strerror}"}
    pressure = pressure_of(sources.settings, disk)
    marks = sources.settings.reception.reserve.bytes_of(disk.capacity), sources.settings.retention.high_watermark.bytes_of(disk.capacity)
    used = disk.capacity - disk.free
    return {
        "problem": "",
        "free": disk.free,
        "capacity": disk.capacity,
        "used": used,
        "share": used / disk.capacity if disk.capacity else 0.0,
        "reserve": marks[0],
        "watermark": marks[1],
        "meaning": WORDS[pressure],
        "tone": "good" if pressure is Pressure.NORMAL else "busy" if pressure <= Pressure.SWEEP else "bad",
    }
