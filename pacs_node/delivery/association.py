"""An association that we open with a destination: with its TLS, released at the end, and what went wrong in one sentence (PS3.8 7.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext

from pacs_node.config import DicomDestination
from pacs_node.delivery.requestor import Requestor
from pacs_node.dicom.tls import ClientContext, client_arguments, explain
from pacs_node.errors import ConfigError, TemporaryFailure


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a destination gets."""

    connect: float = 10.0
    associate: float = 30.0
    response: float = 120.0  # for one object; archives that write to tape or run scripts take their time


@contextmanager
def associated(
    destination: DicomDestination,
    entity: Requestor,
    contexts: Sequence[PresentationContext],
    roles: Sequence[Any] = (),
) -> Iterator[Association]:
    """Open an association, release it at the end, abort it where the block raises; raises `TemporaryFailure` where there is none to be had.

    ``roles`` are the role selections to propose (PS3.7 D.3.3.4). It is open for the block even where no context was accepted: then
    nothing can be sent.
    """
    try:
        tls = client_arguments(destination)
        association = entity.associate(destination.address, destination.port, list(contexts), destination.ae_title, ext_neg=list(roles), tls_args=tls)
    except ConfigError as error:  # a file that was there at the start
        raise TemporaryFailure(place(destination), f"{error.key}: {error.problem}") from error
    except OSError as error:
        raise TemporaryFailure(place(destination), f"the address cannot be resolved ({error.strerror or error})") from error
    answer = association.acceptor.primitive
    if not association.is_established and (answer is None or answer.result != 0 or association.accepted_contexts):
        raise TemporaryFailure(place(destination), _why_not(association, answer, tls[0] if tls else None))
    try:
        yield association
    except BaseException:
        if association.is_established:
            association.abort()  # in the middle of something, the peer might not take a release
        raise
    finally:
        if association.is_established:
            association.release()


def requestor(calling_ae: str, timeouts: Timeouts) -> Requestor:
    """Return ourselves as the one who opens an association."""
    return Requestor(calling_ae, timeouts.connect, timeouts.associate, timeouts.response)


def place(destination: DicomDestination) -> str:
    """Name a destination for people."""
    return f"{destination.ae_title} at {destination.address}:{destination.port}"


def _why_not(association: Association, answer: Any, tls: ClientContext | None) -> str:
    if tls is not None and tls.fault is not None:
        return explain(tls.fault)
    if association.is_rejected and answer is not None:
        return f"rejected the association: {answer.result_str}, {answer.source_str}, {answer.reason_str}"
    return "cannot be reached, or broke off while the association was negotiated: check address and port, and whether it runs"
