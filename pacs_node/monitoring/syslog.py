"""Messages to a syslog collector over TLS: RFC 5424 lines with octet counting (RFC 5425 4.3), as PS3.15 A.6 wants them.

Syslog has no answers. What is known to have arrived is what went before an orderly end: we say that we close (close_notify), and the collector,
which reads in order, answers with the same after it has read everything (RFC 5425 4.4) or closes the connection. One that breaks off, or says
nothing more, leaves it open: then all of that connection is sent again, so that a message may come twice and none is lost.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TypeVar

from pacs_node.config import Syslog
from pacs_node.dicom.tls import ClientContext, client_context, explain
from pacs_node.errors import CollectorFailed, ConfigError

Answer = TypeVar("Answer")

PRIORITY = 85  # facility 10 (security), severity 5 (notice): PS3.15 A.6
MESSAGE_ID = "DICOM+RFC3881"
SECONDS = 10.0  # that each step may take
_LARGEST_SEQUENCE = 2**31 - 1  # of the parameter sequenceId, after which it begins again at 1 (RFC 5424 7.3.1)


def line(text: str, at: datetime, host: str, number: int) -> bytes:
    """Return a syslog message; ``number``: that of the audit row, so that a collector sees what it lacks."""
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    sequence = (number - 1) % _LARGEST_SEQUENCE + 1
    header = f'<{PRIORITY}>1 {stamp} {_name(host)} pacs-node - {MESSAGE_ID} [meta sequenceId="{sequence}"] '
    return header.encode("ascii") + b"\xef\xbb\xbf" + text.encode()


def _name(host: str) -> str:
    """Return a host name as the header takes it: printable ASCII, at most 255 characters."""
    return re.sub(r"[^!-~]", "?", host)[:255] or "-"


def frame(message: bytes) -> bytes:
    """Put the count of its octets before a message."""
    return b"%d %s" % (len(message), message)


def send(collector: Syslog, messages: Iterable[bytes], seconds: float = SECONDS) -> None:
    """Send messages over a connection of their own; on return the collector has read them. Raises `CollectorFailed`."""
    try:
        context = client_context(collector.tls, "audit.syslog.tls")
    except ConfigError as error:
        raise CollectorFailed(collector.name, f"{error.key}: {error.problem}") from error
    try:
        plain = socket.create_connection((collector.host, collector.port), timeout=seconds)
    except OSError as error:
        raise CollectorFailed(collector.name, f"cannot be reached ({error.strerror or error}): check audit.syslog, and whether it runs") from error
    with plain:
        _talk(collector, _Channel(plain, context, collector.tls.name or collector.host), messages)


def _talk(collector: Syslog, channel: _Channel, messages: Iterable[bytes]) -> None:
    try:
        channel.open()
        for message in messages:
            channel.write(frame(message))
        channel.finish()
    except TimeoutError as error:
        raise CollectorFailed(collector.name, "gives no sign that it has read what it was sent: see that it runs, and speaks TLS on this port") from error
    except OSError as error:
        problem = (
            explain(error) if isinstance(error, ssl.SSLError) else f"broke off ({error.strerror or error}): it may not accept our certificate, or want one"
        )
        raise CollectorFailed(collector.name, problem) from error


class _Channel:
    """TLS over a connected socket, through memory: so that the answer to our close_notify is told apart from a refusal, which `SSLSocket.unwrap` hides."""

    def __init__(self, plain: socket.socket, context: ClientContext, name: str) -> None:
        self._plain, self._incoming, self._outgoing = plain, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)

    def open(self) -> None:
        """Shake hands."""
        try:
            self._patiently(self._tls.do_handshake)
        finally:
            self._flush()  # the last of our words, be it why we refuse the other side

    def write(self, data: bytes) -> None:
        """Send some octets."""
        self._tls.write(data)
        self._flush()

    def finish(self) -> None:
        """Say that nothing more comes, and wait until the other side has seen it."""
        for last_words in (lambda: self._tls.read(1), self._tls.unwrap):  # what came meanwhile is read; then close_notify is written
            with contextlib.suppress(ssl.SSLWantReadError):
                last_words()
        self._flush()
        with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):  # it closed in its turn, having read all
            while self._patiently(lambda: self._tls.read(1024)):
                continue

    def _patiently(self, action: Callable[[], Answer]) -> Answer:
        """Do what waits for the other side."""
        while True:
            try:
                return action()
            except ssl.SSLWantReadError:
                self._flush()
                if data := self._plain.recv(65536):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()

    def _flush(self) -> None:
        if data := self._outgoing.read():
            self._plain.sendall(data)
