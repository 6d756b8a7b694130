"""Jobs: made by assembly, claimed by workers in one statement, kept alive by a lease."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, exists, func, or_, select, update
from sqlalchemy.orm import Session, selectinload

from pacs_node.database import studies
from pacs_node.database.alerts import audit
from pacs_node.database.states import JobState, StudyState, move, sources
from pacs_node.database.tables import HEAD_START, DeliveryRow, InstanceRow, JobRow, ObjectRow, StudyRow, turn_of

PRIORITIES = {"urgent": 0, "normal": 1, "night": 2}
LONGEST_PAUSE = timedelta(hours=1)  # no job is put off further, unless the clock was set back since


_BY_NUMBER = JobRow.id + 0  # sorted after the index has found them: SQLite would read the whole table to have it in this order


def digest(instances: Iterable[InstanceRow]) -> str:
    """Return a fingerprint of what a job analyses: it changes with every instance added, corrected or re-identified."""
    facts = sorted((row.sop_uid, row.version, *row.identity) for row in instances)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def jobs_of(session: Session, study_id: int, *, to_change: bool = False) -> Sequence[JobRow]:
    """Return all jobs of a study, oldest first; ``to_change``: locked, as they are once nobody else works on them."""
    query = select(JobRow).where(JobRow.study_id == study_id).order_by(JobRow.id)
    return session.scalars(_locked(query) if to_change else query).all()


def _locked(query: Select[tuple[JobRow]], *, skip_locked: bool = False) -> Select[tuple[JobRow]]:
    return query.with_for_update(of=JobRow, key_share=True, skip_locked=skip_locked).execution_options(populate_existing=True)


def lock(session: Session, job_id: int) -> JobRow | None:
    """Return a job as it is once nobody else works on it or its study, and keep others away until the end of the transaction."""
    study_id = session.scalar(select(JobRow.study_id).where(JobRow.id == job_id))
    if study_id is not None:
        studies.lock(session, [study_id])
    return get_job(session, job_id, to_change=True)


def get_job(session: Session, job_id: int, *, to_change: bool = False) -> JobRow | None:
    """Return a job with its study and objects; ``to_change``: locked."""
    query = select(JobRow).where(JobRow.id == job_id).options(selectinload(JobRow.study), selectinload(JobRow.objects))
    return session.scalars(_locked(query) if to_change else query).one_or_none()


def something_waits(session: Session, now: datetime) -> bool:
    """Tell whether a job might be claimed: asked before a transaction that writes."""
    ripe = or_(JobRow.not_before <= now, JobRow.not_before > now + LONGEST_PAUSE)
    return session.scalars(select(JobRow.id).where(JobRow.state == JobState.QUEUED, ripe).limit(1)).first() is not None


def claim(session: Session, worker: str, now: datetime, lease: timedelta) -> JobRow | None:
    """Take the waiting job whose turn is the earliest, in one statement; None where nothing waits.

    Urgent ones come before others that have not waited longer than `HEAD_START` allows. Jobs of held studies wait. ``lease`` is how
    long the worker may stay silent before the job returns to the queue.
    """
    held = exists().where(StudyRow.id == JobRow.study_id, StudyRow.state == StudyState.HELD)
    waiting = (
        select(JobRow.id)
        .where(JobRow.state == JobState.QUEUED, or_(JobRow.not_before <= now, JobRow.not_before > now + LONGEST_PAUSE), ~held)
        .order_by(JobRow.turn, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)  # without effect on SQLite, where the transaction holds the only write lock
        .scalar_subquery()
    )
    changes = {
        "state": JobState.RUNNING,
        "worker": worker,
        "lease_until": now + lease,
        "attempts": JobRow.attempts + 1,
        "started_at": now,
        "progress": 0.0,
        "reason": "",
    }
    taken = session.scalars(update(JobRow).where(JobRow.id == waiting, JobRow.state == JobState.QUEUED).values(changes).returning(JobRow.id)).one_or_none()
    return None if taken is None else get_job(session, taken)


def beat(session: Session, job_id: int, worker: str, until: datetime, progress: float, attempt: int | None = None) -> bool:
    """Renew a lease; False where the job is no longer this worker's (cancelled, or taken back), or its attempt is another (where given)."""
    mine = [JobRow.id == job_id, JobRow.worker == worker, JobRow.state == JobState.RUNNING]
    if attempt is not None:
        mine.append(JobRow.attempts == attempt)
    done = session.execute(update(JobRow).where(*mine).values(lease_until=until, progress=progress).returning(JobRow.id))
    return done.first() is not None


def still_mine(session: Session, job_id: int, worker: str, attempt: int | None = None) -> JobRow | None:
    """Return the job, locked, if this worker still holds it, at this attempt (where given): asked in the transaction that commits its results."""
    job = get_job(session, job_id, to_change=True)
    mine = job is not None and job.state is JobState.RUNNING and job.worker == worker and attempt in (None, job.attempts)
    return job if mine else None


def was_ended_by(session: Session, job_id: int, worker: str, run: int, attempts: int) -> bool:
    """Tell whether this very attempt of a worker has ended the run."""
    ended = (JobRow.worker == worker, JobRow.run == run, JobRow.attempts == attempts, JobRow.state.in_((JobState.DONE, JobState.NOT_ANALYSED)))
    return session.scalars(select(JobRow.id).where(JobRow.id == job_id, *ended)).first() is not None


