"""The index: each arrival becomes a new instance, a duplicate, a correction, or is kept aside with the reason.

The rows are committed first, then the files are moved from the spool under their keys. A crash in between leaves a file in the spool,
where the next look finds that its row exists and only moves it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from pacs_node import crash
from pacs_node.assembly import grouping
from pacs_node.assembly.encoded import fingerprint
from pacs_node.database import jobs, studies
from pacs_node.database.alerts import audit, clear_alert
from pacs_node.database.states import StudyState, move
from pacs_node.database.tables import InstanceRow, StudyRow
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House, sync_folder
from pacs_node.journey.announcements import wake_where_all_is_here
from pacs_node.journey.arriving import Batch, Item
from pacs_node.journey.noting import note_begun, remember_begun
from pacs_node.journey.reject import obey, refuse_again
from pacs_node.journey.repeats import Known, Repeated, compare, known, take_repeat
from pacs_node.monitoring.logs import study_tag
from pacs_node.reception.returning import take_back


@dataclass(frozen=True)
class _Looked:
    """What was found out about a batch without a transaction, by the names of arrivals or by SOP Instance UID."""

    done: frozenset[str]  # arrivals whose rows were committed before a crash
    here: Mapping[str, Known]  # SOP Instance UID → what is here of it
    repeats: dict[str, grouping.Repeat] = field(default_factory=dict)  # arrival → how it compares with that
    digests: dict[str, str] = field(default_factory=dict)  # arrival → digest, where it comes again after its file was removed


def index(house: House, items: list[Item], quarantine: Callable[[Item, str], None], now: datetime) -> None:
    """Index a batch in which no SOP instance stands twice; ``quarantine`` takes what cannot be compared because it cannot be read."""
    items[:] = [item for item in items if item.arrival.path.exists()]  # but for what `_finish_moves` has brought into place
    looked, batch = _look(house, items, quarantine), Batch()
    with house.store.write() as session:
        _take(house, session, batch, items, looked, now)
        batch.studies |= obey(house, session, [(item.arrival, item.instance.sop_uid, item.rejection) for item in items if item.rejection], now)
        batch.remarks += refuse_again(session, [item.instance.sop_uid for item in items if item.instance.sop_uid not in looked.here])
        for study_id in batch.studies:
            wake_where_all_is_here(house, session, _settle_identity(session, study_id, batch, now), now)
    crash.passed("indexed")
    remember_begun(house, batch)
    _carry_out(house, batch)
    for event, values in batch.remarks:
        house.log.info(event, **values)


def _look(house: House, items: list[Item], quarantine: Callable[[Item, str], None]) -> _Looked:
    """Compare what came again with what is here; what cannot be read is taken out of ``items``."""
    with house.store.read() as session:
        done = frozenset(studies.known_arrivals(session, [item.arrival.name for item in items]))
        rows = studies.find_instances(session, [item.instance.sop_uid for item in items])
        looked = _Looked(done, {uid: known(house, row) for uid, row in rows.items()})
    _finish_moves(house, [row for row in rows.values() if row.arrival not in done and row.removed_at is None])
    for item in list(items):
        here = looked.here.get(item.instance.sop_uid)
        if here is None or item.arrival.name in done:
            continue
        try:
            looked.repeats[item.arrival.name] = compare(here, item)
            if here.removed:
                looked.digests[item.arrival.name] = fingerprint(item.arrival.path)[1]
        except UnreadableObject as error:
            quarantine(item, error.reason)
            items.remove(item)
    return looked


def _take(house: House, session: Session, batch: Batch, items: Sequence[Item], looked: _Looked, now: datetime) -> None:
    rows = studies.find_instances(session, looked.here)
    studies.lock(session, {row.study_id for row in rows.values()})
    for item in items:
        row, name = rows.get(item.instance.sop_uid), item.arrival.name
        if row is not None and name in looked.done:
            batch.moves.append((item.arrival.path, studies.instance_path(row)))  # a crash came between commit and move
        elif row is not None:
            take_repeat(house, session, batch, Repeated(item, row, looked.repeats[name], looked.digests.get(name, "")), now)
        else:
            _take_new(house, session, batch, item, now)


def _finish_moves(house: House, rows: Iterable[InstanceRow]) -> None:
    """Bring into place what a crash left in the spool after its row was committed.

    Usually the arrival itself is met again and moved. A repeat of it can come before it, though: where the clock was set back in between,
    the repeat has the earlier name. It is to be compared with the file of the row, and the file that it supersedes has to be kept.
    """
    missing = [(row.arrival, studies.instance_path(row)) for row in rows if not (house.data / studies.instance_path(row)).exists()]
    left = [(source, path) for name, path in missing if (source := house.spool.find(name)) is not None]
    if left:
        _carry_out(house, Batch(moves=left))


def _take_new(house: House, session: Session, batch: Batch, item: Item, now: datetime) -> None:
    facts = {"accession": item.accession, "description": item.description}
    study = studies.ensure_study(session, item.instance, item.arrival, facts)
    note_begun(house, session, batch, item, study.id, now)
    row = studies.add_instance(session, studies.ensure_series(session, study, item.series), item.instance, item.arrival, own=item.own)
    study.removed_at = None
    batch.moves.append((item.arrival.path, studies.instance_path(row)))
    if not item.own:
        studies.reopen(study, item.arrival.received_at, house.patience)
        batch.studies.add(study.id)


def _settle_identity(session: Session, study_id: int, batch: Batch, now: datetime) -> StudyRow:
    """Hold a study whose instances name different patients; free it when they agree again.

    A hold is silent until the study has been quiet (a corrected study is mixed while it is sent again); assembly raises the alert.
    """
    session.flush()
    session.expire_all()
    study = studies.get_study(session, study_id)
    assert study is not None
    found = studies.identities(study)
    if len(found) == 1:
        study.patient_id, study.issuer, study.patient_name, study.birth_date = found[0]
        study.birth_date = study.birth_date[:32]
    if is_mixed(study):
        study.state = move(study.state, StudyState.HELD)
        study.held_reason = f"its instances name {len(found)} different patients"
        jobs.cancel_unfinished(session, study.id, now, study.held_reason)
        audit(session, "core", "held", f"study {study.id}", {"study_uid": study.study_uid, "identities": len(found)}, now)
    elif study.held_reason:
        study.held_reason = ""
        if clear_alert(session, "held", f"study {study.id}", now):
            batch.remarks.append(("study freed", {"study": study_tag(study.study_uid), "why": "a corrected re-send made the patient identity one"}))
    return study


def is_mixed(study: StudyRow) -> bool:
    """Tell whether a study's instances name patients that nobody declared to be one."""
    found = studies.identities(study)
    return len(found) > 1 and any("\x1f".join(key) not in study.released_identities for key in found)


def _carry_out(house: House, batch: Batch) -> None:
    folders: dict[Path, None] = {}  # targets first: a name is taken from the spool only after it is durable elsewhere
    with house.folders:
        for source, target in batch.moves:
            path = house.folder(str(Path(target).parent)) / Path(target).name
            if source.exists():
                if path.exists():  # of an index that was lost meanwhile: an acknowledged file is never overwritten
                    take_back(house.spool.new, path)
                os.replace(source, path)
            folders[path.parent] = None
        crash.passed("moved")
        _sync_all([*folders, *dict.fromkeys(source.parent for source, _ in batch.moves)])
    house.spool.forget(*batch.drops)


def _sync_all(folders: Sequence[Path]) -> None:
    for folder in folders:
        sync_folder(folder)
