"""A destination does not take a kind of object: the configured fallback kind is made from the stored object and goes in its place.

::

    refused (fallback noted) ─► stand-in built, checked, saved ─► one commit: refused → replaced, the stand-in and what refers to it in the outbox
    refused, nothing stands in for it ─► the report made anew without it ─► one commit: that report in the outbox, the refusal is said

What is refused says in the same commit that something is to go in its place, so that a process that dies in between finds it again. Until it is
made, what comes after it in its group waits; a report that points at the refused object is made anew to point at what stands in for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.config import Destination, FolderDestination
from pacs_node.database import deliveries
from pacs_node.database.alerts import audit, clear_alert
from pacs_node.database.engine import add_new
from pacs_node.database.states import DeliveryState, move
from pacs_node.database.tables import DeliveryRow, ObjectRow
from pacs_node.dicom.header import DAMAGED, read_object, text_of
from pacs_node.errors import DatabaseUnavailable, PacsNodeError, ResultRejected
from pacs_node.journey import House
from pacs_node.journey.noting import of_delivery
from pacs_node.journey.telling import say_stuck
from pacs_node.records import Outcome, ResultObject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacs_node.results import Reference

_AGAIN = timedelta(minutes=1)  # after the disk did not take what was made
REPORTS = ("sr", "enhanced-sr")  # kinds that point at others
_POINTED_AT = ("pm", "seg", "sc", "denoised", "raw")
NOTHING = "nothing"  # noted where no kind is to go in the place of a refused one, but a report may point at it


def kind_instead(destination: Destination, row: DeliveryRow, outcome: Outcome) -> str:
    """Return the kind that is to go in the place of a refused object, `NOTHING` where none is but reports have to be made anew, else ""."""
    if row.object is None or not outcome.unsupported or isinstance(destination, FolderDestination):
        return ""
    return destination.fallback.get(row.kind, NOTHING if row.kind in _POINTED_AT else "")


@dataclass
class _Made:
    """What one refusal leads to: new objects, and reports that are made anew to refer to them."""

    instead: list[ObjectRow]
    reports: dict[int, ObjectRow]  # delivery → the report that it sends from now on


def make_due(house: House, name: str, moment: datetime) -> int:
    """Make what is to go in the place of objects that a destination has refused; returns how many refusals were dealt with."""
    with house.store.read() as session:
        due = deliveries.to_replace(session, name, moment)
        companions = {row.id: deliveries.of_run(session, row) for row in due}
    for row in due:
        try:
            made = _make(house, row, companions[row.id])
            _commit(house, row, made, moment)
        except OSError as error:  # the disk: it stays to be done
            _put_off(house, row, f"{type(error).__name__}: {error}", moment + _AGAIN)
        except DatabaseUnavailable:
            raise  # it stays to be done
        except (PacsNodeError, *DAMAGED) as error:
            _give_up(house, row, str(error), moment)
    return len(due)


# --- making --------------------------------------------------------------------------------------------------------------


def _make(house: House, row: DeliveryRow, companions: Sequence[DeliveryRow]) -> _Made:
    from pacs_node import results  # heavy, and needed only where something was refused

    assert row.object is not None
    stored, root = stored_object(house, row.object), house.settings.node.uid_root
    study_uid = text_of(stored, "StudyInstanceUID")
    lacking = _lacking(companions, row, study_uid)
    made = () if row.fallback == NOTHING else results.stand_ins(stored, row.fallback, lacking, root)
    found = [_keep(house, row, row.object, row.fallback, _Change(dataset, stored, lacking)) for dataset in made]
    targets = {**lacking, row.sop_uid: [results.Reference(study_uid, obj.series_uid, obj.sop_class_uid, obj.sop_uid) for obj in found]}
    reports = {}
    for other in companions:
        if other.id != row.id and other.state is DeliveryState.WAITING and other.kind in REPORTS and other.object is not None:
            report = stored_object(house, other.object)
            if results.refers_to(report, [row.sop_uid]):
                change = _Change(results.redirected(report, targets, root), report, targets)
                reports[other.id] = _keep(house, row, other.object, other.kind, change)
    return _Made(found, reports)


def stored_object(house: House, obj: ObjectRow) -> Dataset:
    """Read an object as it was built; raises `ResultRejected` where its file is another."""
    path = house.data / obj.path
    if hashlib.sha256(path.read_bytes()).hexdigest() != obj.sha256:
        raise ResultRejected(obj.kind, (f"the stored file {path} is not what was built: run the job again",))
    return read_object(path)


def _lacking(companions: Sequence[DeliveryRow], row: DeliveryRow, study_uid: str) -> dict[str, Sequence[Reference]]:
    """Return what else of the build this destination did not take, with what it got in its place: nothing where nothing stands in."""
    from pacs_node.results import Reference

    objects = [one.object for one in companions if one.object is not None]
    refused = [one for one in companions if one.state in (DeliveryState.REFUSED, DeliveryState.REPLACED) and one.id != row.id]
    return {
        one.sop_uid: [Reference(study_uid, obj.series_uid, obj.sop_class_uid, obj.sop_uid) for obj in objects if obj.stands_for == one.sop_uid]
        for one in refused
    }


@dataclass(frozen=True)
class _Change:
    """A dataset, the stored object that it was made from, and what it refers to instead of what that one refers to."""

    dataset: Dataset
    stored: Dataset
    replacements: Mapping[str, Sequence[Reference]]


def _keep(house: House, row: DeliveryRow, origin: ObjectRow, kind: str, change: _Change) -> ObjectRow:
    """Save an object beside the one that it comes from, let it pass the gate, and return its row. ``row`` is the refusal that led to it."""
    from pacs_node import results

    dataset = change.dataset
    folder, name = f"{Path(origin.path).parent}~{row.id}", f"{origin.position:03d}-{kind}-{int(dataset.InstanceNumber)}.dcm"
    path = house.folder(folder) / name
    sha256 = results.save(ResultObject(kind, dataset, origin.position), path)
    others = [results.header_of(change.stored, reference) for found in change.replacements.values() for reference in found]
    faults = results.check(dataset, results.sources_as_stored(change.stored), others)
    own, _ = results.dciodvfy(path, house.data / origin.path)
    if faults or own:
        raise ResultRejected(kind, (*faults, *own))
    return ObjectRow(
        job_id=origin.job_id,
        run=origin.run,
        variant=f"{origin.variant.partition('~')[0]}~{row.id}",
        kind=kind,
        sop_uid=str(dataset.SOPInstanceUID),
        sop_class_uid=str(dataset.SOPClassUID),
        series_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
        path=f"{folder}/{name}",
        sha256=sha256,
        position=origin.position,
        size=path.stat().st_size,
        stands_for=origin.sop_uid,
    )


# --- committing ----------------------------------------------------------------------------------------------------------


def _commit(house: House, row: DeliveryRow, made: _Made, moment: datetime) -> None:
    with house.store.write() as session:
        current = deliveries.get(session, row.id)
        if current is None or current.state is not DeliveryState.REFUSED or current.fallback != row.fallback:
            return  # withdrawn, or sent again by an operator meanwhile
        for obj in made.instead:
            deliveries.add_instead(session, current, ensure(session, obj), moment)
        for number, report in made.reports.items():
            other = deliveries.get(session, number)
            if other is not None and other.state is DeliveryState.WAITING:
                other.object_id = ensure(session, report)
        if row.fallback == NOTHING:
            current.fallback = ""
            say_stuck(house, session, current, "refused", current.message, moment)
            return
        current.state, current.fallback = move(current.state, DeliveryState.REPLACED), ""
        current.message = f"{row.message}; {len(made.instead)} {row.fallback} went into the outbox in its place"
        clear_alert(session, "fallback", f"delivery {row.id}", moment)
        audit(session, "delivery", "replaced", f"object {row.object_id}", {**of_delivery(house.settings, current), "by": row.fallback}, moment)
    house.log.warning("kind replaced", destination=row.destination, job=row.job_id, kind=row.kind, by=row.fallback, objects=len(made.instead))


def ensure(session: Session, obj: ObjectRow) -> int:
    """Return the number of an object, noted now unless it was made for another destination before."""
    number = add_new(session, obj, ObjectRow.sop_uid)
    return number if number is not None else session.scalars(select(ObjectRow.id).where(ObjectRow.sop_uid == obj.sop_uid)).one()


def _put_off(house: House, row: DeliveryRow, problem: str, until: datetime) -> None:
    with house.store.write() as session:
        current = deliveries.get(session, row.id)
        if current is not None:
            current.next_attempt_at = until
    subject, what = f"delivery {row.id}", "the report without it," if row.fallback == NOTHING else f"the {row.fallback}"
    house.alert("fallback", subject, f"{what} in the place of {subject} (job {row.job_id}, {row.kind}) cannot be written yet: {problem}")


def _give_up(house: House, row: DeliveryRow, problem: str, moment: datetime) -> None:
    with house.store.write() as session:
        current = deliveries.get(session, row.id)
        if current is None or current.state is not DeliveryState.REFUSED:
            return
        lacking = "the report could not be made anew without it" if row.fallback == NOTHING else f"no {row.fallback} could be made in its place"
        current.fallback, current.message = "", f"{row.message}; {lacking}: {problem}"
        say_stuck(house, session, current, "refused", current.message, moment)
