"""Which instances were rejected, by which note: kept also for instances that have not come yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, selectinload

from pacs_node.database import jobs
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow, InstanceRow, JobRow, RejectionRow, SeriesRow

_CHUNK = 500  # values in one query


def note(session: Session, note_uid: str, code: str, uids: Iterable[str], now: datetime) -> None:
    """Write down what a rejection note says; doing it again changes nothing."""
    known = set(session.scalars(select(RejectionRow.sop_uid).where(RejectionRow.note_uid == note_uid)))
    new = {uid[:64] for uid in uids} - known
    session.add_all(RejectionRow(sop_uid=uid, note_uid=note_uid, code=code, said_at=now) for uid in sorted(new))


def codes(session: Session, uids: Collection[str], titles: Collection[str]) -> Mapping[str, str]:
    """Return SOP Instance UID → code, of those that are rejected under one of ``titles``."""
    found: dict[str, str] = {}
    for chunk in _chunks(uids):
        query = select(RejectionRow.sop_uid, RejectionRow.code).where(RejectionRow.sop_uid.in_(chunk), RejectionRow.code.in_(list(titles)))
        found |= {row[0]: row[1] for row in session.execute(query)}
    return found


def lift(session: Session, row: InstanceRow) -> None:
    """Take the rejection of an instance back."""
    session.execute(delete(RejectionRow).where(RejectionRow.sop_uid == row.sop_uid, RejectionRow.code == row.rejected))
    row.rejected = ""


def instances(session: Session, uids: Collection[str]) -> Sequence[InstanceRow]:
    """Return those of the instances that are here, our own results left out, with their series."""
    found: list[InstanceRow] = []
    for chunk in _chunks(uids):
        query = select(InstanceRow).where(InstanceRow.sop_uid.in_(chunk), ~InstanceRow.own)
        found += session.scalars(query.options(selectinload(InstanceRow.series).selectinload(SeriesRow.study)))
    return found


def jobs_on(session: Session, study_id: int, series_uids: Collection[str]) -> list[JobRow]:
    """Return the jobs of a study that use one of the series, locked."""
    return [row for row in jobs.jobs_of(session, study_id, to_change=True) if set(series_uids) & set(row.series_uids)]


def delivered(session: Session, job_ids: Collection[int]) -> int:
    """Return how many results of these jobs have reached a destination."""
    query = select(func.count(DeliveryRow.id)).where(DeliveryRow.job_id.in_(list(job_ids)), DeliveryRow.state == DeliveryState.DELIVERED)
    return session.scalar(query) or 0


def _chunks(values: Collection[str]) -> list[list[str]]:
    ordered = sorted(set(values))
    return [ordered[start : start + _CHUNK] for start in range(0, len(ordered), _CHUNK)]
