"""The C-STORE SCP: one receiver process serves the associations that it accepts on the shared socket.

An instance is answered with success when it is durable in the spool (`pacs_node.reception.spool`), with 0xC000 or 0xA900 when it was
kept in quarantine, with 0xA700 when the disk or this node failed: then the sender keeps it and tries again.
"""

from __future__ import annotations

import gc
import signal
import socket
import ssl
import threading
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pydicom.config
from pynetdicom import AE

from pacs_node.config import Reception
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_node.errors import PortInUse
from pacs_node.reception.conversation import Limits
from pacs_node.reception.pacing import SLOTS, Pacer
from pacs_node.reception.receiver import Receiver, host_port
from pacs_node.reception.services import served_by_peers
from pacs_node.reception.tally import Silent, Tally
from pacs_node.reception.upper_layer import StorageServer

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
    services: Sequence[str] = ()  # names in `services.SERVICES` whose requests are taken, beside C-STORE and C-ECHO
    tally: Tally = field(default_factory=Silent)  # who counts
    paid: MutableSequence[float] | None = None  # `pacing.SLOTS` moments shared by all receivers; None: this one counts for itself


def open_socket(address: str, port: int, backlog: int = 128, key: str = "node.port, node.tls_port") -> socket.socket:
    """Open the listening socket that receivers share; port 0 takes any free one. Raises `PortInUse`, naming ``key``, where it cannot be had."""
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(address or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortInUse(address, port, error.strerror or str(error), key) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(target)
        listening.listen(backlog)
        listening.setblocking(False)  # another process may take the connection that woke this one
    except OSError as error:
        listening.close()
        raise PortInUse(address, port, error.strerror or str(error), key) from error
    return listening


def serve(
    config: ReceiverConfig, listening: socket.socket, slots: MutableSequence[int], index: int, stop: threading.Event, tls: ssl.SSLContext | None = None
) -> None:
    """Serve associations until ``stop`` is set, then let the open ones finish for ``config.drain`` seconds and abort the rest.

    ``slots`` holds the number of open associations of every receiver, ``slots[index]`` of this one; in shared memory where there are
    several processes. The sum is kept within ``reception.max_associations``. The listening socket stays open: its owner closes it.
    Who starts a killed receiver anew need not touch ``slots``: the new one begins at zero. With ``tls``, peers have to speak TLS.
    """
    slots[index] = 0
    listening.setblocking(False)
    reception, timeouts = config.reception, config.timeouts
    receiver = Receiver(config.data, tuple(config.ae_titles), reception, _own_address(listening), slots, index)
    receiver.take_requests(config.services)
    receiver.tally = config.tally
    if reception.rate is not None:
        receiver.pacer = Pacer(reception.rate, [0.0] * SLOTS if config.paid is None else config.paid)
    limits = Limits(
        associate=timeouts.associate,
        stall=timeouts.stall,
        max_pdu=reception.max_pdu,
        max_object=reception.max_object,
        connections=reception.max_associations + _SPARE_CONNECTIONS,
    )
    server = StorageServer(_application_entity(config), listening, receiver.begin, limits, fast=reception.fast_path, tls=tls)
    server.idle = receiver.turned
    server.served_by_peers = served_by_peers(config.services)
    threading.Thread(target=_stop_when, args=(stop, server), name="stop", daemon=True).start()
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        server.drain(config.drain)
        receiver.tell_refusals(everything=True)
        slots[index] = 0


def devote_process() -> None:
    """Make a process that does nothing but receive cheaper to run; called once, before `serve`.

    What was imported is never garbage: collections skip it from now on. And pydicom need not judge each of the 2000 UIDs of a proposal.
    """
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    gc.collect()
    gc.freeze()


def serve_until_terminated(config: ReceiverConfig, listening: socket.socket, slots: MutableSequence[int], index: int) -> None:
    """Be a receiver process: `serve` until SIGTERM. An interrupt at the terminal is left to the parent, which then terminates us.

    A signal and not a `multiprocessing.Event`: setting one waits for ever where a process that waited for it was killed.
    """
    devote_process()
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
    return host_port(socket.gethostname() if ip_address(host).is_unspecified else host, port)
