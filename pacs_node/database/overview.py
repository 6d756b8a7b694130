"""What status tables and pages show: queries that only read, each on an index, so that a long history slows none of them down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session, selectinload

from pacs_node.database import deliveries
from pacs_node.database.heartbeats import of_patients
from pacs_node.database.states import STUCK, DeliveryState, JobState, StudyState
from pacs_node.database.tables import AsideRow, Base, DeliveryRow, DestinationRow, InstanceRow, JobRow, ObjectRow, SeriesRow, StudyRow

_NEWEST_INSTANCES = 10_000  # that the intake rate is taken from
_FEW = 5_000  # rows that are sorted without a pause that anybody notices
_HOUR = timedelta(hours=1)

Row = TypeVar("Row", bound=Base)


# --- studies ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a page of a list that is ordered by time ended: the next one goes on after it."""

    at: datetime
    number: int


def newest_studies(session: Session, limit: int, *, state: StudyState | None = None, after: Mark | None = None) -> Sequence[StudyRow]:
    """Return studies with their series, by their last arrival, newest first; of one state, from where a page ended."""
    query = select(StudyRow).options(selectinload(StudyRow.series))
    if state is not None:
        query = query.where(StudyRow.state == state)
    if after is not None:
        query = query.where(StudyRow.last_arrival <= after.at, tuple_(StudyRow.last_arrival, StudyRow.id) < (after.at, after.number))
    return session.scalars(query.order_by(StudyRow.last_arrival.desc(), StudyRow.id.desc()).limit(limit)).all()


def instance_counts(session: Session, study_ids: Iterable[int]) -> dict[int, int]:
    """Return how many instances of each study were received, our own results left out."""
    query = select(InstanceRow.study_id, func.count()).where(InstanceRow.study_id.in_(list(study_ids)), ~InstanceRow.own).group_by(InstanceRow.study_id)
    return {row[0]: row[1] for row in session.execute(query)}


def studies_by_state(session: Session) -> dict[StudyState, int]:
    """Count the studies of each state."""
    found = {row[0]: row[1] for row in session.execute(select(StudyRow.state, func.count()).group_by(StudyRow.state))}
    return {state: found.get(state, 0) for state in StudyState}


def find_studies(session: Session, word: str, limit: int = 50) -> list[int]:
    """Return the numbers of the studies that ``word`` names: an accession number, the UID of a study or of an instance, or one of our results."""
    by_study = select(StudyRow.id).where(or_(StudyRow.accession == word, StudyRow.study_uid == word)).order_by(StudyRow.id.desc()).limit(limit)
    found = list(session.scalars(by_study))
    found += session.scalars(select(InstanceRow.study_id).where(InstanceRow.sop_uid == word))
    found += session.scalars(select(JobRow.study_id).join(ObjectRow).where(ObjectRow.sop_uid == word))
    return list(dict.fromkeys(found or _by_series(session, word, limit)))


def _by_series(session: Session, word: str, limit: int) -> Sequence[int]:
    """Look for a series: what no other index knows. The index of series is by study, so that it is read through; a UID alone is worth that."""
    if not word.replace(".", "").isdigit():
        return []
    return session.scalars(select(SeriesRow.study_id).where(SeriesRow.series_uid == word).limit(limit)).all()


# --- how fast, how long ----------------------------------------------------------------------------------------------------


def intake_rate(session: Session, now: datetime, span: timedelta) -> tuple[int, timedelta]:
    """Return how many new instances came in the last ``span``, and in which time: less than ``span`` where they are more than are counted."""
    newest = session.scalar(select(func.max(InstanceRow.id))) or 0
    recent = (InstanceRow.id > newest - _NEWEST_INSTANCES, InstanceRow.received_at > now - span)
    count, first = session.execute(select(func.count(), func.min(InstanceRow.received_at)).where(*recent)).one()
    return count, max(now - first, timedelta(seconds=1)) if count >= _NEWEST_INSTANCES else span


def arrivals_by_hour(session: Session, now: datetime, hours: int) -> list[int]:
    """Return how many studies were last received in each of the last hours, the oldest hour first."""
    counts = [0] * hours
    for moment in session.scalars(select(StudyRow.last_arrival).where(StudyRow.last_arrival > now - hours * _HOUR)):
        counts[-1 - min(max(int((now - moment) / _HOUR), 0), hours - 1)] += 1
    return counts


@dataclass(frozen=True, slots=True)
class Queue:
    """How many wait, and since when the longest does."""

    count: int
    since: datetime | None


def waiting_studies(session: Session) -> Queue:
    """Return how many studies are being received or wait for their rules."""
    return Queue(*session.execute(select(func.count(), func.min(StudyRow.first_arrival)).where(StudyRow.state == StudyState.RECEIVING)).one())


def waiting_jobs(session: Session) -> Queue:
    """Return how many jobs wait for a worker."""
    return Queue(*session.execute(select(func.count(), func.min(JobRow.created_at)).where(JobRow.state == JobState.QUEUED)).one())


def jobs_by_state(session: Session) -> dict[JobState, int]:
    """Count the jobs of each state."""
    found = {row[0]: row[1] for row in session.execute(select(JobRow.state, func.count()).group_by(JobRow.state))}
    return {state: found.get(state, 0) for state in JobState}


# --- jobs and deliveries ---------------------------------------------------------------------------------------------------


def newest_jobs(session: Session, limit: int, *, state: JobState | None = None, before: int | None = None) -> Sequence[JobRow]:
    """Return jobs with their studies, newest first; of one state, those numbered below ``before``."""
    where = () if state is None else (JobRow.state == state,)
    return _newest(session, select(JobRow).options(selectinload(JobRow.study)), JobRow.id, where, before, limit)


