"""Tombstones: which files may be looked at for removal, what still needs them, and the rows that say that they are gone.

The order is crash-safe: one transaction writes the tombstone and lists the files in `RemovalRow`, then they are taken off the disk, then
off the list. A process killed in between leaves a list that the next sweep works off. No path is ever used again for another file.

Who retires locks the study (`studies.lock`, `jobs.lock`) and looks again under the lock; so do those who bring work to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import Select, delete, func, or_, select
from sqlalchemy.orm import Session

from pacs_node.database import deliveries, embeddings, jobs
from pacs_node.database.alerts import clear_alert
from pacs_node.database.requests import named
from pacs_node.database.states import ENDED, GOING_ON, STUCK, DeliveryState, JobState, StudyState, move
from pacs_node.database.studies import instance_path
from pacs_node.database.tables import AlertRow, AsideRow, DeliveryRow, InstanceRow, JobRow, ObjectRow, RemovalRow, SeriesRow, StudyRow

Place = tuple[datetime, int]  # where a look at ripe rows ended: time and number

_USABLE = (~InstanceRow.own, InstanceRow.rejected == "")  # as `InstanceRow.usable`
_FINISHED = (JobState.DONE, JobState.NOT_ANALYSED, JobState.PARKED, JobState.CANCELLED)


# --- what needs the originals ----------------------------------------------------------------------------------------------


def _of_jobs(session: Session, study_id: int) -> bool:
    untold = (JobRow.state == JobState.PARKED) & ~JobRow.told  # the notice of its failure is made from the headers
    return session.scalars(select(JobRow.id).where(JobRow.study_id == study_id, or_(JobRow.state.in_(GOING_ON), untold)).limit(1)).first() is not None


def _of_forwarding(session: Session, study_id: int) -> bool:
    mine = (DeliveryRow.study_id == study_id, DeliveryRow.instance_id.is_not(None))
    return session.scalars(select(DeliveryRow.id).where(*mine, DeliveryRow.state.not_in((*ENDED, *STUCK))).limit(1)).first() is not None


NEEDS: dict[str, Callable[[Session, int], bool]] = {"a job that goes on": _of_jobs, "forwarding": _of_forwarding, "a storage commitment request": named}
"""What keeps a study's originals, in words, and the question whether it does now. Whoever sends or vouches for originals adds a row."""


def needed_by(session: Session, study_id: int) -> tuple[str, ...]:
    """Return in words what still needs the originals of a study; empty where nothing does. Results that wait do not."""
    return tuple(what for what, holds in NEEDS.items() if holds(session, study_id))


# --- studies ---------------------------------------------------------------------------------------------------------------


def ripe_studies(session: Session, before: datetime, after: Place | None, limit: int) -> Sequence[StudyRow]:
    """Return studies with files and no arrival since ``before``, oldest first, from where the last look ended."""
    where = [StudyRow.removed_at.is_(None), StudyRow.last_arrival <= before, StudyRow.state != StudyState.RECEIVING]
    if after is not None:
        where.append(or_(StudyRow.last_arrival > after[0], (StudyRow.last_arrival == after[0]) & (StudyRow.id > after[1])))
    return session.scalars(select(StudyRow).where(*where).order_by(StudyRow.last_arrival, StudyRow.id).limit(limit)).all()


def job_states(session: Session, study_id: int) -> tuple[list[JobState], datetime | None]:
    """Return the states of a study's jobs and when the last of them ended."""
    rows = session.execute(select(JobRow.state, JobRow.finished_at).where(JobRow.study_id == study_id)).all()
    return [row[0] for row in rows], max((row[1] for row in rows if row[1] is not None), default=None)


def unforwarded(session: Session, study_id: int) -> bool:
    """Tell whether originals of a study were to be forwarded and have been refused or given up."""
    mine = (DeliveryRow.study_id == study_id, DeliveryRow.instance_id.is_not(None), DeliveryRow.state.in_(STUCK))
    return session.scalars(select(DeliveryRow.id).where(*mine).limit(1)).first() is not None


def files_of(session: Session, study_id: int) -> Sequence[InstanceRow]:
    """Return the instances of a study whose files are here."""
    query = select(InstanceRow).where(InstanceRow.study_id == study_id, InstanceRow.removed_at.is_(None)).order_by(InstanceRow.id)
    return session.scalars(query).all()


def gone(session: Session, study_id: int, series_uids: Iterable[str] | None = None) -> int:
    """Return how many instances of a study (of some of its series) that work looked at have lost their files to retention."""
    query = select(func.count(InstanceRow.id)).where(InstanceRow.study_id == study_id, InstanceRow.removed_at.is_not(None), *_USABLE)
    if series_uids is not None:
        query = query.join(SeriesRow).where(SeriesRow.series_uid.in_(list(series_uids)))
    return session.scalar(query) or 0


def present_digest(session: Session, job: JobRow) -> str:
    """Return the fingerprint of what a job would analyse now (see `jobs.digest`)."""
    query = select(InstanceRow).join(SeriesRow).where(SeriesRow.series_uid.in_(job.series_uids), SeriesRow.study_id == job.study_id)
    return jobs.digest(session.scalars(query.where(InstanceRow.removed_at.is_(None), *_USABLE)))


def retire_study(session: Session, study: StudyRow, fingerprints: Mapping[str, str], at: datetime, reason: str) -> bool:
    """Give up a study's files; False where they are others than those ``fingerprints`` (path → digest) were made of.

    What nobody can take up any more is cancelled with the reason: parked jobs, originals that got stuck, and of a held study what has not been sent.
    """
    rows = files_of(session, study.id)
    if {instance_path(row) for row in rows} != fingerprints.keys():
        return False
    for row in rows:
        row.removed_at, row.fingerprint = at, fingerprints[instance_path(row)]
    study.removed_at, study.removed_reason = at, reason
    _list(session, fingerprints)
    embeddings.forget(session, study.id)
    _end_work(session, study, at, reason)
    return True


