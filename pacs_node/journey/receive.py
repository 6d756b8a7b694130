"""Spool → index: every arrival becomes a new instance, a duplicate, a correction, or is kept aside with the reason.

The row is committed first, then the file is moved from the spool under its key. A crash in between leaves the file in the spool,
where the next look finds that its row exists and only moves it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy.orm import Session

from pacs_node.assembly import grouping
from pacs_node.database import deliveries, jobs, studies
from pacs_node.database.alerts import clear_alert, raise_alert
from pacs_node.database.states import StudyState, move
from pacs_node.database.tables import AsideRow, InstanceRow, StudyRow
from pacs_node.dicom.header import identity, made_by, read_header, text_of
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import UnreadableObject
from pacs_node.journey import House
from pacs_node.monitoring.logs import study_tag
from pacs_node.records import Arrival, AssociationEnd, Instance, Quarantined, Series

BATCH = 100  # arrivals a transaction


@dataclass
class _Batch:
    """What one transaction decided about files: carried out after its commit."""

    moves: list[tuple[Path, str]] = field(default_factory=list)  # spool file → path in the data folder
    drops: list[Arrival] = field(default_factory=list)  # duplicates
    studies: set[int] = field(default_factory=set)
    remarks: list[tuple[str, dict[str, object]]] = field(default_factory=list)


def receive(house: House, now: datetime) -> int:
    """Index what waits in the spool, one batch; returns how many entries were dealt with."""
    entries = house.spool.arrivals(BATCH)
    _index(house, [entry for entry in entries if isinstance(entry, Arrival)], now)
    # after the instances: entries come in the order of their names, so that an association's end follows all that it brought
    _note_ends(house, [entry for entry in entries if isinstance(entry, AssociationEnd)], now)
    return len(entries)


def note_quarantined(house: House, items: Iterable[Quarantined], now: datetime) -> int:
    """Bring what the receivers put into quarantine into the database, each with an alert; returns how many were new."""
    count = 0
    for item in items:
        path = str(item.path.relative_to(house.data))
        row = AsideRow(kind="quarantine", reason=item.reason, path=path, calling_ae=item.sender.calling_ae, received_at=item.received_at)
        with house.store.write() as session:
            new = studies.add_aside(session, row)
        if new:
            count += 1
            who = item.sender.calling_ae or "an unknown sender"
            house.alert("quarantine", f"file {item.name}", f"an object from {who} was put into quarantine ({path}): {item.reason}")
    return count


def _note_ends(house: House, ends: list[AssociationEnd], now: datetime) -> None:
    if not ends:
        return
    with house.store.write() as session:
        for end in ends:
            studies.add_association(session, end)
            for study in studies.studies_of_association(session, end.sender.association):
                study.look_again_at = min(study.look_again_at or now, now)  # a rule may count a release as completeness
    for end in ends:
        house.log.info("association over", sender=end.sender.calling_ae, released=end.released, stored=end.stored, refused=end.refused)
    house.spool.forget(*ends)


def _index(house: House, arrivals: list[Arrival], now: datetime) -> None:
    readable: list[tuple[Arrival, Dataset]] = []
    for arrival in arrivals:
        try:
            readable.append((arrival, read_header(arrival.path, f"arrival {arrival.name}")))
        except UnreadableObject as error:
            note_quarantined(house, [house.spool.quarantine(arrival, error.reason)], now)
    while readable:
        batch, readable = _split_at_repeat(readable)
        _index_batch(house, batch, now)


def _split_at_repeat(items: list[tuple[Arrival, Dataset]]) -> tuple[list[tuple[Arrival, Dataset]], list[tuple[Arrival, Dataset]]]:
    """Cut where a SOP instance comes a second time: it has to be compared with the first, once that is indexed."""
    seen: set[str] = set()
    for index, (_, header) in enumerate(items):
        uid = str(header.SOPInstanceUID)
        if uid in seen:
            return items[:index], items[index:]
        seen.add(uid)
    return items, []


def _index_batch(house: House, items: list[tuple[Arrival, Dataset]], now: datetime) -> None:
    with house.store.read() as session:
        done = set(studies.known_arrivals(session, [arrival.name for arrival, _ in items]))
        known = {uid: _Known.of(row, house) for uid, row in studies.find_instances(session, [str(header.SOPInstanceUID) for _, header in items]).items()}
    repeats = {
        arrival.name: _compare(known[str(header.SOPInstanceUID)], arrival, header)
        for arrival, header in items
        if str(header.SOPInstanceUID) in known and arrival.name not in done
    }
    batch = _Batch()
    with house.store.write() as session:
        rows = studies.find_instances(session, known)
        for arrival, header in items:
            row = rows.get(str(header.SOPInstanceUID))
            if row is not None and arrival.name in done:
                batch.moves.append((arrival.path, studies.instance_path(row)))  # a crash came between commit and move
            elif row is not None:
                _take_repeat(house, session, batch, _Repeated(arrival, header, row, repeats[arrival.name]), now)
            else:
                _take_new(house, session, batch, arrival, header)
        for study_id in batch.studies:
            _settle_identity(house, session, study_id, batch, now)
    _carry_out(house, batch)
    for event, values in batch.remarks:
        house.log.info(event, **values)


@dataclass(frozen=True)
class _Known:
    """What an arrival is compared with."""

    path: Path
    study_uid: str
    series_uid: str

    @staticmethod
    def of(row: InstanceRow, house: House) -> _Known:
        return _Known(house.data / studies.instance_path(row), row.series.study.study_uid, row.series.series_uid)


@dataclass(frozen=True)
class _Repeated:
    arrival: Arrival
    header: Dataset
    row: InstanceRow
    repeat: grouping.Repeat


def _compare(known: _Known, arrival: Arrival, header: Dataset) -> grouping.Repeat:
    if str(header.StudyInstanceUID) != known.study_uid:
        return grouping.Repeat(grouping.Likeness.CONFLICT, "the same SOP Instance UID is known from another study")
    return grouping.compare(known.path, arrival.path)


def _take_new(house: House, session: Session, batch: _Batch, arrival: Arrival, header: Dataset) -> None:
    instance = describe(arrival, header)
    own = made_by(header, node_device_uid(house.settings.node.name))
    facts = {"accession": text_of(header, "AccessionNumber"), "description": text_of(header, "StudyDescription")}
    study = studies.ensure_study(session, instance, arrival, facts)
    number = text_of(header, "SeriesNumber")
    series = Series(instance.series_uid, instance.modality, int(number) if number.lstrip("-").isdigit() else None, text_of(header, "SeriesDescription"), ())
    row = studies.add_instance(session, studies.ensure_series(session, study, series), instance, arrival, own=own)
    batch.moves.append((arrival.path, studies.instance_path(row)))
    if not own:
        studies.reopen(study, arrival.received_at, house.patience)
        batch.studies.add(study.id)


def describe(arrival: Arrival, header: Dataset) -> Instance:
    """Return the facts of an arrived object that are indexed."""
    return Instance(
        sop_uid=str(header.SOPInstanceUID),
        sop_class_uid=str(header.SOPClassUID),
        transfer_syntax_uid=str(header.file_meta.get("TransferSyntaxUID", "")),
        study_uid=str(header.StudyInstanceUID),
        series_uid=str(header.SeriesInstanceUID),
        modality=text_of(header, "Modality"),
        patient=identity(header),
        path=arrival.path,
        sender=arrival.sender,
    )


def _take_repeat(house: House, session: Session, batch: _Batch, item: _Repeated, now: datetime) -> None:
    study = item.row.series.study
    facts: dict[str, object] = {"study": study_tag(study.study_uid), "sender": item.arrival.sender.calling_ae, "why": item.repeat.why}
    match item.repeat.likeness:
        case grouping.Likeness.SAME | grouping.Likeness.SAME_PIXELS:
            batch.drops.append(item.arrival)
            batch.remarks.append(("duplicate", facts))
        case grouping.Likeness.IDENTITY_CHANGED:
            _correct(house, session, batch, item, now)
            batch.remarks.append(("corrected identity", facts))
        case grouping.Likeness.CONFLICT:
            path = f"aside/{item.arrival.name}.dcm"
            reason = f"SOP Instance UID {item.row.sop_uid} is known with other content: {item.repeat.why}"
            row = AsideRow(kind="conflict", reason=reason, path=path, sop_uid=item.row.sop_uid, study_uid=study.study_uid, received_at=item.arrival.received_at)
            row.calling_ae = item.arrival.sender.calling_ae
            if studies.add_aside(session, row):
                raise_alert(session, "conflict", f"file {item.arrival.name}", f"kept aside: {reason}", now)
                house.log.error("alert", kind="conflict", **facts)
            batch.moves.append((item.arrival.path, path))


def _correct(house: House, session: Session, batch: _Batch, item: _Repeated, now: datetime) -> None:
    """Take a corrected object in the place of the old one; what runs under the old identity is withdrawn."""
    study = item.row.series.study
    old = studies.replace_instance(item.row, describe(item.arrival, item.header), item.arrival)
    aside = AsideRow(kind="superseded", reason="replaced by an object with a corrected patient identity", path=old, sop_uid=item.row.sop_uid)
    aside.study_uid, aside.received_at = study.study_uid, item.arrival.received_at
    studies.add_aside(session, aside)
    jobs.cancel_unfinished(session, study.id, now, "the patient identity was corrected")
    deliveries.cancel_unfinished(session, study.id, "the patient identity was corrected")
    sent = deliveries.delivered_count(session, study.id)
    message = f"{sent} results of study {study.id} were delivered under a patient identity that has been corrected since: have them rejected in the archive"
    if sent and raise_alert(session, "identity", f"study {study.id}", message, now):
        house.log.error("alert", kind="identity", subject=f"study {study.id}", message=message)
    studies.reopen(study, item.arrival.received_at, house.patience)
    batch.moves.append((item.arrival.path, studies.instance_path(item.row)))
    batch.studies.add(study.id)


def _settle_identity(house: House, session: Session, study_id: int, batch: _Batch, now: datetime) -> None:
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
    elif study.held_reason:
        study.held_reason = ""
        if clear_alert(session, "held", f"study {study.id}", now):
            batch.remarks.append(("study freed", {"study": study_tag(study.study_uid), "why": "a corrected re-send made the patient identity one"}))


def is_mixed(study: StudyRow) -> bool:
    """Tell whether a study's instances name patients that nobody declared to be one."""
    found = studies.identities(study)
    return len(found) > 1 and any("\x1f".join(key) not in study.released_identities for key in found)


def _carry_out(house: House, batch: _Batch) -> None:
    folders: set[Path] = set()
    for source, target in batch.moves:
        path = house.data / target
        path.parent.mkdir(parents=True, exist_ok=True)
        if source.exists():
            os.replace(source, path)
        folders |= {path.parent, source.parent}
    for folder in folders:
        _sync_folder(folder)
    house.spool.forget(*batch.drops)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

