"""A phantom on a schedule: sent to the node's own port over a real association, through rules, analysis and delivery, and timed.

Which rules fire is as for any study of its kind; where results go is not: one destination, a folder or one that is marked as test, gets all
of it (`routing.divert`), and nothing is forwarded. Its study is no patient's: it counts in no statistics, and its files go after an hour.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from pacs_node.config import DicomDestination, FolderDestination, Heartbeat, Settings
from pacs_node.database import deliveries, heartbeats, jobs, removal, studies
from pacs_node.database.alerts import clear_alert, raise_alert
from pacs_node.database.states import DeliveryState, JobState
from pacs_node.database.tables import DeliveryRow, HeartbeatRow, JobRow, StudyRow
from pacs_node.delivery import cstore
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError, TemporaryFailure
from pacs_node.journey import House
from pacs_node.journey.retire import work_off
from pacs_node.records import HEARTBEAT_PATIENT, Outcome, Parcel
from pacs_node.retention import sweep
from pacs_node.retention.policy import in_words

KEPT = timedelta(hours=1)  # its files, after its end
_SUBJECT = "heartbeat"
_SEED = 20_240_101
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_ANYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens everywhere is called here


def beat(house: House, now: datetime) -> None:
    """See what became of heartbeats, send one where it is due, and remove what the old ones left."""
    follow(house, now)
    forget(house, now)
    wanted = house.settings.heartbeat
    if wanted is None:
        return
    with house.store.read() as session:
        last = heartbeats.latest(session)
    if last is None or not timedelta() <= now - last.begun_at < wanted.every:
        send(house, wanted, now)


# --- sending -------------------------------------------------------------------------------------------------------------


def send(house: House, wanted: Heartbeat, now: datetime) -> None:
    """Make a phantom and send it to the node's own port."""
    study_uid = derive_uid("heartbeat", house.settings.node.name, now.isoformat())
    with house.store.write() as session:
        number = heartbeats.begin(session, study_uid, now)
    folder, failed = house.folder(f"heartbeat/{number}"), list[Outcome]()
    try:
        parcels = _write(_phantom(wanted, study_uid), folder)
        cstore.deliver(own_port(house.settings, wanted), parcels, _calling(house.settings, wanted), lambda one: None if one.delivered else failed.append(one))
        problem = f"{len(failed)} of {len(parcels)} instances were not taken: {failed[0].message}" if failed else ""
    except (TemporaryFailure, InputError) as error:
        problem = f"it could not be sent: {error}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with house.store.write() as session:
        row = session.get_one(HeartbeatRow, number)
        row.sent_at = None if problem else house.clock()
        row.problem = problem
    house.log.info("heartbeat sent" if not problem else "heartbeat not sent", heartbeat=number, problem=problem or None)


def own_port(settings: Settings, wanted: Heartbeat) -> DicomDestination:
    """Return the node itself as a destination."""
    address, node = wanted.address or settings.node.address, settings.node
    facts = {"ae_title": node.ae_titles[0], "address": _ANYWHERE.get(address, address), "port": wanted.port or node.port}
    return DicomDestination.model_validate({"kind": "dicom", **facts})


def _calling(settings: Settings, wanted: Heartbeat) -> str:
    return wanted.sent_as or settings.node.ae_titles[0]


def _phantom(wanted: Heartbeat, study_uid: str) -> list[Dataset]:
    """Return a phantom under the reserved identity, with UIDs of its own each time."""
    from pacs_node.phantoms import PhantomSpec, make_study  # only where a heartbeat is asked for: it loads scipy

    images = make_study(PhantomSpec(modality=wanted.modality, region=wanted.region or "", slices=wanted.slices, seed=_SEED))
    for image in images:
        image.PatientID, image.PatientName, image.AccessionNumber = HEARTBEAT_PATIENT, "Heartbeat^pacs-node", ""
        for keyword in _UIDS:
            if keyword in image:
                setattr(image, keyword, study_uid if keyword == "StudyInstanceUID" else derive_uid(study_uid, image[keyword].value))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    return images


def _write(images: Sequence[Dataset], folder: Path) -> list[Parcel]:
    parcels = []
    for number, image in enumerate(images):
        path = folder / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        parcels.append(Parcel(str(image.SOPInstanceUID), str(image.SOPClassUID), str(image.file_meta.TransferSyntaxUID), path, original=True))
    return parcels


# --- following -----------------------------------------------------------------------------------------------------------


