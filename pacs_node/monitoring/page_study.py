"""What the page of a study shows: what was received, what it waits for, what the rules decided, and its jobs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy.orm import Session

from pacs_node.database import jobs, overview, studies
from pacs_node.database.alerts import open_alerts
from pacs_node.database.tables import AlertRow, SeriesRow, StudyRow
from pacs_node.errors import InputError
from pacs_node.monitoring.privacy import decisions_shown
from pacs_node.monitoring.sources import Sources


def facts(sources: Sources, session: Session, study_id: int) -> dict[str, Any]:
    """Return what the template shows; raises `InputError` where there is no such study."""
    study = studies.get_study(session, study_id)
    if study is None:
        raise InputError(f"there is no study {study_id} here")
    made = jobs.jobs_of(session, study.id)
    return {
        "study": study,
        "series": [_series(series) for series in study.series],
        "senders": senders(study),
        "jobs": list(reversed(made)),
        "originals": sorted(overview.originals_of(session, study.id).items()),
        "decisions": decisions_shown(study.decisions, patients=sources.settings.monitoring.patients),
        "alerts": alerts_on(session, study.id, [job.id for job in made]),
    }


def _series(series: SeriesRow) -> dict[str, Any]:
    rows = [row for row in series.instances if not row.own]
    return {
        "row": series,
        "instances": len(rows),
        "own": len(series.instances) - len(rows),
        "rejected": sum(1 for row in rows if row.rejected),
        "removed": sum(1 for row in rows if row.removed_at is not None),
    }


def senders(study: StudyRow) -> list[str]:
    """Return who sent the study: AE title, host and the title that was called."""
    rows = [row for series in study.series for row in series.instances if not row.own]
    return sorted({f"{row.calling_ae or 'no AE title'} at {row.address.rpartition(':')[0] or 'unknown'}, to {row.called_ae}" for row in rows})


def alerts_on(session: Session, study_id: int, job_ids: Iterable[int]) -> list[AlertRow]:
    """Return the open alerts about a study, its deliveries to a destination, and its jobs."""
    subjects = {f"study {study_id}", *(f"job {number}" for number in job_ids)}
    return [row for row in open_alerts(session) if row.subject in subjects or row.subject.startswith(f"study {study_id} at ")]
