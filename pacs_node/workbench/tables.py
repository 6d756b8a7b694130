"""What `status`, `jobs`, `job` and `deliveries` show, as plain data: the same for tables and for ``--json``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy.orm import Session

from pacs_node.analysis.installed import available
from pacs_node.config import Settings
from pacs_node.database import alerts, deliveries, jobs, originals, overview, removal
from pacs_node.database.engine import Store, database_url, revision_of
from pacs_node.database.states import STUCK, DeliveryState
from pacs_node.database.tables import AlertRow, AsideRow, DeliveryRow, JobRow, ObjectRow
from pacs_node.errors import InputError
from pacs_node.journey import models_folder
from pacs_node.monitoring.drift import Watched, watched
from pacs_node.reception.pressure import WORDS, measure, pressure_of


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open the database of a node that has run before; raises `InputError` where there is none, `DatabaseUnavailable` where it is away."""
    url = database_url(settings.database.url, settings.node.data)
    if settings.database.url is None and not (settings.node.data / "node.db").is_file():
        remedy = "start it with `pacs-node run`, or name its configuration with --config"
        raise InputError(f"no node has run in the data folder {settings.node.data} yet: {remedy}")
    with closing(Store(url, speaks=False)) as store:
        with store.read() as session:
            empty = revision_of(session.connection()) is None
        if empty:
            raise InputError(f"the database {store.shown} holds no node's tables yet: start the node once with `pacs-node run`")
        yield store


def upgrade_database(settings: Settings) -> str:
    """Bring the database to the newest schema; returns a sentence on what was done. Raises `ConfigError`, `DatabaseUnavailable`, `InputError`."""
    try:
        settings.node.data.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the data folder {settings.node.data} cannot be made ({error.strerror}): name one that can be written in node.data") from error
    with closing(Store(database_url(settings.database.url, settings.node.data), speaks=False)) as store:
        before, after = store.upgrade()
    if before == after:
        return f"the database {store.shown} has the newest schema, revision {after}"
    return f"the database {store.shown} was upgraded " + (f"from revision {before} to {after}" if before else f"to revision {after}: its tables were made")


def status_tables(settings: Settings, limit: int = 30) -> dict[str, list[dict[str, Any]]]:
    """Return alerts, studies, destinations and what is kept aside; newest first."""
    with open_store(settings) as store, store.read() as session:
        return {
            "alerts": [_alert(row) for row in alerts.open_alerts(session)],
            "studies": study_rows(session, limit),
            "destinations": [_destination(place) for place in overview.places(session, settings.destinations)],
            "disk": _disk(settings),
            "came_back": _came_back(session),
            "drift": [_drift(one) for one in watched(session, available(models_folder(settings)))],
            "aside": [_aside(row) for row in overview.kept_aside(session, limit)],
        }


def _disk(settings: Settings) -> list[dict[str, Any]]:
    disk = measure(settings.node.data)
    pressure = pressure_of(settings, disk)
    return [{"pressure": pressure.name.lower(), "meaning": WORDS[pressure], "free_gb": round(disk.free / 1e9, 1), "capacity_gb": round(disk.capacity / 1e9, 1)}]


def _drift(one: Watched) -> dict[str, Any]:
    row: dict[str, Any] = {"bundle": one.bundle, "scanner": one.scanner, "patients": one.studies, "since": _time(one.since), "state": one.state}
    seen = one.drift
    figures = {"above": seen.above, "expected": seen.expected, "higher": seen.higher, "lower": seen.lower, "p": seen.p} if seen is not None else {}
    return row | {name: round(figures[name], 4) if name in figures else None for name in ("above", "expected", "higher", "lower", "p")}


def _came_back(session: Session) -> list[dict[str, Any]]:
    """Count our own results that were sent to us: the loop guard keeps them and analyses none."""
    count, places = overview.came_back(session)
    return [{"instances": count, "studies": places}] if count else []


def _alert(row: AlertRow) -> dict[str, Any]:
    return {"id": row.id, "since": _time(row.raised_at), "kind": row.kind, "subject": row.subject, "message": row.message}


def _aside(row: AsideRow) -> dict[str, Any]:
    facts = {"kind": row.kind, "path": row.path, "reason": row.reason, "study_uid": row.study_uid, "sop_uid": row.sop_uid}
    return facts | {"sender": row.calling_ae, "received": _time(row.received_at)}


def study_rows(session: Session, limit: int) -> list[dict[str, Any]]:
    """Return the newest studies: where each stands and what it waits for."""
    studies = overview.newest_studies(session, limit)
    counts = overview.instance_counts(session, [study.id for study in studies])
    return [
        {
            "id": study.id,
            "study_uid": study.study_uid,
            "state": study.state.value,
            "modality": "/".join(dict.fromkeys(series.modality for series in study.series)),
            "instances": counts.get(study.id, 0),
            "accession": study.accession,
            "last_arrival": _time(study.last_arrival),
            "waiting_for": study.waits_for,
            "outcome": study.outcome,
            "removed": _time(study.removed_at),
            "removed_reason": study.removed_reason,
        }
        for study in studies
    ]


