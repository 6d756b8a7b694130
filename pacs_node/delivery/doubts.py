"""What a destination has to be asked before its answer to a C-STORE is believed: 0x0111 (is it this one?) and 0xB000 (whose is it now?)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from pydicom.dataset import Dataset

from pacs_node.config import DicomDestination
from pacs_node.delivery import query
from pacs_node.delivery.association import Timeouts
from pacs_node.dicom.header import identity, read_header, text_of
from pacs_node.dicom.statuses import COERCED, DUPLICATE
from pacs_node.errors import TemporaryFailure, UnreadableObject
from pacs_node.records import Outcome, Parcel

_PATIENT_ID = 0x00100020


@dataclass
class Doubts:
    """Asks a destination while one group is sent to it; each study is asked about once."""

    destination: DicomDestination
    calling_ae: str
    timeouts: Timeouts
    _coerced: dict[str, str] = field(default_factory=dict)  # study → what was found

    def settle(self, parcel: Parcel, status: Dataset, outcome: Outcome) -> Outcome:
        """Return an outcome as it is once the destination was asked about it; most statuses leave no doubt."""
        if outcome.status == DUPLICATE:
            return self._duplicate(parcel, outcome)
        if outcome.status == COERCED:
            return replace(outcome, coerced=self._patient(parcel, status))
        return outcome

    def _duplicate(self, parcel: Parcel, outcome: Outcome) -> Outcome:
        """Count 0x0111 (PS3.7 C.5.5) as delivered only where a query shows the very object; otherwise it is tried again, and parked in the end.

        Where the destination takes no queries and commits to what it stores, it counts as stored: its commitment decides.
        """
        try:
            there = query.is_there(self.destination, self.calling_ae, read_header(parcel.path), self.timeouts)
        except (TemporaryFailure, UnreadableObject) as error:
            if self.destination.commitment:
                return replace(outcome, delivered=True, permanent=False, message=f"{outcome.message}: its storage commitment decides")
            return replace(outcome, message=f"{outcome.message}, and it cannot be asked: {error}")
        if there:
            return replace(outcome, delivered=True, permanent=False, message="it was there already, as a query shows")
        return replace(outcome, message=f"{outcome.message}: a query for it finds nothing, so it may be another object")

    def _patient(self, parcel: Parcel, status: Dataset) -> str:
        """Say what became of the Patient ID where the destination coerced elements (PS3.4 B.2.3), "" where it is the same or nobody knows."""
        if _PATIENT_ID in _tags(status):
            return "the destination names the Patient ID among the elements that it changed"
        try:
            header = read_header(parcel.path)
            uid = text_of(header, "StudyInstanceUID")
            if uid not in self._coerced:
                self._coerced[uid] = self._ask_whose(header, uid)
            return self._coerced[uid]
        except (TemporaryFailure, UnreadableObject):
            return ""  # stored, which is what counts; the status itself is logged

    def _ask_whose(self, header: Dataset, study_uid: str) -> str:
        ours = identity(header).patient_id
        theirs = {identity(answer).patient_id for answer in query.study(self.destination, self.calling_ae, study_uid, self.timeouts)}
        return "a query finds the study under another Patient ID" if theirs - {ours, ""} else ""


def _tags(status: Dataset) -> set[int]:
    """Return Offending Element (0000,0901): the elements that an answer names (PS3.7 C.4.2.1)."""
    value = status.get("OffendingElement")
    if value is None:
        return set()
    return {int(tag) for tag in value} if isinstance(value, Iterable) else {int(value)}
