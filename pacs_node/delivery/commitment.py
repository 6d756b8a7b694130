"""Storage commitment on the network: asking an archive for it (SCU), and reporting it to those who asked us (SCP). PS3.4 Annex J.

::

    ask       N-ACTION ──► archive ──► N-EVENT-REPORT on the same association, before or after the response; or on a new one, which it
                                       opens to our receivers (`pacs_node.reception.services`)
    report    N-EVENT-REPORT ──► who asked, on an association that we open in the role of the SCP (PS3.7 D.3.3.4)

An archive may report while we wait for its response. pynetdicom's own ``send_n_action`` takes whatever comes next for the response, and its
reactor may take the response for a request: here every message goes into one inbox, whoever took it from the wire.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import build_context, build_role
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket

from pacs_node.config import DicomDestination
from pacs_node.delivery.association import Timeouts, associated, place
from pacs_node.delivery.requestor import Requestor
from pacs_node.dicom.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, REQUEST, Report, Request, read_report, report_dataset, request_dataset
from pacs_node.dicom.header import DAMAGED
from pacs_node.dicom.statuses import PROCESSING_FAILURE, SUCCESS
from pacs_node.dicom.transfer_syntaxes import DEFAULT
from pacs_node.errors import PermanentRefusal, TemporaryFailure, UnreadableObject

log = structlog.get_logger(__name__)

LINGER = 5.0  # seconds that the association stays open after the response, for a report on it
_BREATH = 0.25  # seconds between two looks whether the association is still there

OnReport = Callable[[Report], None]
"""Keeps a report for good. Where it raises, the report stays unanswered and the association is closed: the archive reports again."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer answered."""

    status: int
    comment: str = ""

    @property
    def accepted(self) -> bool:
        """It took the request, or the report."""
        return self.status == SUCCESS


def ask(
    destination: DicomDestination,
    request: Request,
    calling_ae: str,
    on_report: OnReport,
    timeouts: Timeouts = Timeouts(),
    linger: float = LINGER,
    heard: Callable[[], bool] = lambda: False,
) -> Answer:
    """Send a request and return what the archive answered to it; reports that come meanwhile go to ``on_report`` before they are answered.

    After the response the association stays open for ``linger`` seconds, or until a report has come, here or, as ``heard`` tells,
    elsewhere. Raises `PermanentRefusal` where the archive takes no storage commitment, `TemporaryFailure` where it cannot be reached or does not answer.
    """
    message = N_ACTION()
    message.MessageID, message.ActionTypeID = 1, REQUEST
    message.RequestedSOPClassUID, message.RequestedSOPInstanceUID = PUSH_MODEL, PUSH_MODEL_INSTANCE
    entity = _Correspondent(calling_ae, timeouts)
    with associated(destination, entity, [_context()]) as association:
        context = _accepted(association, destination)
        message.ActionInformation = _encoded(request_dataset(request), context)
        exchange = _Exchange(association, entity.inbox, on_report)
        answer = exchange.answer(message, context, timeouts.response)
        if answer is not None and answer.accepted:
            exchange.linger(request.transaction_uid, linger, heard)
    if answer is None:
        raise TemporaryFailure(place(destination), "gave no answer to the storage commitment request")
    return answer


def report(destination: DicomDestination, what: Report, calling_ae: str, timeouts: Timeouts = Timeouts()) -> Answer:
    """Send a report to the one who asked for it and return the answer; raises as `ask` does."""
    message = N_EVENT_REPORT()
    message.MessageID, message.EventTypeID = 1, what.event_type
    message.AffectedSOPClassUID, message.AffectedSOPInstanceUID = PUSH_MODEL, PUSH_MODEL_INSTANCE
    entity = _Correspondent(calling_ae, timeouts)
    with associated(destination, entity, [_context()], [build_role(PUSH_MODEL, scu_role=False, scp_role=True)]) as association:
        context = _accepted(association, destination)
        message.EventInformation = _encoded(report_dataset(what), context)
        answer = _Exchange(association, entity.inbox, _ignore).answer(message, context, timeouts.response)
    if answer is None:
        raise TemporaryFailure(place(destination), "gave no answer to the storage commitment report")
    return answer


# --- the exchange ----------------------------------------------------------------------------------------------------------


