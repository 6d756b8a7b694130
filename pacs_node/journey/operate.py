"""What operators do: retry, cancel, release. Each action is audited and says in one sentence what it did."""

from __future__ import annotations

import getpass
import os
from collections.abc import Collection
from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node.database import deliveries, holds, jobs, removal, requests, studies
from pacs_node.database.alerts import audit, clear_alert, clear_number, open_alerts
from pacs_node.database.engine import Store
from pacs_node.database.states import JOB_MOVES, DeliveryState, JobState, StudyState, move
from pacs_node.database.tables import DeliveryRow, JobRow
from pacs_node.errors import InputError


def operator() -> str:
    """Return who is at the keyboard, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def retry_job(store: Store, job_id: int, now: datetime, live_rules: Collection[str] = ()) -> str:
    """Run a finished or parked job again, as a new run.

    ``live_rules``: the rules in force that are not under trial. Where all rules of a job are among them, its new run sends its results.
    """
    with store.write() as session:
        job = jobs.lock(session, job_id)
        if job is None:
            raise InputError(f"there is no job {job_id}: `pacs-node jobs` lists them")
        if job.state is JobState.CANCELLED:
            _refuse_without_files(session, job)
        if JobState.QUEUED not in JOB_MOVES[job.state] or job.state is JobState.RUNNING:
            raise InputError(f"job {job_id} is {job.state.value}: only parked, not analysed and done jobs can be run again")
        _refuse_without_files(session, job)
        _rerun(session, job, now, live_rules)
    return f"job {job_id} is queued again, as run {job.run}"


def _refuse_without_files(session: Session, job: JobRow) -> None:
    """Refuse to run a job on less than it was made for: retention has removed files of its series."""
    missing = removal.gone(session, job.study_id, job.series_uids)
    if missing and removal.present_digest(session, job) != job.digest:
        reason = job.study.removed_reason
        problem = f"job {job.id} cannot run again: {missing} files of its series were removed ({reason})"
        raise InputError(f"{problem}. Have study {job.study_id} sent again first: what is the same as before makes no new job, but can be retried")


def _rerun(session: Session, job: JobRow, now: datetime, live_rules: Collection[str]) -> None:
    if set(job.shadow_rules) and set(job.rules) <= set(live_rules):
        _take_seriously(job)
    jobs.rerun(session, job, now)
    clear_alert(session, "parked", f"job {job.id}", now)
    audit(session, operator(), "retry", f"job {job.id}", {"study_uid": job.study.study_uid, "run": job.run, "shadow": job.shadow}, now)


def _take_seriously(job: JobRow) -> None:
    """Let a job send what its rules, which were under trial, now ask for."""
    live = {target["destination"]: target for target in job.targets if not target.get("shadow_rules")}
    tried = {target["destination"]: {**target, "shadow_rules": []} for target in job.targets if target.get("shadow_rules")}
    job.shadow, job.shadow_rules, job.targets = False, [], list({**tried, **live}.values())


def retry_delivery(store: Store, delivery_id: int, now: datetime) -> str:
    """Send a parked or refused object again, or a waiting one at once."""
    with store.write() as session:
        row = deliveries.get(session, delivery_id)
        if row is None:
            raise InputError(f"there is no delivery {delivery_id}: `pacs-node deliveries` lists them")
        if row.state in (DeliveryState.DELIVERED, DeliveryState.REPLACED, DeliveryState.CANCELLED, DeliveryState.SENDING):
            gone = ", and its file has been removed" if row.removed else ""
            raise InputError(f"delivery {delivery_id} is {row.state.value}{gone}: only waiting, uncommitted, parked and refused ones can be sent again")
        _resend(session, row, now)
    return f"delivery {delivery_id} to {row.destination} is due now"


def _resend(session: Session, row: DeliveryRow, now: datetime) -> None:
    row.state = move(row.state, DeliveryState.WAITING)
    row.next_attempt_at, row.first_attempt_at, row.attempts, row.fallback = now, None, 0, ""
    row.ask_at, row.asked_at, row.asks, row.ask_failures = None, None, 0, 0
    holds.look_now(session, row.study_id, row.destination, now)
    deliveries.destination_row(session, row.destination).try_again_at = None
    deliveries.clear_stuck(session, row, now)
    audit(session, operator(), "retry", f"delivery {row.id}", {"study_uid": row.study.study_uid, "destination": row.destination}, now)


def retry_parked(store: Store, now: datetime, live_rules: Collection[str] = ()) -> str:
    """Run all parked jobs and send all parked and refused objects again. ``live_rules``: see `retry_job`."""
    with store.write() as session:
        parked = [job for number in jobs.parked(session) if (job := jobs.lock(session, number)) is not None and job.state is JobState.PARKED]
        for job in parked:
            _rerun(session, job, now, live_rules)
        stuck = deliveries.stuck(session)
        for row in stuck:
            _resend(session, row, now)
        requests.retry_parked(session, now)
    return f"{len(parked)} jobs are queued again and {len(stuck)} deliveries are due now"


def cancel_job(store: Store, job_id: int, now: datetime) -> str:
    """Cancel a job that has not finished, and what it has not sent yet."""
    with store.write() as session:
        job = jobs.lock(session, job_id)
        if job is None:
            raise InputError(f"there is no job {job_id}: `pacs-node jobs` lists them")
        if JobState.CANCELLED not in JOB_MOVES[job.state]:
            raise InputError(f"job {job_id} is {job.state.value} and cannot be cancelled")
        jobs.finish(job, JobState.CANCELLED, now, f"cancelled by {operator()}")
        deliveries.cancel_of_job(session, job_id, "the job was cancelled")
        clear_alert(session, "parked", f"job {job_id}", now)
        audit(session, operator(), "cancel", f"job {job_id}", {"study_uid": job.study.study_uid}, now)
    return f"job {job_id} is cancelled"


def release(store: Store, study_id: int, now: datetime) -> str:
    """Free a held study: the operator says that the identities among its instances are one patient."""
    with store.write() as session:
        study = studies.get_study(session, study_id, to_change=True)
        if study is None:
            raise InputError(f"there is no study {study_id}: `pacs-node status` lists them")
        places = holds.release(session, study_id, now)
        for name in places:
            clear_alert(session, "verify", f"study {study_id} at {name}"[:96], now)
            audit(session, operator(), "release", f"study {study_id}", {"study_uid": study.study_uid, "destination": name}, now)
        if study.state is not StudyState.HELD:
            if not places:
                raise InputError(f"study {study_id} is not held, it is {study.state.value}")
            return f"study {study_id} goes to {', '.join(places)} now: you said that the patients named here and there are one"
        if study.removed_at is not None:
            raise InputError(f"study {study_id} cannot be freed: its files were removed ({study.removed_reason}). Have it sent again")
        study.released_identities = ["\x1f".join(key) for key in studies.identities(study)]
        study.state = move(study.state, StudyState.RECEIVING)
        study.held_reason, study.waiting_for, study.look_again_at = "", "", now
        clear_alert(session, "held", f"study {study_id}", now)
        audit(session, operator(), "release", f"study {study_id}", {"study_uid": study.study_uid, "identities": len(study.released_identities)}, now)
    return f"study {study_id} is released and will be looked at again"


def clear(store: Store, alert_id: int | None, now: datetime) -> str:
    """Take an alert back, or all of them (None); raises `InputError` for a number that is not open."""
    with store.write() as session:
        numbers = [alert.id for alert in open_alerts(session)] if alert_id is None else [alert_id]
        for number in numbers:
            if not clear_number(session, number, now):
                raise InputError(f"there is no open alert {number}: `pacs-node status` shows them")
        audit(session, operator(), "clear", f"alert {alert_id or 'all'}", {"alerts": len(numbers)}, now)
    return f"{len(numbers)} alerts are taken back"
