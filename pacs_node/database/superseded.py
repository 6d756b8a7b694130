"""Results of earlier runs that lie at a destination after the results of a later run have arrived there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.database.deliveries import of_run, whole
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow, JobRow, ObjectRow

NOTE = "rejection"
"""Kind of the object that has earlier ones rejected, and what `DeliveryRow.afterwards` says where it is still to be made."""

_THERE = (DeliveryState.DELIVERED, DeliveryState.UNCOMMITTED)
_OPEN = (DeliveryState.WAITING, DeliveryState.SENDING, DeliveryState.UNCOMMITTED, DeliveryState.PARKED)


def ripe(session: Session, destination: str) -> list[DeliveryRow]:
    """Return delivered reports after which a note is to be made, as soon as nothing of their runs is still on its way."""
    there = (DeliveryRow.destination == destination, DeliveryRow.afterwards != "", DeliveryRow.state == DeliveryState.DELIVERED)
    rows = session.scalars(select(DeliveryRow).where(*there).options(*whole()).order_by(DeliveryRow.id).limit(500)).all()
    return [row for row in rows if not any(one.state in _OPEN or one.fallback for one in of_run(session, row))]


def by(session: Session, row: DeliveryRow) -> Sequence[DeliveryRow]:
    """Return what of earlier runs of the same pipeline on the same series lies at the destination of a report, and no note has had rejected.

    Notes reject what lies there of all runs before their own.
    """
    assert row.job is not None and row.object is not None
    mine = (JobRow.study_id == row.job.study_id, JobRow.pipeline == row.job.pipeline, DeliveryRow.destination == row.destination)
    there = (DeliveryRow.state.in_(_THERE), ObjectRow.run < row.object.run)
    query = select(DeliveryRow).join(ObjectRow, DeliveryRow.object_id == ObjectRow.id).join(JobRow, DeliveryRow.job_id == JobRow.id)
    found = session.scalars(query.where(*mine, *there).order_by(ObjectRow.run, ObjectRow.position, DeliveryRow.id).options(*whole())).all()
    alike = [one for one in found if one.job is not None and set(one.job.series_uids) & set(row.job.series_uids)]
    since = max((one.object.run for one in alike if one.object is not None and one.kind == NOTE), default=0)
    return [one for one in alike if one.object is not None and one.kind != NOTE and one.object.run >= since]
