"""The seam to pynetdicom: connections in, four calls out. A faster data path replaces this module and nothing else.

::

    listening socket ─► StorageServer ─► StorageAssociation (one thread a connection) ─► Conversation
     (inherited)         accept           first PDU read with a deadline                  admit, store, end
                                          then pynetdicom's state machine

What differs from stock pynetdicom, and why:

* the listening socket comes from outside, so that several processes share it and none closes it for the others;
* nothing of pynetdicom runs before a whole A-ASSOCIATE-RQ has come within the association timeout: a connection that says nothing,
  says something else or goes away costs one sleeping thread, and that only until the timeout;
* a PDU longer than announced ends the connection instead of being collected in memory;
* the presentation contexts are chosen from the proposal; copying the table of all classes cost 0.1 s an association;
* C-STORE goes to the conversation whatever class its command names; the rest (C-ECHO, release, abort) is pynetdicom's.

It uses private parts of pynetdicom (``_serve_request``, ``_accepted_cx``, ``_bind_defaults``), hence the pin ``~= 3.0.4``.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import structlog
from pynetdicom import AE, build_context, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.transport import AddressInformation, AssociationServer, AssociationSocket, RequestHandler

from pacs_node.reception.admission import Rejection
from pacs_node.reception.files import Bytes

log = structlog.get_logger(__name__)

_A_ASSOCIATE_RQ = 0x01
_FIRST_PDU_LIMIT = 1 << 20  # bytes; 128 contexts that name every transfer syntax take about 250 KiB
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_COLLECT_AFTER = 64  # connections
_UNEXPECTED_PDU, _INVALID_VALUE = 2, 6  # reasons of an A-ABORT by the provider (PS3.8 Table 9-26)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a peer asks for when it opens an association."""

    calling_ae: str
    called_ae: str
    address: str
    port: int
    contexts: tuple[tuple[str, tuple[str, ...]], ...]  # abstract syntax, transfer syntaxes


@dataclass(frozen=True, slots=True)
class StoreRequest:
    """A C-STORE request: what its command says, and the dataset's bytes in order."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str
    parts: Iterable[Bytes]


class Conversation(Protocol):
    """What an association needs from us. None of the calls may raise."""

    def admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | Rejection:
        """Return abstract syntax → transfer syntaxes in order of preference, or why the association is refused."""

    def store(self, request: StoreRequest) -> int:
        """Take an instance in and return the status of the C-STORE response."""

    def end(self, released: bool) -> None:
        """The association is over; called once for each connection, whatever happened."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and sizes that keep a peer from holding us."""

    associate: float  # a whole A-ASSOCIATE-RQ must have come
    stall: float  # a PDU that has begun must bring something
    max_pdu: int  # bytes, as announced
    max_object: int  # bytes of one dataset, which is held in memory until it is complete
    connections: int  # open connections of one process, admitted or not


