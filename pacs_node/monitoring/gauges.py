"""What is looked up when `/metrics` is asked for: the state of studies, jobs, deliveries, destinations, alerts and the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pacs_node.database import heartbeats, overview
from pacs_node.database.deliveries import UNFINISHED
from pacs_node.database.states import DeliveryState, JobState, NotificationState, StudyState
from pacs_node.database.tables import AlertRow, AsideRow, DeliveryRow, DestinationRow, JobRow, NotificationRow, StudyRow
from pacs_node.errors import DatabaseUnavailable
from pacs_node.monitoring.sources import Sources
from pacs_node.reception.pressure import pressure_of

Row = tuple[str, tuple[str, ...], float]
"""(metric, labels, value)."""


@dataclass(frozen=True)
class Looking:
    """What a look needs."""

    sources: Sources
    session: Session
    now: datetime

    def since(self, moment: datetime | None) -> float:
        """Return how many seconds ago that was; 0 for never."""
        return max(0.0, (self.now - moment).total_seconds()) if moment is not None else 0.0


def look(sources: Sources) -> tuple[list[Row], bool]:
    """Return all values, and whether the database answered: without it there are only those of the disk."""
    rows, there = list(_disk(sources)), True
    try:
        with sources.read() as session:
            for query in QUERIES:
                rows += query(Looking(sources, session, sources.clock()))
    except DatabaseUnavailable:
        rows, there = [row for row in rows if row[0].startswith(("pacs_node_disk", "pacs_node_spool"))], False
    return [*rows, ("pacs_node_database_up", (), float(there))], there


def _disk(sources: Sources) -> Iterator[Row]:
    with suppress(OSError):  # the data folder is not there: /ready says so
        disk = sources.measure(sources.data)
        yield "pacs_node_disk_free_bytes", (), disk.free
        yield "pacs_node_disk_capacity_bytes", (), disk.capacity
        yield "pacs_node_disk_reserve_bytes", (), sources.settings.reception.reserve.bytes_of(disk.capacity)
        yield "pacs_node_disk_pressure", (), float(pressure_of(sources.settings, disk))
        yield "pacs_node_spool_entries", (), float(sum(_entries(shard.path) for shard in os.scandir(sources.data / "spool" / "new") if shard.is_dir()))


def _entries(shard: str) -> int:
    return sum(not name.endswith(".part") for name in os.listdir(shard))


def _studies(look: Looking) -> Iterator[Row]:
    for state, count in overview.studies_by_state(look.session).items():
        yield "pacs_node_studies", (state.value,), count
    oldest = look.session.scalar(select(func.min(StudyRow.first_arrival)).where(StudyRow.state == StudyState.RECEIVING))
    yield "pacs_node_study_oldest_receiving_seconds", (), look.since(oldest)


def _jobs(look: Looking) -> Iterator[Row]:
    for state, count in overview.jobs_by_state(look.session).items():
        yield "pacs_node_jobs", (state.value,), count
    oldest = look.session.scalar(select(func.min(JobRow.created_at)).where(JobRow.state == JobState.QUEUED))
    yield "pacs_node_job_queue_oldest_seconds", (), look.since(oldest)


def _deliveries(look: Looking) -> Iterator[Row]:
    columns = (DeliveryRow.destination, DeliveryRow.state)
    counts = {(row[0], row[1]): row[2] for row in look.session.execute(select(*columns, func.count()).group_by(*columns))}
    names = list(dict.fromkeys([*look.sources.settings.destinations, *(name for name, _ in counts)]))
    for name in names:
        for state in DeliveryState:
            yield "pacs_node_deliveries", (name, state.value), counts.get((name, state), 0)
    begun = func.min(func.coalesce(DeliveryRow.first_attempt_at, DeliveryRow.next_attempt_at))
    waiting = (DeliveryRow.destination.in_(names), DeliveryRow.state.in_(list(UNFINISHED)))
    oldest = {row[0]: row[1] for row in look.session.execute(select(DeliveryRow.destination, begun).where(*waiting).group_by(DeliveryRow.destination))}
    for name in names:
        yield "pacs_node_delivery_oldest_waiting_seconds", (name,), look.since(oldest.get(name))


def _destinations(look: Looking) -> Iterator[Row]:
    known = {row.name: row for row in look.session.scalars(select(DestinationRow))}
    alerts = set(look.session.scalars(select(AlertRow.subject).where(AlertRow.cleared_at.is_(None), AlertRow.kind == "destination")))
    for name in look.sources.settings.destinations:
        since = known[name].down_since if name in known and name in alerts else None  # a single failure is none yet
        yield "pacs_node_destination_up", (name,), float(since is None)
        yield "pacs_node_destination_down_seconds", (name,), look.since(since)


def _people(look: Looking) -> Iterator[Row]:
    for kind, count in look.session.execute(select(AlertRow.kind, func.count()).where(AlertRow.cleared_at.is_(None)).group_by(AlertRow.kind)):
        yield "pacs_node_alerts_open", (kind,), count
    for kind, count in look.session.execute(select(AsideRow.kind, func.count()).where(AsideRow.removed_at.is_(None)).group_by(AsideRow.kind)):
        yield "pacs_node_aside", (kind,), count


def _told(look: Looking) -> Iterator[Row]:
    waits = NotificationRow.state == NotificationState.WAITING
    counts = {row[0]: row[1] for row in look.session.execute(select(NotificationRow.receiver, func.count()).where(waits).group_by(NotificationRow.receiver))}
    for receiver in look.sources.settings.events.receivers:
        yield "pacs_node_events_waiting", (receiver.title,), counts.get(receiver.title, 0)


def _heartbeat(look: Looking) -> Iterator[Row]:
    back = heartbeats.latest_back(look.session)
    lasted = heartbeats.latency(back) if back is not None else None
    if back is not None and lasted is not None:
        yield "pacs_node_heartbeat_seconds", (), lasted.total_seconds()
        yield "pacs_node_heartbeat_age_seconds", (), look.since(back.begun_at)


QUERIES: Sequence[Callable[[Looking], Iterator[Row]]] = (_studies, _jobs, _deliveries, _destinations, _people, _told, _heartbeat)
"""What the database is asked; each gives rows of one or more metrics."""
