"""What becomes of an association: the border at which every fault of ours turns into a logged answer."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Mapping, MutableSequence, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from pacs_node import crash
from pacs_node.config import Reception
from pacs_node.dicom.sop_classes import acceptable, accepted_classes
from pacs_node.dicom.statuses import PROCESSING_FAILURE, RESOURCE_LIMITATION, SUCCESS, UNRECOGNISED_OPERATION
from pacs_node.errors import SpoolFull
from pacs_node.reception import admission
from pacs_node.reception.conversation import NoteRequest, Proposal, StoreRequest
from pacs_node.reception.intake import Intake
from pacs_node.reception.notes import problem_of
from pacs_node.reception.pacing import Pacer
from pacs_node.reception.part10 import Incoming
from pacs_node.reception.pressure import Pressure, mark_of
from pacs_node.reception.refusals import Peer, Refusals
from pacs_node.reception.services import classes_of, refusal_of, service_of
from pacs_node.reception.spool import Spool
from pacs_node.reception.tally import Silent, Tally
from pacs_node.records import Sender

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Receiver:
    """What the associations of one receiver process share.

    ``address`` is this node's ``host:port``; ``slots[index]`` counts the open associations of this process, among those of all.
    """

    pacer: Pacer | None = None  # slows senders, where ``reception.rate`` says so
    services: Sequence[str] = ()  # whose requests are taken

    def __init__(self, data: Path, ae_titles: tuple[str, ...], reception: Reception, address: str, slots: MutableSequence[int], index: int) -> None:
        self.spool = Spool(data, address)
        self.terms = admission.Terms(ae_titles, reception.senders, reception.max_associations)
        self.classes = accepted_classes(reception.private_sop_classes) - frozenset(reception.denied_sop_classes)
        self.max_object = reception.max_object
        self._reserve, self._slots, self._index = reception.reserve, slots, index
        self._lock = threading.Lock()
        self.refusals = Refusals(lambda peer, count: self.spool.refusal(peer.calling_ae, peer.called_ae, peer.host, peer.reason, count))
        self.tally: Tally = Silent()

    def take_requests(self, services: Sequence[str]) -> None:
        """Accept the SOP classes of these services (names in `services.SERVICES`), too."""
        self.services, self.classes = services, self.classes | classes_of(services)

    def begin(self) -> ReceiverConversation:
        """Return the conversation of a new connection."""
        return ReceiverConversation(self)

    def turned(self) -> None:
        """Hear that the server's loop went round."""
        self.tally.turned()
        self.tell_refusals()

    def tell_refusals(self, *, everything: bool = False) -> None:
        """Write the markers of refused peers that are due."""
        try:
            self.refusals.tell(everything=everything)
        except SpoolFull as error:
            log.warning("refused peers were not written down", reason=str(error))

    def has_room(self, step: Pressure = Pressure.REFUSE) -> bool:
        """Tell whether the disk has more room than that at which associations are rejected, or instances refused."""
        return self.spool.room(mark_of(step, self._reserve.bytes_of(self.spool.capacity())))

    def enter(self) -> int:
        """Count an association and return how many are open in all receivers, this one included.

        Counting comes before deciding: two processes that decide at the same moment may both refuse, but never both overstep.
        """
        with self._lock:
            self._slots[self._index] += 1
        return sum(self._slots)

    def leave(self) -> None:
        """Take an association out of the count."""
        with self._lock:
            self._slots[self._index] -= 1


