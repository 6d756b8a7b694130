"""Spool → index: every arrival becomes a new instance, a duplicate, a correction, or is kept aside with the reason.

The row is committed first, then the file is moved from the spool under its key. A crash in between leaves the file in the spool,
where the next look finds that its row exists and only moves it. An object that cannot be dealt with goes to quarantine and is said:
it never stands in the way of the others.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from pacs_node import crash
from pacs_node.assembly import grouping
from pacs_node.assembly.encoded import fingerprint
from pacs_node.assembly.rejections import Rejection, read_rejection
from pacs_node.database import deliveries, jobs, originals, studies
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.states import StudyState, move
from pacs_node.database.tables import AsideRow, InstanceRow, StudyRow
from pacs_node.dicom.header import identity, made_by, nested_deeper, number_of, read_header, text_of
from pacs_node.dicom.uids import node_device_uid
from pacs_node.errors import DatabaseUnavailable, UnreadableObject
from pacs_node.journey import House, sync_folder
from pacs_node.journey.announcements import wake_where_all_is_here
from pacs_node.journey.notes import take_note
from pacs_node.journey.reject import accept_again, obey, refuse_again
from pacs_node.monitoring.logs import study_tag
from pacs_node.reception.returning import take_back
from pacs_node.records import Arrival, AssociationEnd, Instance, Note, Quarantined, Series

BATCH = 100  # arrivals a transaction


@dataclass(frozen=True)
class _Item:
    """An arrival with all that the index wants to know of it: nothing is parsed inside a transaction."""

    arrival: Arrival
    instance: Instance
    series: Series
    accession: str
    description: str
    own: bool  # made by this node
    rejection: Rejection | None  # what it says, where it is a rejection note


@dataclass(frozen=True)
class _Known:
    """What a repeat is compared with."""

    path: Path
    study_uid: str
    own: bool
    removed: bool  # its file, by retention


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
    items = []
    for arrival in (entry for entry in entries if isinstance(entry, Arrival)):
        try:
            items.append(describe(house, arrival))
        except UnreadableObject as error:
            _quarantine(house, arrival, error.reason, now)
        except OSError:
            raise  # the disk: nothing is wrong with the object
        except Exception as error:  # the border of the periodic duty, object by object
            _put_aside(house, arrival, error, now)
    while items:
        batch, items = _split_at_repeat(items)
        _index(house, batch, now)
    # after the instances: entries come in the order of their names, so that an association's end follows all that it brought
    _note_ends(house, [entry for entry in entries if isinstance(entry, AssociationEnd)], now)
    for note in (entry for entry in entries if isinstance(entry, Note)):
        _take_note(house, note, now)
    return len(entries)


def _take_note(house: House, note: Note, now: datetime) -> None:
    try:
        take_note(house, note, now)
    except UnreadableObject as error:
        _quarantine(house, note, error.reason, now)
    except (OSError, DatabaseUnavailable):
        raise  # the disk or the database: nothing is wrong with the note
    except Exception as error:  # the border of the periodic duty, note by note
        _put_aside(house, note, error, now)


def describe(house: House, arrival: Arrival) -> _Item:
    """Read what is indexed of an arrived object; raises `UnreadableObject`."""
    header, most = read_header(arrival.path, f"arrival {arrival.name}"), house.settings.reception.max_nesting
    if nested_deeper(header, most):
        raise UnreadableObject(f"arrival {arrival.name}", f"its sequences are nested more than {most} deep (reception.max_nesting)")
    instance = Instance(
        sop_uid=text_of(header, "SOPInstanceUID")[:64],
        sop_class_uid=text_of(header, "SOPClassUID")[:64],
        transfer_syntax_uid=text_of(header.file_meta, "TransferSyntaxUID")[:64],
        study_uid=text_of(header, "StudyInstanceUID")[:64],
        series_uid=text_of(header, "SeriesInstanceUID")[:64],
        modality=text_of(header, "Modality")[:16],
        patient=identity(header),
        path=arrival.path,
        sender=arrival.sender,
    )
    series = Series(instance.series_uid, instance.modality, number_of(header, "SeriesNumber"), text_of(header, "SeriesDescription"), ())
    own = made_by(header, node_device_uid(house.settings.node.name))
    rejection = None if own else read_rejection(header)
    return _Item(arrival, instance, series, text_of(header, "AccessionNumber"), text_of(header, "StudyDescription"), own, rejection)


def _split_at_repeat(items: list[_Item]) -> tuple[list[_Item], list[_Item]]:
    """Cut where a SOP instance comes a second time: it has to be compared with the first, once that is indexed."""
    seen: set[str] = set()
    for index, item in enumerate(items):
        if item.instance.sop_uid in seen:
            return items[:index], items[index:]
        seen.add(item.instance.sop_uid)
    return items, []


# --- associations and quarantine -----------------------------------------------------------------------------------------


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


def note_quarantined(house: House, items: Iterable[Quarantined], now: datetime) -> int:
    """Bring what lies in quarantine into the database, each with an alert; returns how many were new."""
    with house.store.read() as session:
        known = studies.aside_paths(session, "quarantine")
    count = 0
    for item in items:
        path = str(item.path.relative_to(house.data))
        if path in known:
            continue
        who = item.sender.calling_ae or "an unknown sender"
        message = f"an object from {who} was put into quarantine ({path}): {item.reason}"
        row = AsideRow(kind="quarantine", reason=item.reason, path=path, calling_ae=item.sender.calling_ae[:16], received_at=item.received_at)
        with house.store.write() as session:
            new = studies.add_aside(session, row) and raise_alert(session, "quarantine", f"file {item.name}"[:96], message, now)
        if new:
            count += 1
            house.log.error("alert", kind="quarantine", file=item.name, message=message)
    return count


def _quarantine(house: House, arrival: Arrival | Note, reason: str, now: datetime) -> None:
    note_quarantined(house, [house.spool.quarantine(arrival, reason)], now)


def _put_aside(house: House, arrival: Arrival | Note, error: Exception, now: datetime) -> None:
    """Quarantine an object, or a note, that makes the intake fail, so that the others go on; called where the error was caught."""
    house.log.error("object cannot be indexed", file=arrival.name, traceback=traceback.format_exc())
    _quarantine(house, arrival, f"it cannot be indexed ({type(error).__name__}: {error})", now)


# --- the index -----------------------------------------------------------------------------------------------------------


def _index(house: House, items: list[_Item], now: datetime) -> None:
    """Index a batch; where one object makes it fail, index one by one and put that object aside."""
    try:
        _index_batch(house, items, now)
    except (OSError, DatabaseUnavailable):
        raise  # the disk or the database: nothing is wrong with the objects
    except Exception as error:  # the border of the periodic duty, object by object
        if len(items) > 1:
            for item in items:
                _index(house, [item], now)
            return
        _put_aside(house, items[0].arrival, error, now)


def _index_batch(house: House, items: list[_Item], now: datetime) -> None:
    items[:] = [item for item in items if item.arrival.path.exists()]  # but for what `_finish_moves` has brought into place
    with house.store.read() as session:
        done = set(studies.known_arrivals(session, [item.arrival.name for item in items]))
        rows = studies.find_instances(session, [item.instance.sop_uid for item in items])
        known = {uid: _known(house, row) for uid, row in rows.items()}
    _finish_moves(house, [row for row in rows.values() if row.arrival not in done and row.removed_at is None])
    repeats: dict[str, grouping.Repeat] = {}
    digests: dict[str, str] = {}  # of what comes again after its file was removed
    for item in list(items):
        if item.instance.sop_uid in known and item.arrival.name not in done:
            try:
                repeats[item.arrival.name] = _compare(known[item.instance.sop_uid], item)
                if known[item.instance.sop_uid].removed:
                    digests[item.arrival.name] = fingerprint(item.arrival.path)[1]
            except UnreadableObject as error:
                _quarantine(house, item.arrival, error.reason, now)
                items.remove(item)
    batch = _Batch()
    with house.store.write() as session:
        rows = studies.find_instances(session, known)
        studies.lock(session, {row.study_id for row in rows.values()})
        for item in items:
            row = rows.get(item.instance.sop_uid)
            if row is not None and item.arrival.name in done:
                batch.moves.append((item.arrival.path, studies.instance_path(row)))  # a crash came between commit and move
            elif row is not None:
                _take_repeat(house, session, batch, _Repeated(item, row, repeats[item.arrival.name], digests.get(item.arrival.name, "")), now)
            else:
                _take_new(house, session, batch, item)
        batch.studies |= obey(house, session, [(item.arrival, item.instance.sop_uid, item.rejection) for item in items if item.rejection], now)
        batch.remarks += refuse_again(session, [item.instance.sop_uid for item in items if item.instance.sop_uid not in known])
        for study_id in batch.studies:
            wake_where_all_is_here(house, session, _settle_identity(session, study_id, batch, now), now)
    crash.passed("indexed")
    _carry_out(house, batch)
    for event, values in batch.remarks:
        house.log.info(event, **values)


def _known(house: House, row: InstanceRow) -> _Known:
    return _Known(house.data / studies.instance_path(row), row.series.study.study_uid, row.own, row.removed_at is not None)


def _finish_moves(house: House, rows: Iterable[InstanceRow]) -> None:
    """Bring into place what a crash left in the spool after its row was committed.

    Usually the arrival itself is met again and moved. A repeat of it can come before it, though: where the clock was set back in between,
    the repeat has the earlier name. It is to be compared with the file of the row, and the file that it supersedes has to be kept.
    """
    missing = [(row.arrival, studies.instance_path(row)) for row in rows if not (house.data / studies.instance_path(row)).exists()]
    left = [(source, path) for name, path in missing if (source := house.spool.find(name)) is not None]
    if left:
        _carry_out(house, _Batch(moves=left))


def _compare(known: _Known, item: _Item) -> grouping.Repeat:
    """Compare a repeat with what is here; raises `UnreadableObject` where the new object is the one that cannot be read."""
    if known.own:
        return grouping.Repeat(grouping.Likeness.SAME, "it is a result of this node")
    if item.instance.study_uid != known.study_uid:
        return grouping.Repeat(grouping.Likeness.CONFLICT, "the same SOP Instance UID is known from another study")
    if known.removed:
        grouping.ensure_readable(item.arrival.path)
        return grouping.Repeat(grouping.Likeness.IDENTITY_CHANGED, "the object received before has been removed since")  # see `_bring_back`
    try:
        return grouping.compare(known.path, item.arrival.path)
    except UnreadableObject:
        grouping.ensure_readable(item.arrival.path)
        return grouping.Repeat(grouping.Likeness.IDENTITY_CHANGED, "the object received before cannot be read")  # the whole one takes its place


@dataclass(frozen=True)
class _Repeated:
    item: _Item
    row: InstanceRow
    repeat: grouping.Repeat
    digest: str  # of the new dataset, where the file of the old one was removed


def _take_new(house: House, session: Session, batch: _Batch, item: _Item) -> None:
    facts = {"accession": item.accession, "description": item.description}
    study = studies.ensure_study(session, item.instance, item.arrival, facts)
    row = studies.add_instance(session, studies.ensure_series(session, study, item.series), item.instance, item.arrival, own=item.own)
    study.removed_at = None
    batch.moves.append((item.arrival.path, studies.instance_path(row)))
    if not item.own:
        studies.reopen(study, item.arrival.received_at, house.patience)
        batch.studies.add(study.id)


def _take_repeat(house: House, session: Session, batch: _Batch, repeated: _Repeated, now: datetime) -> None:
    arrival, study, repeat = repeated.item.arrival, repeated.row.series.study, repeated.repeat
    facts: dict[str, object] = {"study": study_tag(study.study_uid), "sender": arrival.sender.calling_ae, "why": repeat.why}
    if repeated.row.rejected and accept_again(session, repeated.row):
        studies.reopen(study, arrival.received_at, house.patience)
        batch.remarks.append(("received again after it was removed elsewhere", facts))
    if repeated.row.removed_at is not None and not repeated.row.own and repeated.item.instance.study_uid == study.study_uid:
        same = _bring_back(house, session, batch, repeated, now)
        batch.remarks.append(("received again after its removal", facts | {"same": same}))
        return
    match repeat.likeness:
        case grouping.Likeness.SAME | grouping.Likeness.SAME_PIXELS:
            batch.drops.append(arrival)
            batch.remarks.append(("duplicate", facts))
        case grouping.Likeness.IDENTITY_CHANGED:
            _correct(house, session, batch, repeated, now)
            batch.remarks.append(("corrected", facts))
        case grouping.Likeness.CONFLICT:
            path = f"aside/{arrival.name}.dcm"
            reason = f"SOP Instance UID {repeated.row.sop_uid} is known with other content: {repeat.why}"
            row = AsideRow(kind="conflict", reason=reason, path=path, sop_uid=repeated.row.sop_uid, study_uid=study.study_uid, received_at=arrival.received_at)
            row.calling_ae = arrival.sender.calling_ae[:16]
            if studies.add_aside(session, row):
                raise_alert(session, "conflict", f"file {arrival.name}"[:96], f"kept aside: {reason}", now)
                house.log.error("alert", kind="conflict", **facts)
            batch.moves.append((arrival.path, path))


def _correct(house: House, session: Session, batch: _Batch, repeated: _Repeated, now: datetime) -> None:
    """Take a corrected object in the place of the old one; what runs on the old one is withdrawn."""
    item, study = repeated.item, repeated.row.series.study
    before = repeated.row.identity
    old = studies.replace_instance(repeated.row, item.instance, item.arrival)
    reason = f"replaced by a corrected object: {repeated.repeat.why}"
    aside = AsideRow(kind="superseded", reason=reason, path=old, sop_uid=repeated.row.sop_uid, study_uid=study.study_uid, received_at=item.arrival.received_at)
    studies.add_aside(session, aside)
    _withdraw(house, session, repeated, before, now)
    studies.reopen(study, item.arrival.received_at, house.patience)
    batch.moves.append((item.arrival.path, studies.instance_path(repeated.row)))
    batch.studies.add(study.id)


def _withdraw(house: House, session: Session, repeated: _Repeated, before: list[str], now: datetime) -> None:
    """Stop what runs on an object as it was; ``before``: the patient it named. What is out under another identity is said."""
    study = repeated.row.series.study
    jobs.cancel_unfinished(session, study.id, now, "an object of the study was corrected")
    deliveries.cancel_unfinished(session, study.id, "an object of the study was corrected")
    originals.cancel(session, repeated.row.id, "the instance was corrected")
    if repeated.row.identity != before:
        say_old_identity(house, session, study.id, now)


def _bring_back(house: House, session: Session, batch: _Batch, repeated: _Repeated, now: datetime) -> bool:
    """Take an object in again whose file was removed; returns whether it is byte for byte what it was.

    Then the study gathers again and makes no new job, unless something else came with it. Other bytes count as another version: nobody can
    tell any more what differs.
    """
    row, item = repeated.row, repeated.item
    study, before = row.series.study, row.identity
    same = repeated.digest == row.fingerprint != "" and row.transfer_syntax_uid == item.instance.transfer_syntax_uid
    studies.bring_back(row, item.instance, item.arrival, same=same)
    if row.identity != before:
        _withdraw(house, session, repeated, before, now)
    study.removed_at = None
    studies.reopen(study, item.arrival.received_at, house.patience)
    batch.moves.append((item.arrival.path, studies.instance_path(row)))
    batch.studies.add(study.id)
    return same


def say_old_identity(house: House, session: Session, study_id: int, now: datetime) -> None:
    """Raise the alert that results or originals are out under a patient identity that is known to be wrong, where there are any."""
    results, places = deliveries.delivered_count(session, study_id), originals.delivered_before_correction(session, study_id)
    sent = [f"{results} results"] * bool(results) + [f"{count} original instances (to {name})" for name, count in places.items()]
    if not sent:
        return
    message = (
        f"{' and '.join(sent)} of study {study_id} were delivered under a patient identity that has been corrected since: have them rejected in the archive"
    )
    if raise_alert(session, "identity", f"study {study_id}", message, now):
        house.log.error("alert", kind="identity", subject=f"study {study_id}", message=message)


def _settle_identity(session: Session, study_id: int, batch: _Batch, now: datetime) -> StudyRow:
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
        audit(session, "core", "held", f"study {study.id}", {"identities": len(found)}, now)
    elif study.held_reason:
        study.held_reason = ""
        if clear_alert(session, "held", f"study {study.id}", now):
            batch.remarks.append(("study freed", {"study": study_tag(study.study_uid), "why": "a corrected re-send made the patient identity one"}))
    return study


def is_mixed(study: StudyRow) -> bool:
    """Tell whether a study's instances name patients that nobody declared to be one."""
    found = studies.identities(study)
    return len(found) > 1 and any("\x1f".join(key) not in study.released_identities for key in found)


def _carry_out(house: House, batch: _Batch) -> None:
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
