"""The datasets of the Storage Commitment Push Model: a request, and the report that answers it (PS3.4 Annex J, PS3.3 C.14).

::

    SCU ── N-ACTION 1 ───────► SCP     transaction UID, the instances                                   (PS3.4 Table J.3-1)
    SCU ◄─ N-EVENT-REPORT 1 ── SCP     all of them are safe                                             (PS3.4 Table J.3-2)
    SCU ◄─ N-EVENT-REPORT 2 ── SCP     some are not: Failed SOP Sequence, each with its Failure Reason
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_node.dicom.uids import is_valid_uid
from pacs_node.errors import UnreadableObject

PUSH_MODEL = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known one that all requests and reports name

REQUEST = 1  # Action Type ID
ALL_COMMITTED, FAILURES_EXIST = 1, 2  # Event Type ID

PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT, CLASS_NOT_SUPPORTED, DUPLICATE_TRANSACTION, NO_RESOURCES = 0x0110, 0x0112, 0x0119, 0x0122, 0x0131, 0x0213
_DUBIOUS = PROCESSING_FAILURE  # of an instance that is reported as failed without a reason


class Remedy(StrEnum):
    """What the SCU does about an instance that was not committed."""

    SEND_AGAIN = "send again"
    ASK_AGAIN = "ask again"  # under a new transaction UID
    REFUSED = "refused"  # the SCP will never commit this object


@dataclass(frozen=True, slots=True)
class Reason:
    """One row: what a Failure Reason (0008,1197) means, and what is done about it."""

    remedy: Remedy
    meaning: str


REASONS: Mapping[int, Reason] = {  # PS3.3 C.14.1.1
    PROCESSING_FAILURE: Reason(Remedy.SEND_AGAIN, "the archive could not process the request"),
    NO_SUCH_INSTANCE: Reason(Remedy.SEND_AGAIN, "the archive does not have the object"),
    CLASS_CONFLICT: Reason(Remedy.REFUSED, "the archive knows the object under another SOP class"),
    CLASS_NOT_SUPPORTED: Reason(Remedy.REFUSED, "the archive commits no objects of this SOP class"),
    DUPLICATE_TRANSACTION: Reason(Remedy.ASK_AGAIN, "the transaction UID is in use at the archive"),
    NO_RESOURCES: Reason(Remedy.SEND_AGAIN, "the archive has not enough resources to store the object"),
}


def reason_of(code: int) -> Reason:
    """Return the row of a failure reason; an unknown one is worth another try, because giving up is the worse mistake."""
    return REASONS.get(code, Reason(Remedy.SEND_AGAIN, f"the archive gave a reason that the standard does not define (0x{code:04X})"))


@dataclass(frozen=True, slots=True)
class Reference:
    """One SOP instance that a request or a report names."""

    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class Request:
    """What an SCU asks an SCP to keep."""

    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What an SCP says about the instances of a request. An instance may be named in neither part: it is not answered yet."""

    transaction_uid: str
    committed: tuple[Reference, ...] = ()
    failed: Mapping[Reference, int] = field(default_factory=dict)  # → failure reason

    @property
    def event_type(self) -> int:
        """The Event Type ID that goes with it (PS3.4 J.3.3.1)."""
        return FAILURES_EXIST if self.failed else ALL_COMMITTED


# --- writing ---------------------------------------------------------------------------------------------------------------


def request_dataset(request: Request) -> Dataset:
    """Return the Action Information of a request (PS3.4 Table J.3-1)."""
    dataset = Dataset()
    dataset.TransactionUID = request.transaction_uid
    dataset.ReferencedSOPSequence = Sequence(map(_item, request.references))
    return dataset


def report_dataset(report: Report) -> Dataset:
    """Return the Event Information of a report (PS3.4 Table J.3-2)."""
    dataset = Dataset()
    dataset.TransactionUID = report.transaction_uid
    if report.committed:
        dataset.ReferencedSOPSequence = Sequence(map(_item, report.committed))
    if report.failed:
        dataset.FailedSOPSequence = Sequence(_item(reference, reason) for reference, reason in report.failed.items())
    return dataset


def _item(reference: Reference, reason: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class_uid, reference.sop_uid
    if reason is not None:
        item.FailureReason = reason
    return item


# --- reading ---------------------------------------------------------------------------------------------------------------


def read_request(dataset: Dataset) -> Request:
    """Read a request; raises `UnreadableObject` for one that names no transaction or no instance."""
    references = tuple(dict.fromkeys(_references(dataset, "ReferencedSOPSequence")))
    if not references:
        raise UnreadableObject("the storage commitment request", "it names no SOP instance")
    return Request(_transaction(dataset, "request"), references)


def read_report(dataset: Dataset) -> Report:
    """Read a report; raises `UnreadableObject` for one that names no transaction. What it says counts, whatever its event type."""
    failed = {}
    for item in dataset.get("FailedSOPSequence") or ():
        reason = item.get("FailureReason")
        failed.update(dict.fromkeys(_references_of((item,)), _DUBIOUS if reason is None else int(reason)))
    committed = tuple(reference for reference in dict.fromkeys(_references(dataset, "ReferencedSOPSequence")) if reference not in failed)
    return Report(_transaction(dataset, "report"), committed, failed)


def _transaction(dataset: Dataset, what: str) -> str:
    uid = str(dataset.get("TransactionUID") or "").strip(" \0")
    if not is_valid_uid(uid):
        raise UnreadableObject(f"the storage commitment {what}", "its Transaction UID is missing or no UID")
    return uid


def _references(dataset: Dataset, keyword: str) -> Iterable[Reference]:
    return _references_of(dataset.get(keyword) or ())


def _references_of(items: Iterable[Dataset]) -> Iterable[Reference]:
    for item in items:
        sop_class, sop_uid = (str(item.get(keyword) or "").strip(" \0") for keyword in ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID"))
        if sop_uid and len(sop_uid) <= 64:
            yield Reference(sop_class[:64], sop_uid)


# --- vouching --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of an instance that we are asked to commit to."""

    same_class: bool  # it is of the SOP class that the request names
    committed: bool  # an archive has committed to it as it is now
    on_its_way: bool  # to an archive that may commit to it
    decided: bool  # the rules have decided whether it is forwarded


def judge(standing: Standing | None, *, forwards: bool, patient: bool) -> int | None:
    """Return 0 where we vouch for an instance, the failure reason where we do not, None where it is too early to tell (PS3.3 C.14.1.1).

    ``standing``: None for an instance that was never received. ``forwards``: some rule forwards to an archive that commits.
    ``patient``: the request has not waited for too long.
    """
    if standing is None:
        return NO_SUCH_INSTANCE
    if not standing.same_class:
        return CLASS_CONFLICT
    if standing.committed:
        return 0
    if patient and forwards and (standing.on_its_way or not standing.decided):
        return None
    return PROCESSING_FAILURE  # it is here, and nobody who keeps it for good has it: its sender must not delete it
