"""A later run's results have arrived where those of an earlier one lie: where the destination wants it, a rejection note for these follows.

::

    report of a re-run delivered (afterwards noted) ─► all of its run is there ─► note built, checked, saved ─► one commit: the note in the outbox

What a report is to be followed by is noted in the commit of its arrival, so that a process that dies in between finds it again. A note of ours that comes
back is known by its equipment and rejects nothing here (`arriving`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pacs_node.config import Destination, FolderDestination
from pacs_node.database import deliveries, superseded
from pacs_node.database.alerts import audit
from pacs_node.database.states import DeliveryState
from pacs_node.database.tables import DeliveryRow, ObjectRow
from pacs_node.dicom.header import DAMAGED, identity, read_header, text_of
from pacs_node.errors import DatabaseUnavailable, PacsNodeError, ResultRejected
from pacs_node.journey import House
from pacs_node.journey.fallback import REPORTS, ensure, stored_object
from pacs_node.journey.noting import of_delivery
from pacs_node.records import ResultObject

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from pacs_node.results import Reference

_POSITION = 9  # in its group: after everything else


def follows(destination: Destination | None, row: DeliveryRow) -> str:
    """Return what is to be made once a delivered object's run has arrived whole: `superseded.NOTE` after the report of a re-run, else ""."""
    if destination is None or isinstance(destination, FolderDestination) or not destination.reject_superseded:
        return ""
    return superseded.NOTE if row.object is not None and row.kind in REPORTS and row.object.run > 1 else ""


def make_due(house: House, name: str, moment: datetime) -> None:
    """Make the notes that are due at a destination."""
    destination = house.settings.destinations[name]
    if isinstance(destination, FolderDestination) or not destination.reject_superseded:
        return
    with house.store.read() as session:
        due = [(row, superseded.by(session, row)) for row in superseded.ripe(session, name)]
    for row, earlier in due:
        try:
            made = _make(house, row, earlier)
        except DatabaseUnavailable:
            raise  # it stays to be done
        except (PacsNodeError, OSError, *DAMAGED) as error:
            made = None
            house.alert(superseded.NOTE, f"delivery {row.id}", f"the results that job {row.job_id} replaces at {name} could not be rejected there: {error}")
        _commit(house, row, made, moment)


def _make(house: House, row: DeliveryRow, earlier: Sequence[DeliveryRow]) -> ObjectRow | None:
    """Build, save and check the note; None where nothing is to be rejected."""
    from pacs_node import results

    assert row.object is not None
    origin, report = row.object, stored_object(house, row.object)
    known = [one.object for one in earlier if one.object is not None and _of_the_same_patient(house, one.object, report)]
    if len(known) < len(earlier):
        house.log.warning("not rejected", job=row.job_id, objects=len(earlier) - len(known), why="their files are gone, or name another patient")
    if not known:
        return None
    references = [results.Reference(text_of(report, "StudyInstanceUID"), obj.series_uid, obj.sop_class_uid, obj.sop_uid) for obj in known]
    note = results.rejection_note(report, origin.run, references, house.settings.node.uid_root)
    return _keep(house, row, note, report, references)


def _of_the_same_patient(house: House, obj: ObjectRow, report: Dataset) -> bool:
    """Tell whether an earlier object lies under the patient of the report: what was filed under another identity is a person's to have rejected."""
    try:
        return identity(read_header(house.data / obj.path)) == identity(report)
    except (PacsNodeError, OSError):
        return False


def _keep(house: House, row: DeliveryRow, note: Dataset, report: Dataset, references: Sequence[Reference]) -> ObjectRow:
    from pacs_node import results

    assert row.object is not None
    origin = row.object
    folder, name = f"{Path(origin.path).parent}~{row.id}", f"{_POSITION:03d}-{superseded.NOTE}.dcm"
    path = house.folder(folder) / name
    sha256 = results.save(ResultObject(superseded.NOTE, note, _POSITION), path)
    faults = results.check(note, results.sources_as_stored(report), [results.header_of(report, reference) for reference in references])
    own, _ = results.dciodvfy(path, house.data / origin.path)
    if faults or own:
        raise ResultRejected(superseded.NOTE, (*faults, *own))
    return ObjectRow(
        job_id=origin.job_id,
        run=origin.run,
        variant=f"{origin.variant.partition('~')[0]}~{row.id}",
        kind=superseded.NOTE,
        sop_uid=str(note.SOPInstanceUID),
        sop_class_uid=str(note.SOPClassUID),
        series_uid=str(note.SeriesInstanceUID),
        transfer_syntax_uid=str(note.file_meta.TransferSyntaxUID),
        path=f"{folder}/{name}",
        sha256=sha256,
        position=_POSITION,
        size=path.stat().st_size,
    )


def _commit(house: House, row: DeliveryRow, note: ObjectRow | None, moment: datetime) -> None:
    with house.store.write() as session:
        current = deliveries.get(session, row.id)
        if current is None or not current.afterwards or current.state is not DeliveryState.DELIVERED:
            return
        current.afterwards = ""
        if note is not None:
            deliveries.add_after(session, current, ensure(session, note), _POSITION, moment)
            audit(session, "delivery", "superseded", f"job {row.job_id}", {**of_delivery(house.settings, current), "run": note.run}, moment)
    if note is not None:
        house.log.info("earlier results rejected", destination=row.destination, job=row.job_id, run=note.run)
