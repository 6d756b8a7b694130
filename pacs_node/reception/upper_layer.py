"""The storage SCP on the network: pynetdicom negotiates and keeps its state machine, C-STORE data may go a faster way.

::

    listening socket ─► StorageServer ─► StorageAssociation (one thread a connection) ─► Conversation
     (inherited)         accept           first PDU read with a deadline                  admit, open, end
                                          then pynetdicom's state machine,
                                          C-STORE data past it (`fast_path`, `stepped`)

What differs from stock pynetdicom, and why:

* the listening socket comes from outside, so that several processes share it and none closes it for the others;
* nothing of pynetdicom runs before a whole A-ASSOCIATE-RQ has come within the association timeout: a connection that says nothing,
  says something else or goes away costs one sleeping thread, and that only until the timeout;
* a PDU longer than announced ends the connection instead of being collected in memory;
* the presentation contexts are chosen from the proposal; copying the table of all classes cost 0.1 s an association;
* C-STORE goes to the conversation whatever class its command names, and so do the DIMSE-N requests of services that it takes; the rest (C-ECHO,
  release, abort) is pynetdicom's;
* with ``fast``, an association has one thread in place of two, which sleeps until something comes, and an object is never held in memory.

These modules use private parts of pynetdicom, hence the pin ``~= 3.0.4``: here ``_serve_request``, ``_accepted_cx``, ``_bind_defaults``; in `stepped`
``_is_transport_event``, ``_process_recv_primitive``, ``_idle_timer``, ``_kill_thread``, ``_dul_ready``, ``_kill``; in `connection` ``_is_connected``;
in `fast_path` what of these it reads.
"""

from __future__ import annotations

import errno
import functools
import gc
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from pynetdicom import AE, build_context, evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_STORE, N_ACTION, N_CREATE, N_DELETE, N_EVENT_REPORT, N_GET, N_SET
from pynetdicom.transport import AddressInformation, AssociationServer, RequestHandler

from pacs_node import crash
from pacs_node.reception.admission import Rejection
from pacs_node.reception.connection import Connection
from pacs_node.reception.conversation import Conversation, Limits, NoteRequest, Proposal, StoreRequest
from pacs_node.reception.fast_path import FastPath
from pacs_node.reception.stepped import SteppedDimse, SteppedUpperLayer

log = structlog.get_logger(__name__)

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_COLLECT_AFTER = 64  # connections


