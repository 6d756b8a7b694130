"""Rejection notes → what is not used any more: obeyed in the transaction that indexes the note (see `pacs_node.assembly.rejections`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from pacs_node.assembly.rejections import TITLES, Rejection
from pacs_node.database import deliveries, embeddings, jobs, rejections, studies
from pacs_node.database.alerts import audit, raise_alert
from pacs_node.database.states import JobState
from pacs_node.database.tables import InstanceRow, JobRow
from pacs_node.journey import House
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import Arrival

_UNFINISHED = (JobState.QUEUED, JobState.RUNNING, JobState.PARKED)
NOTE = "note"  # in place of a code: the instance is a rejection note itself, and no content of its study
_WRONG = tuple(code for code, title in TITLES.items() if title.wrong)


def obey(house: House, session: Session, notes: Iterable[tuple[Arrival, str, Rejection]], now: datetime) -> set[int]:
    """Do what rejection notes (arrival, UID, content) ask for; returns the studies that are to be looked at again.

    What runs on a rejected instance is cancelled, what was made of one and not sent is withdrawn, and what was sent is reported.
    """
    touched: set[int] = set()
    for arrival, note_uid, rejection in notes:
        rejections.note(session, note_uid, rejection.code, rejection.instances, now)
        for row in rejections.instances(session, [note_uid]):
            row.rejected = NOTE
        here: dict[int, list[InstanceRow]] = {}
        for row in rejections.instances(session, rejection.instances):
            if _holds(rejection.code, row, arrival):
                here.setdefault(row.study_id, []).append(row)
        studies.lock(session, here)
        for study_id, rows in sorted(here.items()):
            _obey(house, session, study_id, rows, rejection.code, now)
            studies.reopen(rows[0].series.study, arrival.received_at, house.patience)
        touched |= here.keys()
    return touched


def _holds(code: str, row: InstanceRow, note: Arrival) -> bool:
    """Tell whether a note rejects an instance. A removal for age holds for what came before it; an error outdoes it."""
    if TITLES[code].wrong:
        return row.rejected == "" or (row.rejected != NOTE and not TITLES[row.rejected].wrong)
    return row.rejected == "" and row.received_at <= note.received_at


def _obey(house: House, session: Session, study_id: int, rows: Sequence[InstanceRow], code: str, now: datetime) -> None:
    title, study = TITLES[code], rows[0].series.study
    for row in rows:
        row.rejected = code
    why = f"{len(rows)} instances of the study were rejected ({title.meaning})"
    affected = rejections.jobs_on(session, study_id, {row.series.series_uid for row in rows})
    for job in affected:
        if job.state in _UNFINISHED:
            jobs.finish(job, JobState.CANCELLED, now, why)
        deliveries.cancel_of_job(session, job.id, why)
    embeddings.forget(session, study_id, {row.series.series_uid for row in rows})
    if title.wrong:
        _say_what_is_out(house, session, affected, study_id, why, now)
    audit(session, "core", "rejected", f"study {study_id}", {"study_uid": study.study_uid, "code": code, "instances": len(rows)}, now)
    house.log.info("rejected", study=study_tag(study.study_uid), code=code, instances=len(rows), jobs=len(affected))


def _say_what_is_out(house: House, session: Session, affected: Sequence[JobRow], study_id: int, why: str, now: datetime) -> None:
    sent = rejections.delivered(session, [job.id for job in affected])
    if not sent:
        return
    message = f"{sent} results of study {study_id} were delivered before {why}: have them rejected in the archive"
    if raise_alert(session, "rejected", f"study {study_id}", message, now):
        house.log.error("alert", kind="rejected", subject=f"study {study_id}", message=message)


def refuse_again(session: Session, uids: Sequence[str]) -> list[tuple[str, dict[str, object]]]:
    """Reject new instances whose rejection came before them; returns what is to be logged. A removal elsewhere holds for none that comes after it."""
    codes = rejections.codes(session, uids, _WRONG)
    for row in rejections.instances(session, codes.keys()):
        row.rejected = codes[row.sop_uid]
    return [("rejected before it came", {"instances": len(codes)})] if codes else []


def accept_again(session: Session, row: InstanceRow) -> bool:
    """Let a rejected instance that is received again count, where its rejection allows that; True where it does."""
    if row.rejected == NOTE or TITLES[row.rejected].wrong:
        return False
    rejections.lift(session, row)
    return True
