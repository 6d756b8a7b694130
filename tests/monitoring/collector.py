"""A syslog collector over TLS on loopback, as RFC 5425 has it; it can be told to misbehave."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

from tests.certificates import Pair


class Collector:
    """Keeps what it reads. ``manner``: ``orderly``, ``closes`` (without close_notify), ``hangs`` (never reads), ``breaks`` (resets in the middle), ``silent``
    (reads, and never answers the end)."""

    def __init__(self, own: Pair, *, ca: str | None = None, port: int = 0, manner: str = "orderly") -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(own.certificate, own.key)
        if ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            self.context.load_verify_locations(ca)
        self.manner, self.messages, self.connections = manner, list[bytes](), 0
        self._stop = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", port))
        self._listening.settimeout(0.1)
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(20)
        self._listening.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                plain, _ = self._listening.accept()
            except TimeoutError:
                continue
            self.connections += 1
            plain.settimeout(15)
            with plain, suppress(OSError):
                self._take(plain)

    def _take(self, plain: socket.socket) -> None:
        if self.manner == "hangs":
            self._stop.wait(15)
            return
        with self.context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as secured:
            if self.manner == "breaks":
                secured.recv(100)
                secured.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # its close is a reset
                return
            data = b""
            while chunk := secured.recv(65536):  # b"": the close_notify of the other side
                data += chunk
            self.messages += frames(data)
            if self.manner == "silent":
                self._stop.wait(15)
            elif self.manner == "orderly":
                secured.unwrap().close()


def frames(data: bytes) -> list[bytes]:
    """Take the frames of RFC 5425 4.3 apart: each a count, a space, as many octets."""
    found = []
    while data:
        count, space, rest = data.partition(b" ")
        assert space, data
        assert count.isdigit(), count
        assert not count.startswith(b"0")
        assert len(rest) >= int(count)
        found.append(rest[: int(count)])
        data = rest[int(count) :]
    return found
