"""A database with a history, made in bulk: finished studies with their instances, jobs, objects and deliveries, and jobs that wait.

The studies are rows of ours; all else is derived from them by the database itself, a hundred times as fast.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Enum, Select, String, cast, insert, literal, select, union_all
from sqlalchemy.orm import Session

from pacs_node.database.engine import Store
from pacs_node.database.states import DeliveryState, JobState, StudyState
from pacs_node.database.tables import AssociationRow, Base, DeliveryRow, InstanceRow, JobRow, ObjectRow, SeriesRow, StudyRow, turn_of
from pacs_node.journey import now

_CHUNK = 5000  # studies a transaction
_CT = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_PERIOD = timedelta(days=5)  # over which the history is spread
_PATIENT = ["HISTORY", "", "HISTORY", "19700101"]
_NORMAL = 1  # priority
_SENDER = {"calling_ae": "BENCH", "called_ae": "PACS_NODE", "address": "127.0.0.1:1"}


def fill(store: Store, studies: int, instances: int, *, queued: int) -> None:
    """Put ``studies`` finished studies of ``instances`` each into an empty database, and ``queued`` jobs that wait, spread over them. No files are made."""
    end = now() - timedelta(hours=1)
    for start in range(0, studies, _CHUNK):
        stop = min(start + _CHUNK, studies)
        with store.write() as session:
            session.execute(insert(StudyRow), [_study(number, end - _PERIOD * (1 - number / studies)) for number in range(start + 1, stop + 1)])
            _derive(session, start, stop, instances)
    with store.write() as session:
        if queued:
            session.execute(insert(JobRow), [_job(studies + number, 1 + number * studies // (queued + 1), end) for number in range(1, queued + 1)])


def _study(number: int, at: datetime) -> dict[str, Any]:
    names = dict(zip(("patient_id", "issuer", "patient_name", "birth_date"), _PATIENT, strict=True))
    facts = {"id": number, "study_uid": f"1.2.9.{number}", "state": StudyState.COMPLETE, "accession": f"A{number}", "description": "", "outcome": "history"}
    return facts | names | {"first_arrival": at, "last_arrival": at}


def _job(number: int, study: int, at: datetime) -> dict[str, Any]:
    facts = {"id": number, "study_id": study, "state": JobState.QUEUED, "priority": _NORMAL, "not_before": at, "created_at": at, "turn": turn_of(_NORMAL, at)}
    return facts | _SAME_JOB


_SAME_JOB: dict[str, Any] = {
    "pipeline": "ct-head",
    "series_uids": ["1.2.9"],
    "rules": ["CT"],
    "targets": [{"destination": "archive", "kinds": ["sr"], "notice": True}],
    "digest": "0" * 64,
    "complete_reason": "history",
    "partial": False,
}


def _derive(session: Session, start: int, stop: int, instances: int) -> None:
    """Give the studies numbered from above ``start`` up to ``stop`` all that belongs to them; every row has the number of its study."""
    number, at, uid = StudyRow.id, StudyRow.last_arrival, StudyRow.study_uid
    name = "history-" + cast(number, String)
    mine = number.between(start + 1, stop)

    def put(kind: type[Base], values: dict[str, Any], query: Select[Any] | None = None) -> None:
        table = kind.__table__
        columns = [_typed(table.c[column].type, value) for column, value in values.items()]
        rows = (select(*columns) if query is None else query.with_only_columns(*columns)).where(mine)
        session.execute(insert(kind).from_select(list(values), rows))

    put(SeriesRow, {"id": number, "study_id": number, "series_uid": uid + ".1", "modality": "CT", "number": 1, "description": "history"})
    each = union_all(*(select(literal(index).label("n")) for index in range(instances))).subquery()
    n = cast(each.c.n, String)
    facts = {"study_id": number, "series_id": number, "sop_uid": uid + ".1." + n, "sop_class_uid": _CT, "transfer_syntax_uid": _EXPLICIT, "identity": _PATIENT}
    arrival = {"arrival": name + "-" + n, "association": name, "received_at": at}
    put(InstanceRow, facts | arrival | _SENDER, select(number).select_from(StudyRow).join(each, literal(1) == 1))
    put(AssociationRow, {"association": name, "released": True, "stored": instances, "refused": 0, "ended_at": at} | _SENDER)
    times = {"not_before": at, "created_at": at, "finished_at": at, "turn": at}
    put(JobRow, {"id": number, "study_id": number, "state": JobState.DONE, "priority": _NORMAL} | times | _SAME_JOB)
    built = {"id": number, "job_id": number, "run": 1, "variant": "sr", "kind": "sr", "sop_uid": uid + ".9", "sop_class_uid": _CT, "series_uid": uid + ".8"}
    put(ObjectRow, built | {"transfer_syntax_uid": _EXPLICIT, "path": "results/" + name, "sha256": "0" * 64, "position": 1})
    sent = {"study_id": number, "object_id": number, "job_id": number, "destination": "archive", "position": 1, "state": DeliveryState.DELIVERED}
    put(DeliveryRow, sent | {"attempts": 1, "next_attempt_at": at, "first_attempt_at": at, "delivered_at": at})


def _typed(kind: Any, value: Any) -> Any:
    """Return a value as an expression of its column's type."""
    if isinstance(value, (str, int, bool, list, JobState, DeliveryState)):
        return literal(value, kind if isinstance(kind, (JSON, Enum)) else None)
    return value