def _end_work(session: Session, study: StudyRow, at: datetime, reason: str) -> None:
    for job in session.scalars(select(JobRow).where(JobRow.study_id == study.id, JobRow.state == JobState.PARKED)):
        job.state = move(job.state, JobState.CANCELLED)
        job.reason = f"{job.reason}; then its files were removed: {reason}"
        clear_alert(session, "parked", f"job {job.id}", at)
    mine = (DeliveryRow.study_id == study.id, DeliveryRow.instance_id.is_not(None))
    _cancel_stuck(session, select(DeliveryRow).where(*mine, DeliveryRow.state.in_(STUCK)), at, reason)
    if study.state is StudyState.HELD:
        deliveries.cancel_unfinished(session, study.id, f"its files were removed: {reason}")
        clear_alert(session, "held", f"study {study.id}", at)


# --- results ---------------------------------------------------------------------------------------------------------------


def ripe_jobs(session: Session, before: datetime, after: Place | None, limit: int) -> Sequence[JobRow]:
    """Return finished jobs with result files that ended before ``before``, oldest first, from where the last look ended."""
    where = [JobRow.removed_at.is_(None), JobRow.finished_at <= before, JobRow.state.in_(_FINISHED)]
    if after is not None:
        where.append(or_(JobRow.finished_at > after[0], (JobRow.finished_at == after[0]) & (JobRow.id > after[1])))
    return session.scalars(select(JobRow).where(*where).order_by(JobRow.finished_at, JobRow.id).limit(limit)).all()


def outbox_of(session: Session, job_id: int) -> tuple[int, int, datetime | None]:
    """Return of a job how many deliveries go on, how many are stuck, and when the last one arrived."""
    facts = (DeliveryRow.state, DeliveryRow.fallback, func.count(), func.max(DeliveryRow.delivered_at))
    rows = session.execute(select(*facts).where(DeliveryRow.job_id == job_id).group_by(DeliveryRow.state, DeliveryRow.fallback)).all()
    stuck = sum(row[2] for row in rows if row[0] in STUCK and not row[1])  # another kind is still to be made of the others
    going_on = sum(row[2] for row in rows if row[0] not in ENDED) - stuck
    return going_on, stuck, max((row[3] for row in rows if row[3] is not None), default=None)


def retire_results(session: Session, job: JobRow, at: datetime, reason: str) -> list[str]:
    """Give up a job's result files; what was stuck on its way is cancelled. Returns the paths."""
    objects = session.scalars(select(ObjectRow).where(ObjectRow.job_id == job.id, ObjectRow.removed_at.is_(None)).order_by(ObjectRow.id)).all()
    for obj in objects:
        obj.removed_at = at
    job.removed_at = at
    _cancel_stuck(session, select(DeliveryRow).where(DeliveryRow.job_id == job.id, DeliveryRow.state.in_(STUCK)), at, reason)
    paths = [obj.path for obj in objects]
    _list(session, paths)
    return paths


def _cancel_stuck(session: Session, query: Select[tuple[DeliveryRow]], at: datetime, reason: str) -> None:
    for row in session.scalars(query.order_by(DeliveryRow.id).with_for_update(of=DeliveryRow, key_share=True)):
        row.state = move(row.state, DeliveryState.CANCELLED)
        row.message = f"{row.message}; then its file was removed: {reason}"
        deliveries.clear_stuck(session, row, at)


# --- what was kept aside -----------------------------------------------------------------------------------------------------


def ripe_aside(session: Session, kinds: Sequence[str], before: datetime, limit: int) -> Sequence[AsideRow]:
    """Return what is kept aside of some kinds and was received before ``before``, oldest first."""
    where = (AsideRow.removed_at.is_(None), AsideRow.received_at <= before, AsideRow.kind.in_(list(kinds)))
    return session.scalars(select(AsideRow).where(*where).order_by(AsideRow.received_at, AsideRow.id).limit(limit)).all()


def retire_aside(session: Session, row: AsideRow, at: datetime) -> list[str]:
    """Give up a file that was kept aside, with the note beside it where there is one; its alert is over. Returns the paths."""
    row.removed_at = at
    paths = [row.path]
    if row.kind == "quarantine":
        paths.append(str(PurePosixPath(row.path).with_suffix(".json")))
    clear_alert(session, row.kind, f"file {PurePosixPath(row.path).stem}"[:96], at)
    _list(session, paths)
    return paths


# --- the list of what is to go -------------------------------------------------------------------------------------------------


def _list(session: Session, paths: Iterable[str]) -> None:
    session.add_all([RemovalRow(path=path) for path in paths])
    session.flush()


def listed(session: Session, limit: int | None = None) -> list[str]:
    """Return the paths of files that were given up and may still be on the disk."""
    return list(session.scalars(select(RemovalRow.path).order_by(RemovalRow.id).limit(limit)))


def strike(session: Session, paths: Sequence[str]) -> None:
    """Take paths off the list: the files are gone."""
    session.execute(delete(RemovalRow).where(RemovalRow.path.in_(paths)))


def warned_at(session: Session, subject: str) -> datetime | None:
    """Return since when an alert says that something will be removed."""
    query = select(AlertRow.raised_at).where(AlertRow.cleared_at.is_(None), AlertRow.kind == "retention", AlertRow.subject == subject)
    return session.scalars(query).first()
