"""C-STORE data from the socket to the spool: P-DATA-TF PDUs are taken apart as they come, and nothing is collected.

::

    P-DATA-TF ─► PDV: command fragment ─► C-STORE-RQ? ── yes ─► Conversation.open ─► Sink
                                              └─ no ─► pynetdicom's DIMSE provider, with its data
                 PDV: data fragment ──► Sink.write, straight from the buffer that the socket was read into
                 PDV: last of the data ─► Sink.commit ─► C-STORE-RSP

It runs while the association is established (state 6 of PS3.8 9.2.1) and the next PDU is P-DATA-TF; every other PDU is pynetdicom's. What breaks
the rules of PS3.8 9.3.5, 9.3.1 and Annex E becomes the state machine's event 19 (an A-ABORT goes out), a lost or stalled connection event 17.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from pynetdicom.pdu_primitives import P_DATA

from pacs_node import crash
from pacs_node.reception.command import StoreCommand, parse_store, store_response
from pacs_node.reception.connection import COMMAND_LIMIT, HEADER, P_DATA_TF, Connection
from pacs_node.reception.conversation import Conversation, Sink, StoreRequest
from pacs_node.reception.files import Bytes

if TYPE_CHECKING:
    from pacs_node.reception.stepped import SteppedUpperLayer

log = structlog.get_logger(__name__)

_BREATH = 0.25  # seconds of silence after which the association's other business is looked at
_FOREIGN_LIMIT = 16 << 20  # bytes of a dataset that is none of C-STORE's: pynetdicom holds it in memory
_PDV = struct.Struct(">LBB")  # length, presentation context, message control header (PS3.8 9.3.5.1, E.2)
_COMMAND, _LAST = 1, 2  # bits of the message control header


class ProtocolError(Exception):
    """The peer breaks the rules of PS3.8."""


@dataclass(slots=True)
class _Incoming:
    """A message whose command is complete and whose data is not; without a sink it is pynetdicom's."""

    context_id: int
    command: StoreCommand | None = None
    sink: Sink | None = None


