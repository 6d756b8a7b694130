"""What becomes of a job whose run ended badly, or whose worker is silent. Used by workers and by the core, so nothing heavy is imported here."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node.database import jobs
from pacs_node.database.alerts import audit, raise_alert
from pacs_node.database.states import JobState
from pacs_node.database.tables import JobRow
from pacs_node.executors.retry import Again, Fault, Park, decide
from pacs_node.journey import House


def recover(house: House, worker: str, moment: datetime) -> int:
    """Give back the jobs that a dead process of this name left running; returns how many."""
    with house.store.write() as session:
        left = jobs.running_of(session, worker)
        for job in left:
            decide_after(house, session, job, Fault.WORKER_DIED, "its process ended", moment)
    return len(left)


def reap(house: House, moment: datetime) -> int:
    """Give back the jobs whose worker has been silent for a whole lease; returns how many. Jobs that a wrong clock put last are lined up again."""
    back = house.store.outage.over_for()
    if back is not None and back < house.settings.executor.lease.total_seconds() / 2:
        return 0  # nobody could give a sign of life: those who work are about to
    with house.store.read() as session:
        if not jobs.expired(session, moment) and not jobs.left_behind(session, moment):
            return 0
    with house.store.write() as session:
        jobs.line_up(session, moment)
        left = jobs.expired(session, moment, to_change=True)
        for job in left:
            house.log.warning("lease expired", job=job.id, worker=job.worker)
            decide_after(house, session, job, Fault.WORKER_DIED, f"worker {job.worker} gave no sign of life", moment)
    return len(left)


def decide_after(house: House, session: Session, job: JobRow, fault: Fault, message: str, moment: datetime) -> None:
    """Queue or park a job after a bad end; the audit says which and why."""
    decision = decide(fault, job.attempts, message, moment, job.rung)
    facts = {"study_uid": job.study.study_uid, "fault": fault.value, "attempt": job.attempts, "worker": job.worker}
    if isinstance(decision, Again):
        jobs.requeue(job, decision.at, f"{fault.value}: {message}")
        job.rung = decision.rung
        audit(session, "node", "requeued", f"job {job.id}", {**facts, "rung": job.rung}, moment)
        return
    assert isinstance(decision, Park)
    jobs.finish(job, JobState.PARKED, moment, decision.why)
    audit(session, "node", "parked", f"job {job.id}", facts, moment)
    if raise_alert(session, "parked", f"job {job.id}", f"job {job.id} was parked: {decision.why}. After mending: `pacs-node retry job {job.id}`", moment):
        house.log.error("alert", kind="parked", job=job.id, message=decision.why)
