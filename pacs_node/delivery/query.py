"""Asking a destination what it holds: C-FIND of the Study Root information model (PS3.4 C.4.1, C.6.2)."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pynetdicom import build_context

from pacs_node.config import DicomDestination
from pacs_node.delivery.association import Timeouts, associated, place, requestor
from pacs_node.dicom.header import text_of
from pacs_node.dicom.statuses import SUCCESS
from pacs_node.errors import TemporaryFailure

STUDY_ROOT_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
PENDING = (0xFF00, 0xFF01)  # PS3.4 C.4.1.1.4
_MOST_ANSWERS = 1000  # to one question; a peer that gives more did not understand it
_QUICK = Timeouts(connect=10.0, associate=30.0, response=30.0)

_ON_THE_STUDY = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "AccessionNumber")


def find(destination: DicomDestination, calling_ae: str, level: str, keys: Mapping[str, str], timeouts: Timeouts = _QUICK) -> list[Dataset]:
    """Ask for what matches ``keys`` (keyword → value, ``""`` where the value is asked for) at a level: STUDY, SERIES or IMAGE.

    Raises `TemporaryFailure` where the destination cannot be had, accepts no such query, or fails in the middle of its answer.
    """
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(identifier, keyword, value)
    answers: list[Dataset] = []
    with associated(destination, requestor(calling_ae, timeouts), [build_context(STUDY_ROOT_FIND)]) as association:
        if not association.accepted_contexts:
            raise TemporaryFailure(place(destination), "takes no queries (Study Root C-FIND): let it accept them from this node")
        try:
            for status, answer in association.send_c_find(identifier, STUDY_ROOT_FIND):
                _check(destination, status)
                if answer is not None and status.Status in PENDING and len(answers) < _MOST_ANSWERS:
                    answers.append(answer)
        except RuntimeError as error:  # pynetdicom: no association any more
            raise TemporaryFailure(place(destination), "closed the association before it was asked") from error
    return answers


def _check(destination: DicomDestination, status: Dataset) -> None:
    if "Status" not in status:
        raise TemporaryFailure(place(destination), "gave no answer to C-FIND: see that it knows our AE title, and lets it query")
    if status.Status != SUCCESS and status.Status not in PENDING:
        raise TemporaryFailure(place(destination), f"could not answer C-FIND: {text_of(status, 'ErrorComment') or 'no reason given'}", int(status.Status))


def is_there(destination: DicomDestination, calling_ae: str, header: Dataset, timeouts: Timeouts = _QUICK) -> bool:
    """Tell whether the destination holds the very instance that ``header`` describes: UID, place in study and series, and class."""
    unique = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    keys = {keyword: text_of(header, keyword) for keyword in unique} | {"SOPClassUID": ""}
    for answer in find(destination, calling_ae, "IMAGE", keys, timeouts):
        said = {keyword: text_of(answer, keyword) for keyword in (*unique, "SOPClassUID")}
        if said["SOPInstanceUID"] == keys["SOPInstanceUID"] and all(value in ("", text_of(header, keyword)) for keyword, value in said.items()):
            return True
    return False


def study(destination: DicomDestination, calling_ae: str, study_uid: str, timeouts: Timeouts = _QUICK) -> list[Dataset]:
    """Return what the destination says about patient and order of a study: nothing where it does not know it, more than one where it is not sure."""
    keys = dict.fromkeys(_ON_THE_STUDY, "") | {"StudyInstanceUID": study_uid}
    answers = find(destination, calling_ae, "STUDY", keys, timeouts)
    return [answer for answer in answers if text_of(answer, "StudyInstanceUID") in ("", study_uid)]
