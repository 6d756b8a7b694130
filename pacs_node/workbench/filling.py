"""A database with a history, made in bulk: finished studies with their instances, jobs, objects and deliveries, and jobs that wait."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert

from pacs_node.database.engine import Store
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AssociationRow, AuditRow, Base, DeliveryRow, InstanceRow, JobRow, ObjectRow, SeriesRow, StudyRow
from pacs_node.journey import now

_CHUNK = 500  # studies a transaction
_CT = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_PERIOD = timedelta(days=5)  # over which the history is spread

Rows = dict[type[Base], list[dict[str, Any]]]


def fill(store: Store, studies: int, instances: int, *, queued: int) -> None:
    """Put ``studies`` finished studies of ``instances`` each into an empty database, and ``queued`` jobs that wait, spread over them. No files are made."""
    end = now() - timedelta(hours=1)
    for start in range(0, studies, _CHUNK):
        rows: Rows = {kind: [] for kind in (StudyRow, SeriesRow, InstanceRow, AssociationRow, JobRow, ObjectRow, DeliveryRow, AuditRow)}
        for number in range(start + 1, min(start + _CHUNK, studies) + 1):
            _study(rows, number, instances, end - _PERIOD * (1 - number / studies))
        _insert(store, rows)
    waiting = [_job(studies + number, 1 + number * studies // (queued + 1), end, JobState.QUEUED) for number in range(1, queued + 1)]
    _insert(store, {JobRow: waiting})


def _insert(store: Store, rows: Rows) -> None:
    with store.write() as session:
        for kind, values in rows.items():
            if values:
                session.execute(insert(kind), values)


def _study(rows: Rows, number: int, instances: int, at: datetime) -> None:
    uid, sender = f"1.2.9.{number}", {"calling_ae": "BENCH", "called_ae": "PACS_NODE", "address": "127.0.0.1:1"}
    patient = [f"H{number}", "", f"HISTORY^{number}", "19700101"]
    names = dict(zip(("patient_id", "issuer", "patient_name", "birth_date"), patient, strict=True))
    study = {"id": number, "study_uid": uid, "state": StudyState.COMPLETE, **names, "accession": f"A{number}", "description": "history", "outcome": "done"}
    rows[StudyRow].append(study | {"first_arrival": at, "last_arrival": at})
    rows[SeriesRow].append({"id": number, "study_id": number, "series_uid": f"{uid}.1", "modality": "CT", "number": 1, "description": "history"})
    for index in range(instances):
        facts = {"study_id": number, "series_id": number, "sop_uid": f"{uid}.1.{index}", "sop_class_uid": _CT, "transfer_syntax_uid": _EXPLICIT}
        arrival = {"identity": patient, "arrival": f"history-{number}-{index}", "association": f"h{number}", "received_at": at}
        rows[InstanceRow].append(facts | arrival | sender)
    rows[AssociationRow].append({"association": f"h{number}", "released": True, "stored": instances, "refused": 0, "ended_at": at, **sender})
    rows[JobRow].append(_job(number, number, at, JobState.DONE))
    built = {"id": number, "job_id": number, "run": 1, "variant": "sr", "kind": "sr", "sop_uid": f"{uid}.9", "sop_class_uid": _CT, "series_uid": f"{uid}.8"}
    rows[ObjectRow].append(built | {"transfer_syntax_uid": _EXPLICIT, "path": f"results/history/{number}.dcm", "sha256": "0" * 64, "position": 1})
    sent = {"study_id": number, "object_id": number, "job_id": number, "destination": "archive", "position": 1, "state": DeliveryState.DELIVERED}
    rows[DeliveryRow].append(sent | {"attempts": 1, "next_attempt_at": at, "first_attempt_at": at, "delivered_at": at})
    rows[AuditRow].append({"at": at, "actor": "bench", "action": "sent", "subject": f"object {number}", "detail": {}})


def _job(number: int, study: int, at: datetime, state: JobState) -> dict[str, Any]:
    facts = {"id": number, "study_id": study, "pipeline": "ct-head", "series_uids": [f"1.2.9.{study}.1"], "rules": ["CT"], "digest": "0" * 64, "state": state}
    targets = [{"destination": "archive", "kinds": ["sr"], "notice": True}]
    times = {"not_before": at, "created_at": at, "finished_at": at if state is JobState.DONE else None}
    return facts | times | {"targets": targets, "priority": number % 3, "complete_reason": "no instance came for 10 s", "partial": False}