class FastPath:
    """What is under way on one association."""

    def __init__(self, association: Any, connection: Connection, conversation: Conversation, max_pdu: int) -> None:
        self._association, self._connection, self._conversation, self._max_pdu = association, connection, conversation, max_pdu
        self._pdu_left = 0  # bytes of the current PDU that are not read
        self._command, self._command_context = bytearray(), 0
        self._incoming: _Incoming | None = None

    def next_is_data(self) -> bool:
        """Tell whether what can be read belongs to a P-DATA-TF; a connection that is lost does not."""
        try:
            return self._pdu_left > 0 or self._connection.peek(1)[0] == P_DATA_TF
        except OSError:
            return False

    def run(self, dul: SteppedUpperLayer) -> None:
        """Take data in as long as it comes and nothing else has to be done."""
        try:
            while not self._wanted(dul):
                if not self._pdu_left and not self._next_pdu():
                    return
                while self._pdu_left:
                    if self._next_pdv() and self._wanted(dul):
                        return
        except ProtocolError as error:
            log.warning("association aborted", reason=str(error))
            self.discard()
            dul.event_queue.put("Evt19")
        except OSError as error:
            log.warning("connection lost", reason=str(error))
            self.discard()
            dul.event_queue.put("Evt17")

    def discard(self) -> None:
        """Keep nothing of what is incomplete: the association ends."""
        incoming, self._incoming, self._pdu_left = self._incoming, None, 0
        if incoming is not None and incoming.sink is not None:
            incoming.sink.discard()

    def _wanted(self, dul: SteppedUpperLayer) -> bool:
        """Tell whether a message waits to be served, or something of ours to be sent."""
        return bool(dul.to_provider_queue.queue or dul.event_queue.queue or self._association.dimse.msg_queue.queue or self._association._kill)

    def _next_pdu(self) -> bool:
        """Begin a PDU; False where none comes for a while, or another kind."""
        if not self._connection.wait(_BREATH) or not self.next_is_data():
            return False
        _, self._pdu_left = HEADER.unpack(self._connection.peek(HEADER.size))
        self._connection.skip(HEADER.size)
        if self._pdu_left > self._max_pdu:
            raise ProtocolError(f"a PDU of {self._pdu_left} bytes is longer than the {self._max_pdu} bytes announced")
        return True

    def _next_pdv(self) -> bool:
        """Take a whole PDV in; True where it completes a message."""
        if self._pdu_left < _PDV.size:
            raise ProtocolError(f"{self._pdu_left} bytes at the end of a PDU are no presentation data value")
        length, context_id, control = _PDV.unpack(self._connection.peek(_PDV.size))
        if length < 2 or length + 4 > self._pdu_left:
            raise ProtocolError(f"a presentation data value of {length} bytes does not fit into its PDU")
        self._connection.skip(_PDV.size)
        self._pdu_left -= length + 4
        if control & _COMMAND:
            return self._take_command(length - 2, context_id, bool(control & _LAST))
        return self._take_data(length - 2, context_id, bool(control & _LAST))

    # --- commands ----------------------------------------------------------------------------------------------------------

    def _take_command(self, size: int, context_id: int, last: bool) -> bool:
        if self._incoming is not None:
            raise ProtocolError("a command begins before the data of the one before has ended")
        if self._command and context_id != self._command_context:
            raise ProtocolError("the fragments of a command come on different presentation contexts")
        if len(self._command) + size > COMMAND_LIMIT:
            raise ProtocolError(f"a command is longer than {COMMAND_LIMIT} bytes")
        self._command_context = context_id
        while size:
            piece = self._connection.take(size)
            self._command += piece
            size -= len(piece)
        if not last:
            return False
        command, self._command = self._command, bytearray()
        return self._begin(context_id, command)

    def _begin(self, context_id: int, command: bytearray) -> bool:
        """Open a sink for a C-STORE, hand any other command to pynetdicom; True where no data follows."""
        context = self._association._accepted_cx.get(context_id)
        if context is None:
            raise ProtocolError(f"presentation context {context_id} was not accepted")
        request = parse_store(command)
        if request is None:
            self._incoming = _Incoming(context_id)
            return self._forward(_COMMAND | _LAST, command)
        sop_class, sop_instance = (uid.decode("ascii").strip(" \0") for uid in (request.sop_class, request.sop_instance))
        sink = self._conversation.open(StoreRequest(sop_class, sop_instance, str(context.transfer_syntax[0])))
        self._incoming = _Incoming(context_id, request, sink)
        return not request.has_dataset and self._complete()

    # --- data --------------------------------------------------------------------------------------------------------------

    def _take_data(self, size: int, context_id: int, last: bool) -> bool:
        incoming = self._incoming
        if incoming is None:
            raise ProtocolError("data comes before its command is complete")
        if context_id != incoming.context_id:
            raise ProtocolError(f"data of a command on presentation context {incoming.context_id} comes on {context_id}")
        if incoming.sink is None:
            return self._take_foreign_data(size, last)
        while size:
            piece = self._connection.take(size)
            size -= len(piece)
            incoming.sink.write(piece)
        return last and self._complete()

    def _complete(self) -> bool:
        """Commit the object that is complete, and answer."""
        incoming, self._incoming = self._incoming, None
        assert incoming is not None and incoming.command is not None and incoming.sink is not None
        status = incoming.sink.commit()
        self._connection.send(store_response(incoming.context_id, incoming.command, status, self._association.dimse.maximum_pdu_size))
        crash.passed("answered")
        return True

    # --- what is pynetdicom's ------------------------------------------------------------------------------------------------

    def _take_foreign_data(self, size: int, last: bool) -> bool:
        if self._association.dimse.message.data_set.tell() + size > _FOREIGN_LIMIT:
            raise ProtocolError(f"the data of a command that is no C-STORE is longer than {_FOREIGN_LIMIT} bytes")
        piece = bytearray()
        while len(piece) < size:
            piece += self._connection.take(size - len(piece))
        return self._forward(_LAST if last else 0, piece)

    def _forward(self, control: int, fragment: Bytes) -> bool:
        """Give the DIMSE provider a fragment; True where its message is complete."""
        assert self._incoming is not None
        primitive = P_DATA()
        primitive.presentation_data_value_list.append((self._incoming.context_id, bytes((control,)) + bytes(fragment)))
        try:
            self._association.dimse.receive_primitive(primitive)
        except Exception as error:
            raise ProtocolError(f"a command cannot be read ({type(error).__name__}: {error})") from error
        if self._association.dimse.message is not None:
            return False
        self._incoming = None
        return True
