"""The socket of one association: reads within limits of size and time, and reads ahead."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from typing import Any

from pynetdicom.transport import AssociationSocket

from pacs_node.reception.conversation import Limits

_A_ASSOCIATE_RQ = 0x01
FIRST_PDU_LIMIT = 1 << 20  # bytes; 128 contexts that name every transfer syntax take about 250 KiB
COMMAND_LIMIT = 1 << 20  # bytes of a command set: far more than any
_AHEAD = 256 * 1024  # bytes that are read at once; the memory is taken only when data comes
_UNEXPECTED_PDU, _INVALID_VALUE = 2, 6  # reasons of an A-ABORT by the provider (PS3.8 Table 9-26)
HEADER, P_DATA_TF = struct.Struct(">BxL"), 0x04  # type and length of a PDU (PS3.8 9.3.1)


class Connection(AssociationSocket):  # type: ignore[misc]  # pynetdicom is untyped
    """A connection, plain or TLS, as pynetdicom reads it (``ready``, ``recv``) and as the fast path does (``peek``, ``take``).

    What was read ahead belongs to both: whoever asks next gets the next byte.
    """

    def __init__(self, association: Any, connection: socket.socket, limits: Limits) -> None:
        super().__init__(association, client_socket=connection)
        self._limits, self._connection = limits, connection
        self._view, self._start, self._end = memoryview(b""), 0, 0  # read ahead: view[start:end]
        self.insecure = ""  # why no TLS came about
        self._in_data = False  # pynetdicom has read the header of a P-DATA-TF
        self._poll = select.poll()  # unlike select(), it takes descriptors above 1023
        self._poll.register(connection, select.POLLIN)

    def await_request(self, seconds: float) -> bool:
        """Read the whole first PDU within ``seconds`` and keep it for the state machine; False where it is no association request."""
        deadline = time.monotonic() + seconds
        try:
            if isinstance(self._connection, ssl.SSLSocket):
                self._connection.settimeout(seconds)
                self._connection.do_handshake()
            start = self._exactly(6, deadline)
            kind, length = HEADER.unpack(start)
            if kind != _A_ASSOCIATE_RQ or length > FIRST_PDU_LIMIT:
                reason = _INVALID_VALUE if kind == _A_ASSOCIATE_RQ else _UNEXPECTED_PDU
                self._connection.sendall(struct.pack(">BxLxxBB", 0x07, 4, 2, reason))
                return False
            request = start + self._exactly(length, deadline)
            self._limit_waiting()
        except OSError as error:
            if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError):  # one that just closes is a probe
                self.insecure = (error.reason or "unknown").replace("_", " ").lower()
            return False
        self._view, self._start, self._end = memoryview(request), 0, len(request)
        return True

    def _limit_waiting(self) -> None:
        """From here on the connection may stall for so long. The kernel counts: a socket with a timeout of Python's is polled before every call."""
        if isinstance(self._connection, ssl.SSLSocket):
            self._connection.settimeout(self._limits.stall)
            return
        self._connection.settimeout(None)
        seconds = struct.pack("@ll", *divmod(int(self._limits.stall * 1e6), 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._connection.setsockopt(socket.SOL_SOCKET, option, seconds)

    def _exactly(self, size: int, deadline: float) -> bytearray:
        found = bytearray()
        while len(found) < size:
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            piece = self._connection.recv(size - len(found))
            if not piece:
                raise ConnectionError("closed before the association request was complete")
            found += piece
        return found

    # --- as pynetdicom reads and writes --------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Tell whether something can be read; a broken connection counts, reading it tells.

        While requests wait to be served nothing more is read: a peer that does not await our answers is slowed, not collected.
        """
        return (self._end > self._start or self.assoc.dimse.msg_queue.qsize() <= 1) and self.wait(0)

    def recv(self, nr_bytes: int) -> bytearray:
        """Read ``nr_bytes``, fewer where the connection ends; raises OSError beyond the limits of time and size."""
        if nr_bytes > (self._limits.max_pdu if self._in_data else FIRST_PDU_LIMIT):
            raise OSError(f"a PDU of {nr_bytes} bytes is longer than the {self._limits.max_pdu} bytes announced")
        message = self.assoc.dimse.message
        if message is not None and (message.data_set.tell() > self._limits.max_object or message.encoded_command_set.tell() > COMMAND_LIMIT):
            raise OSError(f"an object is larger than {self._limits.max_object} bytes")
        found = bytearray()
        with contextlib.suppress(ConnectionError):
            while len(found) < nr_bytes:
                found += self.take(nr_bytes - len(found))
        self._in_data = len(found) == HEADER.size == nr_bytes and found[0] == P_DATA_TF
        return found

    def send(self, bytestream: bytes) -> None:
        """Send all of it; where that fails, the state machine hears that the connection is lost."""
        try:
            self._connection.sendall(bytestream)
        except OSError:
            self.event_queue.put("Evt17")

    # --- as the fast path reads ------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Wait until something can be read, a broken connection included; False where nothing came."""
        if self._end > self._start:
            return True
        if self.socket is None or not self._is_connected:
            return False
        if isinstance(self._connection, ssl.SSLSocket):
            return self._decrypts(self._connection, seconds)
        return bool(self._poll.poll(seconds * 1000))

    def _decrypts(self, connection: ssl.SSLSocket, seconds: float) -> bool:
        """Wait under TLS: what it has decrypted the kernel does not know of, and what the kernel knows of may be TLS's own business."""
        if connection.pending():
            return True
        if not self._poll.poll(seconds * 1000):
            return False
        connection.settimeout(0)
        try:
            self._fill()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        except OSError:
            return True  # whoever reads is told
        finally:
            connection.settimeout(self._limits.stall)
        return True

    def peek(self, size: int) -> memoryview:
        """Return the next ``size`` bytes, a few, and leave them unread; raises OSError where they do not come."""
        while self._end - self._start < size:
            self._fill()
        return self._view[self._start : self._start + size]

    def skip(self, size: int) -> None:
        """Count bytes that were peeked at as read."""
        self._start += size

    def take(self, most: int) -> memoryview:
        """Return the next bytes, at least one and at most ``most``; they are good until the next call. Raises OSError where none come."""
        if self._start == self._end:
            self._fill()
        begin = self._start
        self._start = min(self._end, begin + most)
        return self._view[begin : self._start]

    def _fill(self) -> None:
        """Wait for bytes and read them behind those that are there."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._view) < _AHEAD:
                self._view = memoryview(bytearray(_AHEAD))
        elif self._end == len(self._view):
            rest = bytes(self._view[self._start :])
            if len(rest) == self._end:
                self._view = memoryview(bytearray(len(rest) + _AHEAD))
            self._view[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        try:
            count = self._connection.recv_into(self._view[self._end :])
        except BlockingIOError as error:
            raise TimeoutError(f"nothing came for {self._limits.stall:g} s") from error
        if count == 0:
            raise ConnectionError("closed by the peer")
        self._end += count

    # --- the end -----------------------------------------------------------------------------------------------------------

    def has_ended(self, seconds: float) -> bool:
        """Wait for the peer to close the connection; what it sends in place of that is dropped."""
        self._start = self._end = 0
        if not self.wait(seconds) or self._end:  # TLS reads while it waits
            return False
        try:
            self._fill()
        except OSError:
            return True
        return False

    def cut(self) -> None:
        """End the connection, whatever is under way on it."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._connection.close()
