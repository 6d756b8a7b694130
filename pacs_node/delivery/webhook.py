"""Events to a webhook: one POST each, signed with HMAC-SHA-256 as Standard Webhooks 1.0 does, so that any of its libraries verifies it.

::

    webhook-id: <the event's identifier, the same at every attempt>
    webhook-timestamp: <seconds since 1970 at this attempt>
    webhook-signature: v1,<base64 of HMAC-SHA-256(secret, "id.timestamp.body")> [v1,<the same with a second secret>]

A receiver refuses what it cannot verify, what is older or newer than five minutes, and ignores an id that it has seen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx

from pacs_node.config import DestinationTLS, Webhook
from pacs_node.delivery.web import Reply, Timeouts, retry_after, why_not
from pacs_node.dicom.sop_classes import IMPLEMENTATION_VERSION_NAME
from pacs_node.dicom.tls import client_context
from pacs_node.errors import ConfigError, PermanentRefusal, TemporaryFailure

REPLAY_SECONDS = 300  # what receivers are told to allow between our clock and theirs
TIMEOUTS = Timeouts(connect=5.0, response=15.0)
_LEAST_SECRET = 24  # bytes, as Standard Webhooks asks for
_MOST_SECRETS = 2  # the old one and the new one, while they are exchanged
_MOST_ANSWER = 1 << 16  # bytes that are read of an answer nobody looks at
_FINAL = (400, 405, 406, 410, 413, 415, 422)  # statuses that say that this very event will never be taken


def secrets_of(webhook: Webhook, key: str = "events.webhooks") -> tuple[bytes, ...]:
    """Read the secrets that sign, one a line; ``whsec_`` is followed by base64, anything else is taken as it is. Raises `ConfigError`."""
    place = f"{key}.{'secret_file' if webhook.secret_file else 'secret_env'}"
    text = _read(webhook.secret_file, place) if webhook.secret_file else os.environ.get(webhook.secret_env or "", "")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= _MOST_SECRETS:
        remedy = 'make one with: echo "whsec_$(openssl rand -base64 32)"'
        raise ConfigError("configuration", None, place, f"holds {len(lines) or 'no'} secrets: one a line is expected, two while they are exchanged; {remedy}")
    return tuple(_key(line, place) for line in lines)


def examine(webhook: Webhook) -> Iterator[str]:
    """Look at what a webhook names, before anybody connects: yields warnings, raises `ConfigError` for what cannot be used."""
    key = f"events.webhooks ({webhook.title})"
    secrets_of(webhook, key)
    if webhook.secret_file is not None and webhook.secret_file.stat().st_mode & 0o077:
        yield f"{key}.secret_file: {webhook.secret_file} can be read by others: chmod 600 {webhook.secret_file}"
    if webhook.tls is not None:
        client_context(webhook.tls, f"{key}.tls")
    if webhook.in_clear:
        yield f"{key}.url: events go there in clear: use https where others can listen"


def _read(file: Path, key: str) -> str:
    try:
        return file.read_text(encoding="ascii")
    except OSError as error:
        raise ConfigError("configuration", None, key, f"{file} cannot be read ({error.strerror}): name a file that the node's user may read") from error
    except UnicodeDecodeError as error:
        raise ConfigError("configuration", None, key, f"{file} is no ASCII text: write the secret into it, and nothing else") from error


def _key(line: str, place: str) -> bytes:
    try:
        found = base64.b64decode(line.removeprefix("whsec_"), validate=True) if line.startswith("whsec_") else line.encode()
    except binascii.Error as error:
        raise ConfigError("configuration", None, place, "has no base64 after whsec_: make it anew") from error
    if len(found) < _LEAST_SECRET:
        raise ConfigError("configuration", None, place, f"has {len(found)} bytes: a secret of at least {_LEAST_SECRET} is needed")
    return found


def signature(secrets: tuple[bytes, ...], uid: str, timestamp: int, body: bytes) -> str:
    """Return what stands in ``webhook-signature``."""
    signed = f"{uid}.{timestamp}.".encode() + body
    return " ".join(f"v1,{base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()}" for secret in secrets)


def post(webhook: Webhook, uid: str, body: bytes, now: datetime, timeouts: Timeouts = TIMEOUTS) -> None:
    """Post one event. Raises `PermanentRefusal` where this event will never be taken, `TemporaryFailure` for anything else but a 2xx status."""
    try:
        timestamp = int(now.timestamp())
        signed = signature(secrets_of(webhook), uid, timestamp, body)
        context = client_context(webhook.tls or DestinationTLS()) if webhook.url.startswith("https:") else None
    except ConfigError as error:
        raise TemporaryFailure(webhook.title, f"{error.key}: {error.problem}") from error
    headers = {
        "User-Agent": IMPLEMENTATION_VERSION_NAME,
        "Content-Type": "application/json",
        "Accept-Encoding": "identity",
        "webhook-id": uid,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signed,
    }
    extensions = {"sni_hostname": webhook.tls.name} if webhook.tls is not None and webhook.tls.name else {}
    limits = httpx.Timeout(timeouts.response, connect=timeouts.connect)
    with httpx.Client(verify=context or False, headers=headers, timeout=limits, follow_redirects=False, trust_env=False) as client:
        try:
            reply = _exchange(client, client.build_request("POST", webhook.url, content=body, extensions=extensions), webhook, timeouts)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise TemporaryFailure(webhook.title, why_not(error, context)) from error
    if reply.status in _FINAL:
        raise PermanentRefusal(webhook.title, f"does not take this event: {reply.said}")
    if not 200 <= reply.status < 300:
        raise TemporaryFailure(webhook.title, f"answers {reply.said}{_REMEDIES.get(reply.status, '')}", retry_after=reply.retry_after)


_REMEDIES = {
    301: ": write the new address into the configuration, redirects are not followed",
    302: ": write the new address into the configuration, redirects are not followed",
    307: ": write the new address into the configuration, redirects are not followed",
    308: ": write the new address into the configuration, redirects are not followed",
    401: ": it does not accept the signature, check the secret and both clocks",
    403: ": it does not accept the signature, check the secret and both clocks",
    404: ": check the path of the url",
}


def _exchange(client: httpx.Client, request: httpx.Request, webhook: Webhook, timeouts: Timeouts) -> Reply:
    """Send a request and read the answer to its end, or as much of it as anybody could mean."""
    deadline, size = time.monotonic() + timeouts.connect + timeouts.response, 0
    answer = client.send(request, stream=True)
    try:
        for chunk in answer.iter_raw():
            size += len(chunk)
            if size > _MOST_ANSWER:
                break
            if time.monotonic() > deadline:
                raise TemporaryFailure(webhook.title, "answers too slowly")
        return Reply(answer.status_code, None, retry_after(answer.headers))
    finally:
        answer.close()
