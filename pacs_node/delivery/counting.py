"""How many instances an archive has of a study, and having them sent (C-FIND and C-MOVE at SERIES level, PS3.4 C.4.2, C.6.2)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset
from pynetdicom import build_context

from pacs_node.config import DicomDestination
from pacs_node.delivery.association import Timeouts, associated, place, requestor
from pacs_node.delivery.query import PENDING, find
from pacs_node.dicom.header import number_of, text_of
from pacs_node.dicom.statuses import SUCCESS
from pacs_node.errors import TemporaryFailure, UnknownToArchive
from pacs_node.records import SeriesCount

STUDY_ROOT_MOVE = "1.2.840.10008.5.1.4.1.2.2.2"  # Study Root
_UNKNOWN_DESTINATION = 0xA801  # PS3.4 C.4.2.1.5
_SUBOPERATIONS_FAILED = 0xB000
_QUICK = Timeouts(connect=10.0, associate=15.0, response=30.0)
_PATIENT = Timeouts(connect=10.0, associate=15.0, response=600.0)  # an archive need not say anything while it sends a series


def count_series(destination: DicomDestination, calling_ae: str, study_uid: str, timeouts: Timeouts = _QUICK) -> tuple[SeriesCount, ...]:
    """Return the series of a study that an archive has, with their numbers of instances (0020,1209) as far as it says them.

    Raises `TemporaryFailure` where it cannot be had or gives no answer.
    """
    keys = {"StudyInstanceUID": study_uid} | dict.fromkeys(("SeriesInstanceUID", "Modality", "NumberOfSeriesRelatedInstances"), "")
    found = {}
    for answer in find(destination, calling_ae, "SERIES", keys, timeouts):
        count = SeriesCount(text_of(answer, "SeriesInstanceUID"), text_of(answer, "Modality"), number_of(answer, "NumberOfSeriesRelatedInstances"))
        if count.series_uid and text_of(answer, "StudyInstanceUID") in ("", study_uid):
            found[count.series_uid] = count
    return tuple(found[uid] for uid in sorted(found))


@dataclass(frozen=True, slots=True)
class Moved:
    """What an archive says of a C-MOVE at its end: instances sent and not sent (0000,1021, 0000,1022), and the status."""

    sent: int
    failed: int
    status: int


def fetch_series(destination: DicomDestination, calling_ae: str, study_uid: str, series_uid: str, timeouts: Timeouts = _PATIENT) -> Moved:
    """Have an archive send a series to ourselves, under the AE title ``calling_ae``.

    Raises `UnknownToArchive` where the archive knows no such AE title, `TemporaryFailure` where it does not send for another reason; some
    instances may have failed where it returns.
    """
    wish = Dataset()
    wish.QueryRetrieveLevel, wish.StudyInstanceUID, wish.SeriesInstanceUID = "SERIES", study_uid, series_uid
    with associated(destination, requestor(calling_ae, timeouts), [build_context(STUDY_ROOT_MOVE)]) as association:
        if not association.accepted_contexts:
            raise TemporaryFailure(place(destination), "takes no retrievals (Study Root C-MOVE): let it accept them from this node")
        status = Dataset()
        try:
            for status, _ in association.send_c_move(wish, calling_ae, STUDY_ROOT_MOVE):
                if status.get("Status") == _UNKNOWN_DESTINATION:
                    raise UnknownToArchive(place(destination), calling_ae)
                _check(destination, status, (SUCCESS, _SUBOPERATIONS_FAILED, *PENDING))
        except RuntimeError as error:
            raise TemporaryFailure(place(destination), "closed the association before it was asked") from error
    sent, failed = (int(status.get(keyword) or 0) for keyword in ("NumberOfCompletedSuboperations", "NumberOfFailedSuboperations"))
    return Moved(sent + int(status.get("NumberOfWarningSuboperations") or 0), failed, int(status.get("Status", SUCCESS)))


def _check(destination: DicomDestination, status: Dataset, good: tuple[int, ...]) -> None:
    if "Status" not in status:
        raise TemporaryFailure(place(destination), "gave no answer to C-MOVE")
    if int(status.Status) not in good:
        raise TemporaryFailure(place(destination), f"could not answer C-MOVE: {text_of(status, 'ErrorComment') or 'no reason given'}", int(status.Status))
