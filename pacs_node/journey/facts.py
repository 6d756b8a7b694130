"""What the database and the spool know of a study, as completeness is judged by."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.assembly.completeness import Facts
from pacs_node.database import counts, studies
from pacs_node.database.tables import JobRow, ObjectRow, StudyRow
from pacs_node.journey import House
from pacs_node.journey.announcements import announced


def facts_of(house: House, session: Session, study: StudyRow) -> Facts:
    """Return what is known of a study; our own results do not count, and rejected instances only where they are compared with an archive's."""
    still_open, all_released = studies.associations_of(session, study)
    received = {series: [row for row in series.instances if not row.own] for series in study.series}
    usable = sum(1 for rows in received.values() for row in rows if not row.rejected)
    return Facts(
        first_arrival=study.first_arrival,
        last_arrival=study.last_arrival,
        open_associations=still_open,
        all_released=all_released,
        series_descriptions=frozenset(series.description for series in study.series),
        instances=usable,
        arriving=_is_quiet(house, study) and not house.spool.arriving().isdisjoint(row.association for rows in received.values() for row in rows),
        announced=announced(house, session, study),
        here={series.series_uid: len(rows) for series, rows in received.items() if rows},
        modalities={series.series_uid: series.modality for series in study.series},
        own_series=frozenset(session.scalars(select(ObjectRow.series_uid).join(JobRow).where(JobRow.study_id == study.id).distinct())),
        answers=counts.answers(session, study.id, usable),
    )


def _is_quiet(house: House, study: StudyRow) -> bool:
    """Tell whether quiet time may be over for some rule: only then it is asked whether an object is coming in, which reads folders."""
    return house.clock() - study.last_arrival >= house.patience[0]
