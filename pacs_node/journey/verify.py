"""Before anything of a study goes to an archive with `verify_identity`: whether the archive knows the same patient and order under its UID.

::

    the same, or one side says nothing   ─► goes out
    another patient or order             ─► held, an alert; looked at again every hour, after corrections, or released by an operator
    the study is not known there         ─► originals go out; results wait with back-off, and are parked in the end
    the archive cannot be asked          ─► a temporary failure like any other
"""

from __future__ import annotations

from datetime import timedelta

from pydicom.dataset import Dataset

from pacs_node.config import Destination, DicomDestination
from pacs_node.database import holds
from pacs_node.database.alerts import audit, clear_alert, raise_alert
from pacs_node.database.tables import DeliveryRow, StudyRow
from pacs_node.delivery import agreement, query
from pacs_node.dicom.header import normalised
from pacs_node.errors import NotKnownYet
from pacs_node.journey import House

LOOK_AGAIN = timedelta(hours=1)  # at what is held, in case the archive was corrected


def held(house: House, name: str, destination: Destination, row: DeliveryRow) -> bool:
    """Tell whether what a study has for a destination is held, and put it off where it is; ``row`` is one of the group that is to go.

    Raises `TemporaryFailure` where the archive cannot be asked, `NotKnownYet` where it does not know the study that results belong to.
    """
    if not isinstance(destination, DicomDestination) or not destination.verify_identity:
        return False
    with house.store.read() as session:
        study = session.get_one(StudyRow, row.study_id)
        ours, uid = _facts(study), study.study_uid
    answers = query.study(destination, house.settings.node.ae_titles[0], uid)
    if not answers and row.instance_id is None:
        raise NotKnownYet(name, "does not know the study that the results belong to yet (verify_identity)")
    return _judge(house, name, row.study_id, uid, ours, answers)


def _facts(study: StudyRow) -> list[str]:
    return [study.patient_id, study.issuer, study.patient_name, study.birth_date, normalised(study.accession)]


def _judge(house: House, name: str, study_id: int, study_uid: str, ours: list[str], answers: list[Dataset]) -> bool:
    subject, moment = f"study {study_id} at {name}"[:96], house.clock()
    wrong = next((theirs for answer in answers if agreement.differences(ours, theirs := agreement.facts_of(answer))), None)
    with house.store.write() as session:
        known = holds.of(session, study_id, name)
        if wrong is None:
            if known is not None:
                holds.forget(session, study_id, name, moment)
            clear_alert(session, "verify", subject, moment)
            return False
        if holds.released(known, ours, wrong):
            clear_alert(session, "verify", subject, moment)
            return False
        fields = " and ".join(agreement.differences(ours, wrong))
        message = (
            f"nothing of study {study_id} goes to {name}, which knows the study with another {fields}. Correct it there or here, or run "
            f"`pacs-node release {study_id}` if both mean the same; it is asked again every hour, and at once by `pacs-node retry delivery`"
        )
        holds.note(session, study_id, name, ours, wrong, moment)
        holds.put_off(session, study_id, name, moment + LOOK_AGAIN, f"held: {name} knows the study with another {fields}")
        if raise_alert(session, "verify", subject, message, moment):
            audit(session, "delivery", "held", f"study {study_id}", {"study_uid": study_uid, "destination": name}, moment)
            house.log.error("alert", kind="verify", subject=subject, message=message)
    return True
