"""What archives count of studies that wait for their word: asked again until the study is complete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from pacs_node.database.states import StudyState
from pacs_node.database.tables import CountRow, InstanceRow, StudyRow
from pacs_node.records import ArchiveAnswer, SeriesCount

LONGEST_PAUSE = timedelta(minutes=1)  # between two questions about one study
SHORTEST_PAUSE = timedelta(seconds=5)


def answers(session: Session, study_id: int, received: int) -> Mapping[str, ArchiveAnswer]:
    """Return what archives answered about a study of which ``received`` instances are here, by destination."""
    rows = session.scalars(select(CountRow).where(CountRow.study_id == study_id))
    return {
        row.destination: ArchiveAnswer(_series(row.answer), _series(row.before), row.problem, row.asked_at is not None and row.received == received)
        for row in rows
    }


def _series(stored: Sequence[Sequence[object]] | None) -> tuple[SeriesCount, ...] | None:
    if stored is None:
        return None
    return tuple(SeriesCount(str(uid), str(modality), count if isinstance(count, int) else None) for uid, modality, count in stored)


def want(session: Session, study_id: int, destination: str, received: int, fetch: Sequence[str], now: datetime) -> None:
    """Have an archive asked about a study: at once where it was not asked since the last instance came."""
    row = session.get(CountRow, (study_id, destination))
    if row is None:
        row = CountRow(study_id=study_id, destination=destination, next_at=now, asked=0, received=received, fetched=0)
        session.add(row)
    if row.received != received:
        row.asked, row.next_at = 0, now
    row.fetch = list(fetch)


def due(session: Session, destination: str, now: datetime, limit: int = 20) -> Sequence[CountRow]:
    """Return about which studies an archive is to be asked now; a question put off too far was set by a clock that was set back since."""
    ripe = or_(CountRow.next_at <= now, CountRow.next_at > now + 2 * LONGEST_PAUSE)
    query = select(CountRow).join(StudyRow).where(CountRow.destination == destination, StudyRow.state == StudyState.RECEIVING, ripe)
    return session.scalars(query.order_by(CountRow.next_at).limit(limit)).all()


def received_of(session: Session, study_id: int) -> int:
    """Return how many instances of a study are here, our own results and rejected ones left out."""
    return session.scalar(select(func.count()).where(InstanceRow.study_id == study_id, ~InstanceRow.own, InstanceRow.rejected == "")) or 0


def note(row: CountRow, series: Sequence[SeriesCount] | None, problem: str, received: int, now: datetime) -> None:
    """Write an answer down, or why there is none; the next question comes the later the more were asked."""
    row.asked, row.asked_at, row.received, row.problem = row.asked + 1, now, received, problem
    if series is not None:
        row.before, row.answer = row.answer, [[one.series_uid, one.modality, one.instances] for one in series]
    row.next_at = now + min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(row.asked - 1, 10))