class _Correspondent(Requestor):
    """A requestor of one association, whose messages all end up in one inbox: pynetdicom would serve some of them itself."""

    def __init__(self, calling_ae: str, timeouts: Timeouts) -> None:
        super().__init__(calling_ae, timeouts.connect, timeouts.associate, timeouts.response)
        self.inbox: queue.Queue[tuple[Any, int]] = queue.Queue()

    def _create_socket(self, assoc: Association, address: Any, tls_args: Any) -> AssociationSocket:
        assoc._serve_request = lambda message, context_id: self.inbox.put((message, context_id))  # before anything can come
        return super()._create_socket(assoc, address, tls_args)


class _Exchange:
    """What is said on one association."""

    def __init__(self, association: Association, inbox: queue.Queue[tuple[Any, int]], on_report: OnReport) -> None:
        self._association, self._inbox, self._on_report = association, inbox, on_report
        self._reported: set[str] = set()  # transaction UIDs

    def answer(self, message: Any, context: PresentationContext, seconds: float) -> Answer | None:
        """Send a request and return the answer to it, dealing with what comes before; None where none comes in time."""
        self._association.dimse.send_msg(message, context.context_id)
        deadline = time.monotonic() + seconds
        while (found := self._next(deadline)) is not None:
            if type(found) is type(message) and found.MessageIDBeingRespondedTo == message.MessageID and found.Status is not None:
                return Answer(int(found.Status), str(found.ErrorComment or "").strip())
        if self._association.is_established:
            self._association.abort()  # one that does not answer does not take a release either
        return None

    def linger(self, transaction_uid: str, seconds: float, heard: Callable[[], bool]) -> None:
        """Wait for the report on a transaction, dealing with all that come."""
        deadline = time.monotonic() + seconds
        while transaction_uid not in self._reported and self._association.is_established and time.monotonic() < deadline and not heard():
            self._next(min(deadline, time.monotonic() + _BREATH))

    def _next(self, deadline: float) -> Any:
        """Return the next message, a report having been answered; None where the time is up or the association over."""
        while True:
            left = deadline - time.monotonic()
            try:
                message, context_id = self._inbox.get(timeout=max(0.0, min(_BREATH, left)))
            except queue.Empty:
                if left <= 0 or not self._association.is_established:
                    return None
                continue
            if isinstance(message, N_EVENT_REPORT) and message.MessageID is not None:
                self._serve(message, context_id)
            return message

    def _serve(self, request: Any, context_id: int) -> None:
        """Keep a report of the archive, then answer it."""
        response = N_EVENT_REPORT()
        response.MessageIDBeingRespondedTo, response.EventTypeID = request.MessageID, request.EventTypeID
        response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = request.AffectedSOPClassUID, request.AffectedSOPInstanceUID
        syntax = next(context.transfer_syntax[0] for context in self._association.accepted_contexts if context.context_id == context_id)
        try:
            found = read_report(_decoded(request.EventInformation, syntax))
        except UnreadableObject as error:
            log.warning("storage commitment report cannot be read", reason=str(error))
            response.Status = PROCESSING_FAILURE
        else:
            self._on_report(found)
            self._reported.add(found.transaction_uid)
            response.Status = SUCCESS
        self._association.dimse.send_msg(response, context_id)


def _context() -> PresentationContext:
    return build_context(PUSH_MODEL, [ExplicitVRLittleEndian, DEFAULT])


def _accepted(association: Association, destination: DicomDestination) -> PresentationContext:
    for context in association.accepted_contexts:
        return context
    raise PermanentRefusal(place(destination), "does not accept the Storage Commitment Push Model SOP class")


def _encoded(dataset: Dataset, context: PresentationContext) -> BytesIO:
    syntax = context.transfer_syntax[0]
    encoded = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    assert encoded is not None  # made of UIDs and numbers
    return BytesIO(encoded)


def _decoded(content: BytesIO | None, syntax: Any) -> Dataset:
    try:
        source = BytesIO(content.getvalue() if content is not None else b"")  # its own stands where pynetdicom stopped
        dataset = read_dataset(source, is_implicit_VR=syntax.is_implicit_VR, is_little_endian=syntax.is_little_endian)
        for _ in dataset.iterall():  # converts every value: what cannot be read is found here
            pass
    except DAMAGED as error:
        raise UnreadableObject("the storage commitment report", f"its dataset cannot be read ({type(error).__name__}: {error})") from error
    return dataset


def _ignore(report: Report) -> None:
    """Reports do not come to one who reports."""
