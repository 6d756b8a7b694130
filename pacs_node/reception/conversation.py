"""The seam to the network: what an association needs from us. Both data paths speak to it, and nothing else of ours.

::

    A-ASSOCIATE-RQ ─► admit ──► the contexts to accept, or why not
    C-STORE-RQ     ─► open  ──► Sink: write, write, … commit ──► status of the response
                                      └─ discard, where the association ends before the object does
    N-…-RQ         ─► note  ──► status of the response
    the end        ─► end
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pacs_node.reception.admission import Rejection
from pacs_node.reception.files import Bytes


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
    """A C-STORE request: what its command says of the dataset that follows."""

    sop_class: str
    sop_instance: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class NoteRequest:
    """A DIMSE-N request, whole (PS3.7 chapter 10)."""

    operation: str  # n-create, n-set, n-action, n-event-report, n-get, n-delete
    sop_class: str  # affected or requested
    sop_instance: str
    number: int | None  # Action Type ID or Event Type ID
    transfer_syntax: str
    content: bytes = b""  # the encoded dataset


class Sink(Protocol):
    """Where the bytes of one dataset go. None of the calls may raise."""

    def write(self, part: Bytes) -> None:
        """Take the next bytes; ``part`` is overwritten after the call. What cannot be kept is dropped, and `commit` says so."""

    def commit(self) -> int:
        """The dataset is complete: return the status of the C-STORE response."""

    def discard(self) -> None:
        """The dataset will never be complete: nothing of it stays."""


class Conversation(Protocol):
    """What an association needs from us. None of the calls may raise."""

    def admit(self, proposal: Proposal) -> Mapping[str, tuple[str, ...]] | Rejection:
        """Return abstract syntax → transfer syntaxes in order of preference, or why the association is refused."""

    def open(self, request: StoreRequest) -> Sink:
        """Begin to take an instance in. What is refused gets a sink too, which drops the bytes: they have to be read anyway."""

    def takes(self, sop_class: str) -> bool:
        """Tell whether requests on a SOP class are `note`'s; all others are pynetdicom's."""

    def note(self, request: NoteRequest) -> int:
        """Keep a DIMSE-N request; return the status of its response."""

    def insecure(self, host: str, reason: str) -> None:
        """No TLS came about with the peer; there will be no association."""

    def end(self, released: bool) -> None:
        """The association is over; called once for each connection, whatever happened."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and sizes that keep a peer from holding us."""

    associate: float  # a whole A-ASSOCIATE-RQ must have come
    stall: float  # a PDU that has begun must bring something
    max_pdu: int  # bytes, as announced
    max_object: int  # bytes of one dataset that is held in memory until it is complete
    connections: int  # open connections of one process, admitted or not