def _destination(place: overview.Place) -> dict[str, Any]:
    return {
        "name": place.name,
        "state": f"failing since {_time(place.down_since)}" if place.down_since is not None else "up" if place.last_success_at else "not tried yet",
        "waiting": place.waiting,
        "uncommitted": place.counts[DeliveryState.UNCOMMITTED],
        "delivered": place.counts[DeliveryState.DELIVERED],
        "replaced": place.counts[DeliveryState.REPLACED],
        "stuck": place.stuck,
        "problem": place.message,
    }


def job_rows(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Return the newest jobs."""
    with open_store(settings) as store, store.read() as session:
        return [job_row(job) for job in jobs.list_jobs(session, limit)]


def job_row(job: JobRow) -> dict[str, Any]:
    """Return the row of one job."""
    seconds = (job.finished_at - job.started_at).total_seconds() if job.finished_at and job.started_at and job.finished_at >= job.started_at else None
    return {
        "id": job.id,
        "study": job.study_id,
        "study_uid": job.study.study_uid,
        "pipeline": job.pipeline or "(notice only)",
        "run": job.run,
        "state": job.state.value,
        "score": job.finding.get("score"),
        "verdict": job.finding.get("verdict", ""),
        "seconds": round(seconds, 2) if seconds is not None else None,
        "reason": job.reason,
        "complete_reason": job.complete_reason,
        "partial": job.partial,
        "rules": list(job.rules),
        "shadow": job.shadow,
        "shadow_rules": list(job.shadow_rules),
        "progress": job.progress,
    }


def job_page(settings: Settings, job_id: int) -> dict[str, Any]:
    """Return all that is known of a job; raises `InputError` where there is none."""
    with open_store(settings) as store, store.read() as session:
        job = jobs.get_job(session, job_id)
        if job is None:
            raise InputError(f"there is no job {job_id}: `pacs-node jobs` lists them")
        facts = job_row(job) | {
            "attempts": job.attempts,
            "worker": job.worker,
            "created": _time(job.created_at),
            "started": _time(job.started_at),
            "finished": _time(job.finished_at),
            "finding": job.finding,
            "series": list(job.series_uids),
            "files": _files(session, job),
        }
        sent = deliveries.list_deliveries(session, 1000, job_id)
        rows = [_object_row(row) for row in reversed(sent)]
        posted = {row.object_id for row in sent}
        replaced = {obj.stands_for for obj in job.objects}
        rows += [_unposted(obj, replaced) for obj in job.objects if obj.id not in posted]
        return {"facts": facts, "objects": rows}


def _files(session: Session, job: JobRow) -> str:
    """Say what retention has removed of what the job looked at, and of what it made."""
    missing, facts = removal.gone(session, job.study_id, job.series_uids), []
    if missing:
        facts.append(f"{missing} received files were removed ({job.study.removed_reason})")
    if job.removed_at is not None and job.objects:
        facts.append(f"its results were removed {_time(job.removed_at)}")
    return "; ".join(facts) or "kept"


def _unposted(obj: ObjectRow, replaced: set[str]) -> dict[str, Any]:
    message = "; ".join(obj.faults) or (f"a rule under trial would send it to {', '.join(obj.withheld)}" if obj.withheld else "")
    return {"kind": obj.kind, "sop_uid": obj.sop_uid, "path": obj.path, "state": overview.why_not_posted(obj, replaced), "message": message}


def _object_row(row: DeliveryRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "job": row.job_id,
        "study": row.study_id,
        "kind": row.kind,
        "count": 1,
        "sop_uid": row.sop_uid,
        "sop_class_uid": row.sop_class_uid,
        "path": row.object.path if row.object is not None else "",
        "destination": row.destination,
        "state": row.state.value,
        "attempts": row.attempts,
        "next_attempt": _time(row.next_attempt_at) if row.state is DeliveryState.WAITING else "",
        "delivered": _time(row.delivered_at),
        "status": None if row.status is None else f"0x{row.status:04X}",
        "message": row.message,
    }


def delivery_rows(settings: Settings, limit: int) -> list[dict[str, Any]]:
    """Return the newest rows of the outbox. A study's forwarded originals are one row for each state; stuck ones are shown each."""
    with open_store(settings) as store, store.read() as session:
        rows = [_object_row(row) for row in deliveries.list_deliveries(session, limit, bundled=True)]
        rows += [_originals(summary) for summary in originals.summaries(session, limit) if summary.state not in STUCK]
    return sorted(rows, key=lambda row: row["id"], reverse=True)[:limit]


def _originals(summary: originals.Summary) -> dict[str, Any]:
    return {
        "id": summary.first,
        "job": None,
        "study": summary.study_id,
        "kind": "original",
        "count": summary.count,
        "destination": summary.destination,
        "state": summary.state.value,
        "attempts": summary.attempts,
        "next_attempt": _time(summary.next_attempt_at) if summary.state is DeliveryState.WAITING else "",
        "delivered": _time(summary.delivered_at),
        "status": None,
        "message": summary.message,
    }


def _time(moment: Any) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment is not None else ""