class ReceiverConversation:
    """One association (see `conversation.Conversation`)."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self.sender = Sender()
        self._admitted = False
        self._stored = self._refused = 0

    def admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | admission.Rejection:
        """Decide about the association; a fault of ours rejects it as transient."""
        refusal: Mapping[str, tuple[str, ...]] | admission.Rejection = admission.LOCAL_FAULT
        return self.guarded(lambda: self._admit(proposal), refusal)

    def open(self, request: StoreRequest) -> Intake:
        """Begin to take an instance in."""
        return Intake(self, Incoming(self.sender, request.sop_class, request.sop_instance, request.transfer_syntax))

    def takes(self, sop_class: str) -> bool:
        """Tell whether requests on a SOP class are `note`'s."""
        return sop_class in classes_of(self.receiver.services)

    def note(self, request: NoteRequest) -> int:
        """Keep a DIMSE-N request for the core, or say why not; what it means is not judged here."""
        crash.passed("received")
        status, reason = self.guarded(lambda: self._note(request), (PROCESSING_FAILURE, "a fault of this node; the log has the details"))
        facts = {"association": self.sender.association, "calling_ae": self.sender.calling_ae, "operation": request.operation}
        if status == SUCCESS:
            log.info("request kept", **facts)
        else:
            log.warning("request refused", **facts, status=f"0x{status:04X}", reason=reason)
        return status

    def insecure(self, host: str, reason: str) -> None:
        """Write down that no TLS came about."""
        log.warning("TLS failed", address=host, reason=reason)
        self.guarded(lambda: self.receiver.refusals.note(Peer(host=host, reason=f"TLS failed: {reason}")), None)

    def end(self, released: bool) -> None:
        """Write down that the association is over."""
        self.guarded(lambda: self._end(released), None)

    def guarded(self, action: Callable[[], T], answer: T) -> T:
        """Return what the action returns, or ``answer`` where it fails, which is logged."""
        try:
            return action()
        except Exception:
            log.exception("reception failed", association=self.sender.association, calling_ae=self.sender.calling_ae)
            return answer

    def count(self, status: int, reason: str) -> int:
        """Count an answer, log a refusal, and return the status."""
        if status == SUCCESS:
            self._stored += 1
        else:
            self._refused += 1
            log.warning("instance refused", association=self.sender.association, calling_ae=self.sender.calling_ae, status=f"0x{status:04X}", reason=reason)
        return status

    def _admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | admission.Rejection:
        receiver = self.receiver
        open_associations = receiver.enter()
        self._admitted = True  # until the decision says otherwise, so that a fault on the way is counted out again
        request = admission.Request(proposal.called_ae, proposal.calling_ae, proposal.address, open_associations, receiver.has_room(Pressure.REJECT))
        decision = admission.decide(request, receiver.terms)
        if isinstance(decision, admission.Rejection):
            self._leave()
            receiver.tally.rejected(decision)
            log.warning("association rejected", calling_ae=proposal.calling_ae, address=proposal.address, reason=decision.text)
            if decision.for_good:
                peer = Peer(proposal.calling_ae[:16], proposal.called_ae[:16], proposal.address, decision.why)
                self.guarded(lambda: receiver.refusals.note(peer), None)
            return decision
        self.sender = Sender(proposal.calling_ae, proposal.called_ae, host_port(proposal.address, proposal.port), secrets.token_hex(8))
        receiver.tally.accepted()
        return acceptable(proposal.contexts, receiver.classes)

    def _note(self, request: NoteRequest) -> tuple[int, str]:
        service = service_of(self.receiver.services, request.sop_class, request.operation)
        if service is None:
            return UNRECOGNISED_OPERATION, f"the service knows no {request.operation}"
        if not self.receiver.has_room():
            return RESOURCE_LIMITATION, "the disk of the spool is filled up to reception.reserve"
        status, problem = problem_of(request)
        if status == SUCCESS:
            status, problem = refusal_of(service, request)
        if status == SUCCESS:
            try:
                self.receiver.spool.note(self.sender, service, request)
            except SpoolFull as error:
                return RESOURCE_LIMITATION, str(error)
        return status, problem

    def _end(self, released: bool) -> None:
        if not self._admitted:
            return
        self._leave()
        if self.sender.association:  # else a fault of ours rejected it
            self.receiver.tally.ended(released)
        if self._stored or self._refused:  # an echo tells the core nothing
            self.receiver.spool.end_association(self.sender, released=released, stored=self._stored, refused=self._refused)
        log.info("association ended", association=self.sender.association, released=released, stored=self._stored, refused=self._refused)

    def _leave(self) -> None:
        self._admitted = False
        self.receiver.leave()


def host_port(host: str, port: int) -> str:
    """Write an address as ``host:port``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