def _newest(
    session: Session, query: Select[tuple[Row]], number: InstrumentedAttribute[int], where: Sequence[ColumnElement[bool]], before: int | None, limit: int
) -> Sequence[Row]:
    """Return rows by number, newest first: few are found by the index of ``where`` alone, of many the newest are soon met by number."""
    wanted = where if before is None else (*where, number < before)
    numbers = session.scalars(select(number).where(*wanted).limit(_FEW)).all() if where else ()
    wanted = (number.in_(sorted(numbers)[-limit:]),) if where and len(numbers) < _FEW else wanted
    return session.scalars(query.where(*wanted).order_by(number.desc()).limit(limit)).all()


def newest_deliveries(
    session: Session, limit: int, *, destinations: Sequence[str] = (), states: Sequence[DeliveryState] = (), before: int | None = None
) -> Sequence[DeliveryRow]:
    """Return rows of the outbox with what they send, newest first; of some states at some destinations (both are named then), numbered below ``before``."""
    where = (DeliveryRow.destination.in_(list(destinations)), DeliveryRow.state.in_(list(states))) if states else ()
    return _newest(session, select(DeliveryRow).options(*deliveries.whole()), DeliveryRow.id, where, before, limit)


def deliveries_by_destination(session: Session) -> dict[str, Counter[DeliveryState]]:
    """Count the outbox by destination and state; what is refused and has a stand-in still to be made counts as waiting."""
    counts: dict[str, Counter[DeliveryState]] = {}
    columns = (DeliveryRow.destination, DeliveryRow.state)
    for name, state, count in session.execute(select(*columns, func.count()).group_by(*columns)):  # of the index alone, however long the history
        counts.setdefault(name, Counter())[state] = count
    instead = (DeliveryRow.destination.in_(list(counts)), DeliveryRow.state == DeliveryState.REFUSED, DeliveryRow.fallback != "")
    for name, count in session.execute(select(DeliveryRow.destination, func.count()).where(*instead).group_by(DeliveryRow.destination)):
        counts[name][DeliveryState.REFUSED] -= count
        counts[name][DeliveryState.WAITING] += count
    return counts


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a destination: up, or down since when, and how many deliveries of each state it has."""

    name: str
    counts: Counter[DeliveryState]
    down_since: datetime | None = None
    last_success_at: datetime | None = None
    try_again_at: datetime | None = None
    message: str = ""

    @property
    def waiting(self) -> int:
        """How many deliveries are unfinished."""
        return sum(self.counts[state] for state in deliveries.UNFINISHED)

    @property
    def stuck(self) -> int:
        """How many were refused or given up."""
        return sum(self.counts[state] for state in STUCK)


def destination_names(session: Session) -> list[str]:
    """Return the destinations that something was once sent to, or that were tried."""
    return list(session.scalars(select(DestinationRow.name).order_by(DestinationRow.name)))


def places(session: Session, configured: Iterable[str]) -> list[Place]:
    """Return what is known of the configured destinations and of those that the outbox still names."""
    known, counts = {row.name: row for row in session.scalars(select(DestinationRow))}, deliveries_by_destination(session)
    return [_place(name, known.get(name), counts.get(name, Counter())) for name in dict.fromkeys([*configured, *counts])]


def _place(name: str, row: DestinationRow | None, counts: Counter[DeliveryState]) -> Place:
    return Place(name, counts) if row is None else Place(name, counts, row.down_since, row.last_success_at, row.try_again_at, row.message)


def why_not_posted(obj: ObjectRow, replaced: Collection[str]) -> str:
    """Say why a result object is in no delivery; ``replaced``: SOP Instance UIDs of those that another kind stands for."""
    if obj.removed_at is not None:
        return "removed"
    if obj.faults:
        return "kept back by the gate"
    if obj.sop_uid in replaced:
        return "replaced"
    return "shadow: not sent" if obj.withheld else "not sent"


def originals_of(session: Session, study_id: int) -> Mapping[tuple[str, DeliveryState], int]:
    """Count the forwarded originals of a study by destination and state."""
    columns = (DeliveryRow.destination, DeliveryRow.state)
    query = select(*columns, func.count()).where(DeliveryRow.study_id == study_id, DeliveryRow.job_id.is_(None)).group_by(*columns)
    return {(row[0], row[1]): row[2] for row in session.execute(query)}


# --- what went another way -------------------------------------------------------------------------------------------------


def came_back(session: Session) -> tuple[int, int]:
    """Count our own results that were sent to us, and their studies: the loop guard keeps them and analyses none."""
    count, places = session.execute(select(func.count(), func.count(InstanceRow.study_id.distinct())).where(InstanceRow.own)).one()
    return count, places


def kept_aside(session: Session, limit: int) -> Sequence[AsideRow]:
    """Return what is kept aside and still here, newest first."""
    return session.scalars(select(AsideRow).where(AsideRow.removed_at.is_(None)).order_by(AsideRow.id.desc()).limit(limit)).all()


def recent_findings(session: Session, most: int) -> Sequence[tuple[str, datetime | None, dict[str, Any]]]:
    """Return (pipeline, end, finding) of the jobs that ended with one, of the newest ``most`` jobs of the node, newest first; heartbeats left out."""
    newest = session.scalar(select(func.max(JobRow.id))) or 0
    query = select(JobRow.pipeline, JobRow.finished_at, JobRow.finding).join(StudyRow)
    query = query.where(JobRow.id > newest - most, JobRow.state == JobState.DONE, of_patients())
    return [(row[0], row[1], row[2]) for row in session.execute(query.order_by(JobRow.id.desc()))]
