"""Performed procedure steps and availability notifications → what a study waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from pacs_node.assembly.announcements import read_availability, read_step
from pacs_node.assembly.completeness import Announced
from pacs_node.database import announcements
from pacs_node.database.tables import AnnouncementRow, StudyRow
from pacs_node.journey import House
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import Announcement, Note


def take_step(house: House, note: Note, dataset: Dataset, now: datetime) -> None:
    """Deal with an N-CREATE or N-SET of a performed procedure step (PS3.4 F.7.2)."""
    _take(house, note, read_step, dataset, now)


def take_availability(house: House, note: Note, dataset: Dataset, now: datetime) -> None:
    """Deal with an availability notification (PS3.4 R.3.1)."""
    _take(house, note, read_availability, dataset, now)


def _take(house: House, note: Note, read: Callable[[Dataset], Announcement], dataset: Dataset, now: datetime) -> None:
    said = read(dataset)
    with house.store.write() as session:
        studies = announcements.note(session, note, said, now)
        announcements.wake(session, studies, now)
    listed = None if said.instances is None else len(said.instances)
    for study_uid in studies:
        house.log.info("announced", study=study_tag(study_uid), by=note.service, sender=note.sender.calling_ae, state=said.state, instances=listed)


def kinds(house: House) -> tuple[str, ...]:
    """Return the services whose word counts: those that are configured now."""
    reception = house.settings.reception
    return tuple(name for name, counts in (("mpps", reception.mpps), ("availability", reception.availability)) if counts)


def announced(house: House, session: Session, study: StudyRow) -> tuple[Announced, ...]:
    """Return what was announced of a study, and what of it is not here."""
    return _announced(session, announcements.of_study(session, study.study_uid, kinds(house)))


def _announced(session: Session, rows: Sequence[AnnouncementRow]) -> tuple[Announced, ...]:
    missing = announcements.not_here(session, {uid for row in rows for uid in row.instances})
    return tuple(Announced(row.kind, row.state.value, frozenset(row.instances), frozenset(missing.intersection(row.instances))) for row in rows)


def wake_where_all_is_here(house: House, session: Session, study: StudyRow, now: datetime) -> None:
    """Have a study looked at now where the last instance that was announced has come: it need not wait for quiet time."""
    rows = announcements.of_study(session, study.study_uid, kinds(house))
    if rows and not any(one.state == "in progress" or one.missing for one in _announced(session, rows)):
        announcements.wake(session, announcements.companions(session, rows), now)
