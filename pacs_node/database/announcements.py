"""What peers said about studies (MPPS, instance availability), kept until the studies are judged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pacs_node.database.states import ANNOUNCEMENT_MOVES, AnnouncementState, StudyState, move
from pacs_node.database.tables import AnnouncementRow, InstanceRow, ObjectRow, StudyRow
from pacs_node.records import Announcement, Note

_KEEP = timedelta(days=90)  # of a study that never came, or is long done
_CHUNK = 500  # values in one query


def note(session: Session, source: Note, said: Announcement, now: datetime) -> tuple[str, ...]:
    """Write down what a message says; returns the studies that it is about. A step that has ended does not change any more (PS3.4 F.7.2.2.2)."""
    session.execute(delete(AnnouncementRow).where(AnnouncementRow.said_at < now - _KEEP))
    query = select(AnnouncementRow).where(AnnouncementRow.kind == source.service, AnnouncementRow.sop_uid == source.sop_uid)
    rows = {row.study_uid: row for row in session.scalars(query)}
    studies = said.studies or tuple(rows) or ("",)
    for study_uid in studies:
        row = rows.get(study_uid) or rows.pop("", None) or _new(session, source, study_uid, now)
        row.study_uid = study_uid[:64]
        if ANNOUNCEMENT_MOVES[row.state] or row.state is AnnouncementState.AVAILABLE:
            _update(row, said, now)
    return tuple(uid for uid in studies if uid)


def _new(session: Session, source: Note, study_uid: str, now: datetime) -> AnnouncementRow:
    state = AnnouncementState.AVAILABLE if source.service == "availability" else AnnouncementState.IN_PROGRESS
    row = AnnouncementRow(kind=source.service, sop_uid=source.sop_uid, study_uid=study_uid[:64], state=state, instances=[], said_at=now)
    row.calling_ae = source.sender.calling_ae[:16]
    session.add(row)
    return row


def _update(row: AnnouncementRow, said: Announcement, now: datetime) -> None:
    if said.state:
        row.state = move(row.state, AnnouncementState(said.state))
    if said.instances is not None:
        row.instances = sorted(said.instances)
    row.said_at = now


def of_study(session: Session, study_uid: str, kinds: Collection[str]) -> Sequence[AnnouncementRow]:
    """Return what was said about a study by the services ``kinds``, in the order in which it was said first."""
    if not kinds:
        return ()
    query = select(AnnouncementRow).where(AnnouncementRow.study_uid == study_uid, AnnouncementRow.kind.in_(list(kinds)))
    return session.scalars(query.order_by(AnnouncementRow.id)).all()


def companions(session: Session, rows: Iterable[AnnouncementRow]) -> set[str]:
    """Return all studies that the same messages are about."""
    uids = sorted({row.sop_uid for row in rows})
    return set(session.scalars(select(AnnouncementRow.study_uid).where(AnnouncementRow.sop_uid.in_(uids))))


def not_here(session: Session, uids: Iterable[str]) -> set[str]:
    """Return those of the SOP Instance UIDs that are neither in the index, under whatever study, nor results of this node."""
    missing = set(uids)
    for column in (InstanceRow.sop_uid, ObjectRow.sop_uid):
        for start in range(0, len(left := sorted(missing)), _CHUNK):
            missing.difference_update(session.scalars(select(column).where(column.in_(left[start : start + _CHUNK]))))
    return missing


def wake(session: Session, study_uids: Iterable[str], now: datetime) -> None:
    """Have the studies looked at now, as far as they still wait."""
    waiting = (StudyRow.study_uid.in_(list(study_uids)), StudyRow.state == StudyState.RECEIVING)
    for study in session.scalars(select(StudyRow).where(*waiting)):
        study.look_again_at = now