def expired(session: Session, now: datetime, *, to_change: bool = False) -> Sequence[JobRow]:
    """Return the running jobs whose worker has been silent for longer than its lease; ``to_change``: locked, those left out that another works on."""
    query = select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.lease_until < now).order_by(_BY_NUMBER)
    return session.scalars(_locked(query, skip_locked=True) if to_change else query).all()


def running_of(session: Session, worker: str) -> Sequence[JobRow]:
    """Return the jobs that stand as running under a worker's name, locked."""
    return session.scalars(_locked(select(JobRow).where(JobRow.state == JobState.RUNNING, JobRow.worker == worker).order_by(_BY_NUMBER))).all()


def left_behind(session: Session, now: datetime, *, to_change: bool = False) -> Sequence[JobRow]:
    """Return the waiting jobs whose turn lies further ahead than any legal one: made by a clock that was set back since. ``to_change``: locked."""
    query = select(JobRow).where(JobRow.state == JobState.QUEUED, JobRow.turn > now + HEAD_START[-1] + LONGEST_PAUSE).order_by(_BY_NUMBER)
    return session.scalars(_locked(query, skip_locked=True) if to_change else query).all()


def line_up(session: Session, now: datetime) -> int:
    """Give the jobs of `left_behind` a turn by the present clock; returns how many."""
    late = left_behind(session, now, to_change=True)
    for job in late:
        job.turn = turn_of(job.priority, now)
    return len(late)


def finish(job: JobRow, state: JobState, now: datetime, reason: str = "") -> None:
    """End a run."""
    job.state = move(job.state, state)
    job.finished_at, job.lease_until, job.reason, job.progress = now, None, reason, 1.0


def requeue(job: JobRow, not_before: datetime, reason: str = "") -> None:
    """Give a job back to the queue for another attempt at the same run."""
    job.state = move(job.state, JobState.QUEUED)
    job.not_before, job.lease_until, job.worker, job.reason = not_before, None, "", reason


def rerun(session: Session, job: JobRow, at: datetime) -> None:
    """Queue a finished job as a new run: with its own attempts, dates and, so, UIDs."""
    requeue(job, at)
    job.attempts, job.rung, job.finished_at, job.created_at, job.told, job.removed_at = 0, 0, None, at, False, None
    job.turn = turn_of(job.priority, at)
    job.run = highest_run(session, job.study_id, job.pipeline) + 1


def cancel_unfinished(session: Session, study_id: int, now: datetime, reason: str) -> list[int]:
    """Cancel what is queued, running or parked for a study, and write it down; returns the numbers of the jobs."""
    states = sources(JobState.CANCELLED)
    query = update(JobRow).where(JobRow.study_id == study_id, JobRow.state.in_(states)).returning(JobRow.id)
    numbers = list(session.scalars(query.values(state=JobState.CANCELLED, reason=reason, finished_at=now, lease_until=None)))
    study_uid = session.scalar(select(StudyRow.study_uid).where(StudyRow.id == study_id)) if numbers else ""
    for number in numbers:
        audit(session, "core", "cancelled", f"job {number}", {"study_uid": study_uid, "why": reason}, now)
    return numbers


def highest_run(session: Session, study_id: int, pipeline: str) -> int:
    """Return the number of the last run of a pipeline on a study, 0 where it never ran."""
    return session.scalar(select(func.max(JobRow.run)).where(JobRow.study_id == study_id, JobRow.pipeline == pipeline)) or 0


def last_report(session: Session, job: JobRow) -> ObjectRow | None:
    """Return the newest report of earlier runs of the same pipeline on these series: what this run replaces. One that was never on its way is not."""
    earlier = or_(JobRow.id != job.id, ObjectRow.run < job.run)
    on_its_way = exists().where(DeliveryRow.object_id == ObjectRow.id)
    same = (JobRow.study_id == job.study_id, JobRow.pipeline == job.pipeline)
    query = select(ObjectRow).join(JobRow).where(*same, ObjectRow.kind == "sr", earlier, on_its_way)
    reports = session.scalars(query.order_by(ObjectRow.id.desc()).options(selectinload(ObjectRow.job)))
    return next((report for report in reports if set(report.job.series_uids) & set(job.series_uids) and not report.faults), None)


def list_jobs(session: Session, limit: int = 50) -> Sequence[JobRow]:
    """Return the newest jobs with their studies, newest first."""
    return session.scalars(select(JobRow).options(selectinload(JobRow.study)).order_by(JobRow.id.desc()).limit(limit)).all()


def untold(session: Session) -> JobRow | None:
    """Return a parked job whose destinations have not been told of its failure."""
    query = select(JobRow).where(JobRow.state == JobState.PARKED, ~JobRow.told).order_by(_BY_NUMBER).limit(1)
    return session.scalars(query).one_or_none()


def parked(session: Session) -> Sequence[int]:
    """Return the numbers of all parked jobs, in the order in which to lock them."""
    return session.scalars(select(JobRow.id).where(JobRow.state == JobState.PARKED).order_by(JobRow.study_id, JobRow.id)).all()