class StorageServer(AssociationServer):  # type: ignore[misc]  # pynetdicom is untyped
    """Accepts connections on a listening socket that belongs to someone else.

    ``begin`` makes the conversation of a new connection; ``tls`` is the server context of a socket on which peers speak TLS.
    """

    socket: Any
    idle: Callable[[], object] = staticmethod(lambda: None)  # called several times a second
    served_by_peers: frozenset[str] = frozenset()  # SOP classes of which the peer may be the SCP, where it proposes that role

    def __init__(
        self, ae: AE, listening: socket.socket, begin: Callable[[], Conversation], limits: Limits, *, fast: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._listening, self.begin, self.limits, self.fast, self.tls = listening, begin, limits, fast, tls
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
        if self.tls is not None:
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)  # the handshake waits in the connection's thread
        return connection, address

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close at once what comes when too many connections are open."""
        return len(self.connections) < self.limits.connections

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; the server goes on."""
        log.exception("connection failed", peer=str(client_address))

    def service_actions(self) -> None:
        """Do what is due now and then. Associations that are over hold each other in cycles, and a receiver makes too little garbage to collect by itself."""
        self.idle()
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
        if server.fast:
            self.dul, self.dimse = SteppedUpperLayer(self), SteppedDimse(self)
            self.acse_timeout, self.network_timeout = server.ae.acse_timeout, server.ae.network_timeout  # into the timers of the new one
        self.transport = Connection(self, connection, server.limits)
        self.fast_path = FastPath(self, self.transport, self._conversation, server.limits.max_pdu)
        self.dul.daemon = True
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
            elif self.transport.insecure:
                self._conversation.insecure(self.requestor.address, self.transport.insecure)
        finally:
            self.transport.cut()
            self.fast_path.discard()
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
        self.acceptor.supported_contexts = [_context(uid, syntaxes, uid in self._server.served_by_peers) for uid, syntaxes in answer.items()]

    def _serve_request(self, msg: Any, context_id: int) -> None:
        """Answer a C-STORE request, and DIMSE-N requests that the conversation takes; hand everything else to pynetdicom."""
        if isinstance(msg, C_CANCEL):
            return  # of what is answered by then: pynetdicom keeps ten, and serves the eleventh, of which it dies
        if type(msg) in _OPERATIONS and self._is_ours(msg, context_id):
            self._take_note(msg, context_id)
            return
        is_store = isinstance(msg, C_STORE) and msg.MessageIDBeingRespondedTo is None and msg.MessageID is not None
        if not is_store or context_id not in self._accepted_cx or self._sent_release:
            super()._serve_request(msg, context_id)
            return
        response = C_STORE()
        response.MessageID = response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = msg.AffectedSOPClassUID, msg.AffectedSOPInstanceUID
        transfer_syntax = str(self._accepted_cx[context_id].transfer_syntax[0])
        sink = self._conversation.open(StoreRequest(_uid_text(msg.AffectedSOPClassUID), _uid_text(msg.AffectedSOPInstanceUID), transfer_syntax))
        if msg.DataSet is not None:
            sink.write(msg.DataSet.getbuffer())
        response.Status = sink.commit()
        self.dimse.send_msg(response, context_id)
        crash.passed("answered")

    def _is_ours(self, msg: Any, context_id: int) -> bool:
        fresh = msg.MessageIDBeingRespondedTo is None and msg.MessageID is not None
        return fresh and context_id in self._accepted_cx and not self._sent_release and self._conversation.takes(_class_of(msg))

    def _take_note(self, msg: Any, context_id: int) -> None:
        """Hand a DIMSE-N request to the conversation, and answer (PS3.7 10.1)."""
        operation, dataset, number = _OPERATIONS[type(msg)]
        content = getattr(msg, dataset) if dataset else None
        response = type(msg)()
        response.MessageIDBeingRespondedTo = msg.MessageID
        response.AffectedSOPClassUID = _class_of(msg)
        response.AffectedSOPInstanceUID = _instance_of(msg) or None
        if number:
            setattr(response, number, getattr(msg, number))
        response.Status = self._conversation.note(
            NoteRequest(
                operation=operation,
                sop_class=_class_of(msg),
                sop_instance=_instance_of(msg),
                number=getattr(msg, number) if number else None,
                transfer_syntax=str(self._accepted_cx[context_id].transfer_syntax[0]),
                content=content.getvalue() if content is not None else b"",
            )
        )
        self.dimse.send_msg(response, context_id)
        crash.passed("answered")


_OPERATIONS: Mapping[type, tuple[str, str, str]] = {
    N_CREATE: ("n-create", "AttributeList", ""),
    N_SET: ("n-set", "ModificationList", ""),
    N_ACTION: ("n-action", "ActionInformation", "ActionTypeID"),
    N_EVENT_REPORT: ("n-event-report", "EventInformation", "EventTypeID"),
    N_GET: ("n-get", "", ""),
    N_DELETE: ("n-delete", "", ""),
}
"""Primitive → its operation, and what its dataset and its type are called (PS3.7 10.1)."""


def _class_of(msg: Any) -> str:
    return _uid_text(getattr(msg, "AffectedSOPClassUID", None) or getattr(msg, "RequestedSOPClassUID", None))


def _instance_of(msg: Any) -> str:
    return _uid_text(getattr(msg, "AffectedSOPInstanceUID", None) or getattr(msg, "RequestedSOPInstanceUID", None))


@functools.lru_cache(maxsize=4096)  # a sender proposes the same hundred contexts every time, and nobody changes one of ours
def _context(abstract_syntax: str, transfer_syntaxes: tuple[str, ...], peer_serves: bool) -> Any:
    """Return a context in which the peer may be SCU, and SCP only where ``peer_serves``, whatever roles it proposes (PS3.7 D.3.3.4)."""
    context = build_context(abstract_syntax, list(transfer_syntaxes))
    context.scu_role, context.scp_role = True, peer_serves
    return context


def _uid_text(uid: object) -> str:
    return str(uid or "").strip(" \0")