class StorageServer(AssociationServer):  # type: ignore[misc]  # pynetdicom is untyped
    """Accepts connections on a listening socket that belongs to someone else.

    ``begin`` makes the conversation of a new connection.
    """

    socket: Any

    def __init__(self, ae: AE, listening: socket.socket, begin: Callable[[], Conversation], limits: Limits) -> None:
        self._listening, self.begin, self.limits = listening, begin, limits
        self.connections: set[StorageAssociation] = set()
        self._ended = 0
        super().__init__(ae, listening.getsockname(), ae.ae_title, [], request_handler=_ConnectionHandler)

    def server_bind(self) -> None:
        """Take the inherited socket in place of the one that socketserver has just made."""
        self.socket.close()
        self.socket = self._listening
        self.server_address = self.socket.getsockname()

    def server_activate(self) -> None:
        """The socket listens already."""

    def server_close(self) -> None:
        """The socket stays open: other receivers accept on it, and the backlog survives this one."""

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises OSError where another process was quicker."""
        try:
            connection, address = self._listening.accept()
        except OSError as error:
            if error.errno in _EXHAUSTED:  # the connection stays in the backlog: asking again at once would only burn time
                log.error("no connection can be accepted", reason=error.strerror)
                time.sleep(0.2)
            raise
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close at once what comes when too many connections are open."""
        return len(self.connections) < self.limits.connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; the server goes on."""
        log.exception("connection failed", peer=str(client_address))

    def service_actions(self) -> None:
        """Free associations that are over: they hold each other in cycles, and a receiver makes too little garbage to collect by itself."""
        if self._ended >= _COLLECT_AFTER:
            self._ended = 0
            gc.collect()

    def forget(self, association: StorageAssociation) -> None:
        """The connection is over."""
        self.connections.discard(association)
        self._ended += 1

    def stop_accepting(self) -> None:
        """End `serve_forever`; open associations go on. Called from another thread."""
        super(AssociationServer, self).shutdown()

    def drain(self, seconds: float) -> None:
        """Wait for open associations, then abort those that are left, then cut off what does not react to that."""
        self._wait(seconds, lambda association: association.is_established)
        for association in list(self.connections):
            association.give_up()
        self._wait(1.0, threading.Thread.is_alive)
        for association in list(self.connections):
            association.transport.cut()
        self._wait(5.0, threading.Thread.is_alive)

    def _wait(self, seconds: float, still: Callable[[StorageAssociation], bool]) -> None:
        deadline = time.monotonic() + seconds
        while any(still(association) for association in list(self.connections)) and time.monotonic() < deadline:
            time.sleep(0.02)


class _ConnectionHandler(RequestHandler):  # type: ignore[misc]
    """Starts the thread of an accepted connection."""

    def handle(self) -> None:
        association = StorageAssociation(self.server, self.request, self.client_address)
        self.server.connections.add(association)
        association.start()


class StorageAssociation(Association):  # type: ignore[misc]
    """One connection as storage SCP: from its first byte to its end."""

    def __init__(self, server: StorageServer, connection: socket.socket, remote: Any) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self._server, self._conversation, self._limits = server, server.begin(), server.limits
        self.name = f"AcceptorThread@{remote[0]}:{remote[1]}"
        self.dul.daemon = True
        self.transport = BoundedSocket(self, connection, server.limits)
        self.set_socket(self.transport)
        self.acceptor.maximum_length = server.ae.maximum_pdu_size
        self.acceptor.ae_title = server.ae.ae_title
        self.acceptor.address_info = AddressInformation.from_tuple(server.server_address)
        self.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        self.acceptor.implementation_version_name = server.ae.implementation_version_name
        self.requestor.address_info = AddressInformation.from_tuple(remote)
        self.bind(evt.EVT_REQUESTED, self._on_requested)

    def _bind_defaults(self) -> None:
        """Bind what answers C-ECHO and negotiation; leave out pynetdicom's log of every PDU (slow, and it names patients)."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))

    def run_reactor(self) -> None:
        """Live through the association; the conversation hears of the end on every way out."""
        try:
            if self.transport.await_request(self._limits.associate):
                super().run_reactor()
        finally:
            self.transport.cut()
            self._conversation.end(self.is_released)
            self._server.forget(self)

    def give_up(self) -> None:
        """Abort the association, or cut the connection where there is none yet; does not wait."""
        if self.is_established:
            self.abort(block=False)
        else:
            self.transport.cut()

    def _on_requested(self, event: evt.Event) -> None:
        request = self.requestor.primitive
        contexts = request.presentation_context_definition_list
        proposal = Proposal(
            calling_ae=request.calling_ae_title.strip(),
            called_ae=request.called_ae_title.strip(),
            address=self.requestor.address,
            port=self.requestor.port,
            contexts=tuple((str(context.abstract_syntax), tuple(map(str, context.transfer_syntax))) for context in contexts),
        )
        answer = self._conversation.admit(proposal)
        if isinstance(answer, Rejection):
            self.is_rejected = True
            self.acse.send_reject(answer.result, answer.source, answer.reason)
            self.kill()
            return
        self.acceptor.supported_contexts = [_as_scp(abstract_syntax, syntaxes) for abstract_syntax, syntaxes in answer.items()]

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer a C-STORE request; hand everything else to pynetdicom."""
        is_store = isinstance(msg, C_STORE) and msg.MessageIDBeingRespondedTo is None and msg.MessageID is not None
        if not is_store or context_id not in self._accepted_cx or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        response = C_STORE()
        response.MessageID = response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = msg.AffectedSOPClassUID, msg.AffectedSOPInstanceUID
        response.Status = self._conversation.store(
            StoreRequest(
                sop_class=_uid_text(msg.AffectedSOPClassUID),
                sop_instance=_uid_text(msg.AffectedSOPInstanceUID),
                transfer_syntax=str(self._accepted_cx[context_id].transfer_syntax[0]),
                parts=() if msg.DataSet is None else (msg.DataSet.getbuffer(),),
            )
        )
        self.dimse.send_msg(response, context_id)


def _as_scp(abstract_syntax: str, transfer_syntaxes: tuple[str, ...]) -> Any:
    """Return a context in which the peer may be SCU and not SCP, whatever roles it proposes (PS3.7 D.3.3.4)."""
    context = build_context(abstract_syntax, list(transfer_syntaxes))
    context.scu_role, context.scp_role = True, False
    return context


def _uid_text(uid: object) -> str:
    return str(uid or "").strip(" \0")


class BoundedSocket(AssociationSocket):  # type: ignore[misc]
    """A connection that reads within limits of size and time."""

    def __init__(self, association: StorageAssociation, connection: socket.socket, limits: Limits) -> None:
        super().__init__(association, client_socket=connection)
        self._limits, self._ahead = limits, bytearray()
        self._poll = select.poll()  # unlike select(), it takes descriptors above 1023
        self._poll.register(connection, select.POLLIN)
        self._connection = connection

    def await_request(self, seconds: float) -> bool:
        """Read the whole first PDU within ``seconds`` and keep it for the state machine; False where it is no association request."""
        deadline = time.monotonic() + seconds
        try:
            start = self._exactly(6, deadline)
            kind, length = struct.unpack(">BxL", start)
            if kind != _A_ASSOCIATE_RQ or length > _FIRST_PDU_LIMIT:
                reason = _INVALID_VALUE if kind == _A_ASSOCIATE_RQ else _UNEXPECTED_PDU
                self._connection.sendall(struct.pack(">BxLxxBB", 0x07, 4, 2, reason))
                return False
            self._ahead = start + self._exactly(length, deadline)
            self._connection.settimeout(self._limits.stall)
        except OSError:
            return False
        return True

    def _exactly(self, size: int, deadline: float) -> bytearray:
        found = bytearray()
        while len(found) < size:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._connection.recv(size - len(found))
            if not piece:
                raise ConnectionError("closed before the association request was complete")
            found += piece
        return found

    @property
    def ready(self) -> bool:
        """Tell whether something can be read; a broken connection counts, reading it tells.

        While requests wait to be served nothing more is read: a peer that does not await our answers is slowed, not collected.
        """
        if self._ahead:
            return True
        if self.socket is None or not self._is_connected or self.assoc.dimse.msg_queue.qsize() > 1:
            return False
        return bool(self._poll.poll(0))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, fewer where the connection ends; raises OSError beyond the limits of time and size."""
        if nr_bytes > self._limits.max_pdu + _FIRST_PDU_LIMIT:
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than the {self._limits.max_pdu} bytes announced")
        message = self.assoc.dimse.message
        if message is not None and message.data_set.tell() > self._limits.max_object:
            raise OSError(f"an object is larger than {self._limits.max_object} bytes")
        found, self._ahead = self._ahead[:nr_bytes], self._ahead[nr_bytes:]
        while len(found) < nr_bytes:
            piece = self.socket.recv(min(nr_bytes - len(found), 1 << 18))
            if not piece:
                break
            found += piece
        return found

    def cut(self) -> None:
        """End the connection, whatever is under way on it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()
