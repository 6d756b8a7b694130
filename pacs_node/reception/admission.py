"""May this association be opened? A pure decision with the answer codes of PS3.8 9.3.4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from pacs_node.config import AllowedSender

_PERMANENT, _TRANSIENT = 1, 2
_NO_REASON, _CALLING_AE, _CALLED_AE = 1, 3, 7  # reasons of the service user
_USER, _PRESENTATION = 1, 3  # who refuses: the service user, or the service provider's presentation function


@dataclass(frozen=True, slots=True)
class Admitted:
    """The association may be opened; ``sender`` is the entry of the configuration that allows it, None where anyone may send."""

    sender: AllowedSender | None = None


@dataclass(frozen=True, slots=True)
class Rejection:
    """The association is refused with these codes of the A-ASSOCIATE-RJ PDU (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int
    text: str

    @property
    def for_good(self) -> bool:
        """Whether it is for who the peer is, and not for what is lacking at the moment."""
        return self.result == _PERMANENT

    @property
    def why(self) -> str:
        """The reason in a few words, without what the peer said."""
        known = {_CALLED_AE: "called AE title not recognised", _CALLING_AE: "calling AE title not allowed"}
        return known.get(self.reason, "calling AE title not allowed from this address") if self.for_good else self.text


LOCAL_FAULT = Rejection(_TRANSIENT, 2, 1, "a fault of this node; the log has the details")


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of an association request, and of this node at that moment."""

    called_ae: str
    calling_ae: str
    address: str  # IP address of the peer
    open_associations: int  # of all receivers, with this one
    has_room: bool  # the spool's disk has more room than that at which associations are rejected


@dataclass(frozen=True, slots=True)
class Terms:
    """What the configuration allows."""

    ae_titles: Sequence[str]
    senders: Sequence[AllowedSender]  # empty: anyone
    max_associations: int


def decide(request: Request, terms: Terms) -> Admitted | Rejection:
    """Decide about one request; what the peer can never change by waiting is said first."""
    if request.called_ae.strip() not in terms.ae_titles:
        return Rejection(_PERMANENT, _USER, _CALLED_AE, f"called AE title {request.called_ae!r} is none of {', '.join(terms.ae_titles)}")
    sender = next((sender for sender in terms.senders if _matches(sender, request)), None)
    if terms.senders and sender is None:
        known = any(sender.ae_title == request.calling_ae.strip() for sender in terms.senders)
        reason = _NO_REASON if known else _CALLING_AE  # a known title from elsewhere: the standard has no reason for addresses
        return Rejection(_PERMANENT, _USER, reason, f"calling AE title {request.calling_ae!r} from {request.address} is not among reception.senders")
    if request.open_associations > terms.max_associations:
        return Rejection(_TRANSIENT, _PRESENTATION, 2, f"{terms.max_associations} associations are open, which is reception.max_associations")
    if not request.has_room:
        return Rejection(_TRANSIENT, _PRESENTATION, 1, "the disk of the spool is almost filled up to reception.reserve")
    return Admitted(sender)


def _matches(sender: AllowedSender, request: Request) -> bool:
    if sender.ae_title != request.calling_ae.strip():
        return False
    if sender.network is None:
        return True
    address = ip_address(request.address.partition("%")[0])
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address in sender.network
