"""What the page of a job shows: when each step was taken, what was found and why, why its rules fired, and where each result went."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from pacs_node.database import deliveries, jobs, overview
from pacs_node.database.states import JobState
from pacs_node.database.tables import DeliveryRow, JobRow, ObjectRow
from pacs_node.errors import InputError
from pacs_node.monitoring import charts, preview, why
from pacs_node.monitoring.page_study import alerts_on
from pacs_node.monitoring.privacy import decisions_shown
from pacs_node.monitoring.sources import Sources
from pacs_node.records import Verdict

_MOST = 2000  # deliveries


def facts(sources: Sources, session: Session, job_id: int) -> dict[str, Any]:
    """Return what the template shows; raises `InputError` where there is no such job."""
    job = jobs.get_job(session, job_id)
    if job is None:
        raise InputError(f"there is no job {job_id} here")
    sent = sorted(deliveries.list_deliveries(session, _MOST, job.id), key=lambda row: row.id)
    decisions = [decision for decision in job.study.decisions if decision.get("rule") in job.rules]
    times = steps(job, sent)
    return {
        "job": job,
        "verdict": verdict_of(job),
        "seconds": seconds_of(job),
        "steps": times,
        "stretches": charts.stretches([(step.took, step.after.total_seconds()) for step in times if step.after is not None and step.took]),
        "parts": why.part_rows(job.finding) if job.finding else [],
        "places": why.place_rows(job.finding) if job.finding else [],
        "head": why.head_line(job.finding) if job.finding else "",
        "pictures": pictures(sources, job),
        "objects": objects(job, sent),
        "decisions": decisions_shown(decisions, patients=sources.settings.monitoring.patients),
        "siblings": [other for other in jobs.jobs_of(session, job.study_id) if other.id != job.id],
        "alerts": [row for row in alerts_on(session, job.study_id, [job.id]) if row.subject != f"study {job.study_id}"],
    }


def verdict_of(job: JobRow) -> str:
    """Return the verdict in the words of `records.Verdict`, ``""`` as long as there is none."""
    if job.state is JobState.NOT_ANALYSED:
        return Verdict.NOT_ANALYSED.value
    return str(job.finding.get("verdict", "")) if job.state is JobState.DONE else ""


def seconds_of(job: JobRow) -> float | None:
    """Return how long the last attempt took."""
    known = job.started_at is not None and job.finished_at is not None and job.finished_at >= job.started_at
    return (job.finished_at - job.started_at).total_seconds() if known and job.finished_at and job.started_at else None


# --- when ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a journey; ``after``: since the one before, ``took``: what that time was spent on."""

    name: str
    at: datetime
    detail: str = ""
    took: str = ""
    after: timedelta | None = None


def steps(job: JobRow, sent: Sequence[DeliveryRow]) -> list[Step]:
    """Return the steps of a job that have been taken, in the order of time."""
    study = job.study
    found = [
        Step("First instance received", study.first_arrival),
        Step("Last instance received", study.last_arrival, took="receiving"),
        Step("Run again" if job.run > 1 and not job.predecessor_id else "Complete, job queued", job.created_at, job.complete_reason, "waiting for more"),
    ]
    found = [step for step in found if step.at <= job.created_at]  # what came later belongs to another job
    if job.started_at is not None and job.started_at >= job.created_at:
        found.append(Step("Analysis started", job.started_at, f"{job.worker}, attempt {job.attempts}" if job.worker else "", "queue"))
        if job.finished_at is not None and job.finished_at >= job.started_at:
            found.append(Step(_END[job.state], job.finished_at, job.reason, "analysis and results"))
    elif job.finished_at is not None:
        found.append(Step(_END[job.state], job.finished_at, job.reason, "queue"))
    arrived = [step for name in dict.fromkeys(row.destination for row in sent) for step in _arrival(name, [row for row in sent if row.destination == name])]
    found += sorted(arrived, key=lambda step: step.at)
    return [found[0], *(_timed(step, before) for before, step in itertools.pairwise(found))] if found else []


_END = {
    JobState.QUEUED: "Given back to the queue",
    JobState.RUNNING: "Running",
    JobState.DONE: "Analysed, results built",
    JobState.NOT_ANALYSED: "Not analysed",
    JobState.PARKED: "Parked",
    JobState.CANCELLED: "Cancelled",
}


def _arrival(name: str, rows: Sequence[DeliveryRow]) -> list[Step]:
    done = [row for row in rows if row.delivered_at is not None]
    last = max((row.delivered_at for row in done if row.delivered_at is not None), default=None)
    counted = f"{len(done)} of {len(rows)} objects"
    return [Step(f"Delivered to {name}", last, counted, f"delivery to {name}")] if last is not None else []


def _timed(step: Step, before: Step) -> Step:
    return Step(step.name, step.at, step.detail, step.took, max(step.at - before.at, timedelta()))


# --- what was made, and where it went ------------------------------------------------------------------------------------------


def pictures(sources: Sources, job: JobRow) -> preview.Pictures | None:
    """Return the newest secondary capture of this job that can be looked at."""
    built = [obj for obj in reversed(job.objects) if obj.kind in preview.PICTURES and obj.run == job.run and obj.removed_at is None]
    return next((shown for obj in built if (shown := preview.pictures_of(sources.data, obj)) is not None), None)


def objects(job: JobRow, sent: Sequence[DeliveryRow]) -> list[dict[str, Any]]:
    """Return each result with its deliveries; of one that is in none, why."""
    replaced = {obj.stands_for for obj in job.objects}
    rows = []
    for obj in sorted(job.objects, key=lambda one: (-one.run, one.variant, one.position, one.id)):
        mine = [row for row in sent if row.object_id == obj.id]
        rows.append({"row": obj, "deliveries": mine, "why": "" if mine else overview.why_not_posted(obj, replaced), "note": _note(obj)})
    return rows


def _note(obj: ObjectRow) -> str:
    if obj.faults:
        return "; ".join(obj.faults)
    return f"a rule under trial would send it to {', '.join(obj.withheld)}" if obj.withheld else ""
