"""What is wrong with a certificate, said before anybody connects: at `pacs-node check` and at the start."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pacs_node.config import TLS, DestinationTLS, DicomDestination, Settings, StowDestination
from pacs_node.dicom.tls import by_profile, client_context, load_own, server_context, tls_fault

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME: the dates are judged here, so that they can be named
_SOON = timedelta(days=30)


def examine_reception(settings: Settings, now: datetime) -> Iterator[str]:
    """Look at what ``reception.tls`` names, if anything: yields warnings, raises `ConfigError` for what keeps peers from connecting."""
    tls = settings.reception.tls
    if tls is not None:
        server_context(tls)
        yield from _dates(tls, "reception.tls", now, as_server=True)


def examine_destination(name: str, destination: DicomDestination | StowDestination, now: datetime) -> Iterator[str]:
    """Look at what a destination's ``tls`` names, if anything; as `examine_reception`."""
    if destination.tls is not None:
        yield from examine_tls(destination.tls, f"destinations.{name}.tls", now)


def examine_tls(tls: DestinationTLS, key: str, now: datetime) -> Iterator[str]:
    """Look at what we show and trust where we connect; as `examine_reception`."""
    client_context(tls, key)
    yield from _dates(tls, key, now, as_server=False)


def _dates(tls: TLS | DestinationTLS, key: str, now: datetime, *, as_server: bool) -> Iterator[str]:
    if tls.certificate is not None and tls.key is not None:
        end = valid_until(tls.certificate, tls.key, key, now, as_server=as_server)
        if end - now < _SOON:
            yield f"{key}.certificate: {tls.certificate} expires on {end:%Y-%m-%d}: have a new one issued, and restart the node with it"
        if tls.key.stat().st_mode & 0o077:
            yield f"{key}.key: {tls.key} can be read by others: chmod 600 {tls.key}"
    if tls.ca is not None:
        for authority in expired_authorities(tls.ca, now):
            yield f"{key}.ca: the authority {authority} in {tls.ca} has expired: peers that it signed are refused"


def valid_until(certificate: Path, key_file: Path, key: str, now: datetime, *, as_server: bool) -> datetime:
    """Return until when our own certificate is valid; raises `ConfigError` where peers would refuse it today, or for its stated purpose.

    OpenSSL judges it in a handshake of ours with ourselves, in memory.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    judge = client if as_server else server
    for context in (server, client):
        by_profile(context)
        load_own(context, certificate, key_file, key)
    judge.verify_mode = ssl.CERT_REQUIRED
    judge.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
    judge.load_verify_locations(cafile=certificate)
    try:
        facts = _shake_hands(server, client, as_server=as_server)
    except ssl.SSLCertVerificationError as error:
        raise tls_fault(f"{key}.certificate", f"{certificate} would be refused by peers: {error.verify_message}") from error
    begin, end = (datetime.fromtimestamp(ssl.cert_time_to_seconds(str(facts[name])), UTC) for name in ("notBefore", "notAfter"))
    if now >= end:
        raise tls_fault(f"{key}.certificate", f"{certificate} has expired on {end:%Y-%m-%d}: have a new one issued and restart the node")
    if now < begin:
        raise tls_fault(f"{key}.certificate", f"{certificate} is not valid before {begin:%Y-%m-%d %H:%M} UTC: check the clock, or wait")
    return end


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, *, as_server: bool) -> dict[str, Any]:
    """Let two contexts talk in memory; return what the judging side was shown."""
    inbound, outbound = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [client.wrap_bio(inbound, outbound), server.wrap_bio(outbound, inbound, server_side=True)]
    for _ in range(8):  # flights back and forth; TLS 1.3 needs three
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return sides[0 if as_server else 1].getpeercert() or {}


def expired_authorities(ca: Path, now: datetime) -> list[str]:
    """Return the names of the authorities in a file whose certificates have expired."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cafile=ca)
    expired = [facts for facts in context.get_ca_certs() if ssl.cert_time_to_seconds(str(facts["notAfter"])) <= now.timestamp()]
    return [_said(facts["subject"]) for facts in expired]


def _said(subject: Any) -> str:
    """Write a distinguished name, as the ssl module gives it, for people."""
    return ", ".join(value for part in subject for _, value in part)
