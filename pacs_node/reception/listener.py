"""The C-STORE SCP: one receiver process serves the associations that it accepts on the shared socket.

An instance is answered with success when it is durable in the spool (`pacs_node.reception.spool`), with 0xC000 or 0xA900 when it was
kept in quarantine, with 0xA700 when the disk or this node failed: then the sender keeps it and tries again.
"""

from __future__ import annotations

import itertools
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TypeVar

import structlog
from pynetdicom import AE

from pacs_node.config import Reception
from pacs_node.dicom.header import leading_uids
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, acceptable, accepted_classes
from pacs_node.dicom.statuses import CANNOT_UNDERSTAND, CLASS_MISMATCH, OUT_OF_RESOURCES, SUCCESS
from pacs_node.errors import PortInUse, SpoolFull, UnreadableObject
from pacs_node.reception import admission
from pacs_node.reception.files import Bytes
from pacs_node.reception.part10 import Incoming
from pacs_node.reception.spool import Spool
from pacs_node.reception.upper_layer import Limits, Proposal, StorageServer, StoreRequest
from pacs_node.records import Sender

log = structlog.get_logger(__name__)
T = TypeVar("T")

_HEAD = 256 * 1024  # bytes of a dataset that are looked at before it is answered
_MAX_OBJECT = 4 << 30  # bytes; native pixel data cannot be longer, its length has 32 bits (PS3.5 7.1.2)
_SPARE_CONNECTIONS = 64  # beyond max_associations: peers that are being refused, and probes


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds after which a silent peer is let go."""

    associate: float = 30.0  # connected, but no whole association request (ARTIM, PS3.8 9.1.5)
    stall: float = 60.0  # in the middle of a PDU
    idle: float = 600.0  # modalities keep associations open between images


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """What a receiver process needs to know; can be handed to a spawned process."""

    ae_titles: Sequence[str]
    data: Path
    reception: Reception = field(default_factory=Reception)
    drain: float = 10.0  # seconds that running associations get when the receiver stops
    timeouts: Timeouts = field(default_factory=Timeouts)


def open_socket(address: str, port: int, backlog: int = 128) -> socket.socket:
    """Open the listening socket that receivers share; port 0 takes any free one. Raises `PortInUse` where it cannot be had."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortInUse(address, port, error.strerror or str(error)) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(target)
        listening.listen(backlog)
        listening.setblocking(False)  # another process may take the connection that woke this one
    except OSError as error:
        listening.close()
        raise PortInUse(address, port, error.strerror or str(error)) from error
    return listening