def follow(house: House, now: datetime) -> None:
    """Note how far each heartbeat has come; one that is not back in time raises the alert, and the next that is takes it back."""
    with house.store.read() as session:
        if not heartbeats.under_way(session):
            return
    limit = house.settings.heartbeat.within if house.settings.heartbeat is not None else timedelta()
    with house.store.write() as session:
        for row in heartbeats.under_way(session):
            where = _look(session, row)
            if row.delivered_at is not None and row.delivered_at - row.begun_at <= limit:
                row.ended_at = row.delivered_at
                clear_alert(session, _SUBJECT, _SUBJECT, now)
                house.log.info("heartbeat back", heartbeat=row.id, seconds=round((row.delivered_at - row.begun_at).total_seconds(), 1))
            elif not timedelta() <= now - row.begun_at <= limit:
                row.ended_at, row.problem = now, row.problem or where
                text = f"the heartbeat of {row.begun_at:%Y-%m-%d %H:%M:%S} UTC was not back after {in_words(limit)}: {row.problem}"
                if house.settings.heartbeat is not None and raise_alert(session, _SUBJECT, _SUBJECT, text, now):
                    house.log.error("alert", kind=_SUBJECT, subject=_SUBJECT, message=text)


def _look(session: Session, row: HeartbeatRow) -> str:
    """Write down the moments that are known by now; returns in words how far it has come."""
    study = session.scalars(select(StudyRow).where(StudyRow.study_uid == row.study_uid)).one_or_none()
    if study is None:
        return "it was not taken into the index"
    row.received_at = study.first_arrival
    made = session.scalars(select(JobRow).where(JobRow.study_id == study.id)).all()
    if not made:
        return f"no job was made of it ({study.outcome or study.waiting_for or study.state.value})"
    if open_jobs := [job for job in made if job.state is not JobState.DONE]:
        return f"job {open_jobs[0].id} is {open_jobs[0].state.value}"
    row.analysed_at = max(job.finished_at for job in made if job.finished_at is not None)
    sent = session.scalars(select(DeliveryRow).where(DeliveryRow.study_id == study.id)).all()
    if not sent:
        return "its analysis made nothing that its destination takes"
    if late := [one for one in sent if one.state is not DeliveryState.DELIVERED]:
        return f"delivery {late[0].id} to {late[0].destination} is {late[0].state.value}"
    row.delivered_at = max(one.delivered_at for one in sent if one.delivered_at is not None)
    return "it came back too late"


# --- forgetting ----------------------------------------------------------------------------------------------------------


def forget(house: House, now: datetime) -> None:
    """Remove the files of old heartbeats, here and in a destination folder; nothing while a backup holds the files."""
    with house.store.read() as session:
        old = [row.id for row in heartbeats.to_sweep(session, now - KEPT)]
    if not old:
        return
    with sweep.unpinned(house.data) as free:
        if not free:
            return
        for number in old:
            with house.store.write() as session:
                row = session.get_one(HeartbeatRow, number)
                copies = _give_up(house, session, row, now)
                row.swept_at = now
            for copy in copies:
                copy.unlink(missing_ok=True)
        work_off(house)


def _give_up(house: House, session: Session, row: HeartbeatRow, now: datetime) -> list[Path]:
    """Withdraw what goes on, list the files for removal; returns the copies that lie in a destination folder."""
    study = session.scalars(select(StudyRow).where(StudyRow.study_uid == row.study_uid)).one_or_none()
    if study is None or not heartbeats.is_heartbeat(study):
        return []
    studies.lock(session, [study.id])
    reason = "it is a heartbeat, whose files stay for an hour"
    jobs.cancel_unfinished(session, study.id, now, reason)
    deliveries.cancel_unfinished(session, study.id, reason)
    copies = _copies(house, session, study.id)
    for job in session.scalars(select(JobRow).where(JobRow.study_id == study.id, JobRow.removed_at.is_(None))).all():
        removal.retire_results(session, job, now, reason)
    if study.removed_at is None:
        study.look_again_at = None
        removal.retire_study(session, study, {studies.instance_path(one): "" for one in removal.files_of(session, study.id)}, now, reason)
    return copies


def _copies(house: House, session: Session, study_id: int) -> list[Path]:
    found = []
    for one in session.scalars(select(DeliveryRow).where(DeliveryRow.study_id == study_id, DeliveryRow.state == DeliveryState.DELIVERED)):
        place, path = house.settings.destinations.get(one.destination), Path(one.message)
        if isinstance(place, FolderDestination) and path.name == f"{one.sop_uid}.dcm" and place.path.resolve() in path.resolve().parents:
            found.append(path)
    return found