def serve(config: ReceiverConfig, listening: socket.socket, slots: MutableSequence[int], index: int, stop: threading.Event) -> None:
    """Serve associations until ``stop`` is set, then let the open ones finish for ``config.drain`` seconds and abort the rest.

    ``slots`` holds the number of open associations of every receiver, ``slots[index]`` of this one; in shared memory where there are
    several processes. The sum is kept within ``reception.max_associations``. The listening socket stays open: its owner closes it.
    Who starts a killed receiver anew need not touch ``slots``: the new one begins at zero.
    """
    slots[index] = 0
    listening.setblocking(False)
    receiver = Receiver(config, _own_address(listening), slots, index)
    reception, timeouts = config.reception, config.timeouts
    limits = Limits(
        associate=timeouts.associate,
        stall=timeouts.stall,
        max_pdu=reception.max_pdu,
        max_object=_MAX_OBJECT,
        connections=reception.max_associations + _SPARE_CONNECTIONS,
    )
    server = StorageServer(_application_entity(config), listening, receiver.begin, limits)
    threading.Thread(target=_stop_when, args=(stop, server), name="stop", daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.drain(config.drain)
        slots[index] = 0


def serve_until_terminated(config: ReceiverConfig, listening: socket.socket, slots: MutableSequence[int], index: int) -> None:
    """Be a receiver process: `serve` until SIGTERM. An interrupt at the terminal is left to the parent, which then terminates us.

    A signal and not a `multiprocessing.Event`: setting one waits for ever where a process that waited for it was killed.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(config, listening, slots, index, stop)


def _stop_when(stop: threading.Event, server: StorageServer) -> None:
    stop.wait()
    server.stop_accepting()


def _application_entity(config: ReceiverConfig) -> AE:
    entity = AE(ae_title=config.ae_titles[0])
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    entity.maximum_pdu_size = config.reception.max_pdu
    entity.acse_timeout = config.timeouts.associate
    entity.dimse_timeout = config.timeouts.stall
    entity.network_timeout = config.timeouts.idle
    entity.maximum_associations = 1_000_000  # the limit over all processes is admission's
    return entity


def _own_address(listening: socket.socket) -> str:
    """Return this node's presentation address; one that listens everywhere is named by its host name."""
    host, port = listening.getsockname()[:2]
    return _host_port(socket.gethostname() if ip_address(host).is_unspecified else host, port)


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Receiver:
    """What the associations of one receiver process share."""

    def __init__(self, config: ReceiverConfig, address: str, slots: MutableSequence[int], index: int) -> None:
        self.spool = Spool(config.data, address)
        self.terms = admission.Terms(config.ae_titles, config.reception.senders, config.reception.max_associations)
        self.classes = accepted_classes(config.reception.private_sop_classes)
        self._reserve, self._slots, self._index = config.reception.reserve, slots, index
        self._lock = threading.Lock()

    def begin(self) -> _Conversation:
        """Return the conversation of a new connection."""
        return _Conversation(self)

    def has_room(self) -> bool:
        """Tell whether more than the reserve is free."""
        return self.spool.room(self._reserve.bytes_of(self.spool.capacity()))

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


class _Conversation:
    """One association: the border at which every fault of ours becomes a logged answer (see `upper_layer.Conversation`)."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._sender = Sender()
        self._admitted = False
        self._stored = self._refused = 0

    def admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | admission.Rejection:
        refusal: Mapping[str, tuple[str, ...]] | admission.Rejection = admission.LOCAL_FAULT
        return self._guarded(lambda: self._admit(proposal), refusal)

    def store(self, request: StoreRequest) -> int:
        status = self._guarded(lambda: self._store(request), OUT_OF_RESOURCES)
        if status == SUCCESS:
            self._stored += 1
        else:
            self._refused += 1
        return status

    def end(self, released: bool) -> None:
        self._guarded(lambda: self._end(released), None)

    def _guarded(self, action: Callable[[], T], answer: T) -> T:
        try:
            return action()
        except Exception:
            log.exception("reception failed", association=self._sender.association, calling_ae=self._sender.calling_ae)
            return answer

    def _admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | admission.Rejection:
        receiver = self._receiver
        open_associations = receiver.enter()
        self._admitted = True  # until the decision says otherwise, so that a fault on the way is counted out again
        request = admission.Request(proposal.called_ae, proposal.calling_ae, proposal.address, open_associations, receiver.has_room())
        decision = admission.decide(request, receiver.terms)
        if isinstance(decision, admission.Rejection):
            self._leave()
            log.warning("association rejected", calling_ae=proposal.calling_ae, address=proposal.address, reason=decision.text)
            return decision
        address = _host_port(proposal.address, proposal.port)
        self._sender = Sender(proposal.calling_ae, proposal.called_ae, address, secrets.token_hex(8))
        return acceptable(proposal.contexts, receiver.classes)

    def _store(self, request: StoreRequest) -> int:
        if not self._receiver.has_room():
            return self._refuse(OUT_OF_RESOURCES, "the disk of the spool is filled up to reception.reserve")
        head, parts = _peek(request.parts, _HEAD)
        incoming = Incoming(self._sender, request.sop_class, request.sop_instance, request.transfer_syntax)
        status, reason = judge(head, incoming)
        try:
            if status == SUCCESS:
                self._receiver.spool.store(self._sender, request.sop_class, request.sop_instance, request.transfer_syntax, parts)
                return SUCCESS
            self._receiver.spool.set_aside(incoming, parts, reason)
        except SpoolFull as error:
            return self._refuse(OUT_OF_RESOURCES, str(error))
        return self._refuse(status, reason)

    def _refuse(self, status: int, reason: str) -> int:
        log.warning("instance refused", association=self._sender.association, calling_ae=self._sender.calling_ae, status=f"0x{status:04X}", reason=reason)
        return status

    def _end(self, released: bool) -> None:
        if not self._admitted:
            return
        self._leave()
        if self._stored or self._refused:  # an echo tells the core nothing
            self._receiver.spool.end_association(self._sender, released=released, stored=self._stored, refused=self._refused)
        log.info("association ended", association=self._sender.association, released=released, stored=self._stored, refused=self._refused)

    def _leave(self) -> None:
        self._admitted = False
        self._receiver.leave()


def judge(head: bytes, incoming: Incoming) -> tuple[int, str]:
    """Compare the first bytes of a dataset with its C-STORE command; return the status to answer and why (PS3.4 B.2.3)."""
    try:
        sop_class, sop_instance = leading_uids(head, incoming.transfer_syntax)
    except UnreadableObject as error:
        return CANNOT_UNDERSTAND, str(error)
    if sop_instance != incoming.sop_instance:
        return CANNOT_UNDERSTAND, "the SOP Instance UID of the dataset is not the one of the C-STORE command"
    if sop_class != incoming.sop_class:
        return CLASS_MISMATCH, "the SOP Class UID of the dataset is not the one of the C-STORE command"
    return SUCCESS, ""


def _peek(parts: Iterable[Bytes], size: int) -> tuple[bytes, Iterator[Bytes]]:
    """Return the first ``size`` bytes (fewer where there are no more) and all parts from the beginning."""
    rest = iter(parts)
    head, taken = bytearray(), []
    while len(head) < size and (part := next(rest, None)) is not None:
        taken.append(part)
        head += memoryview(part)[: size - len(head)]
    return bytes(head), itertools.chain(taken, rest)
