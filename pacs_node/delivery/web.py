"""HTTP to a DICOMweb server: one connection with TLS and authentication, answers bounded in size and time, every fault a `TemporaryFailure`."""

from __future__ import annotations

import email.utils
import os
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Self

import httpx

from pacs_node.config import Auth, DestinationTLS, StowDestination
from pacs_node.dicom.sop_classes import IMPLEMENTATION_VERSION_NAME
from pacs_node.dicom.tls import ClientContext, client_context, explain
from pacs_node.errors import ConfigError, TemporaryFailure

ACCEPT = "application/dicom+json, application/dicom+xml;q=0.5"
_MOST_ANSWER = 8 << 20  # bytes that are read of an answer; one about 32 objects has some 20 kB
_MOST_SECRET = 1 << 16


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a server gets."""

    connect: float = 10.0
    response: float = 120.0  # for its answer, and for each piece of ours to be taken
    slowest: float = 50_000.0  # bytes a second: a request may take as much longer as its body needs at this rate


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered."""

    status: int
    body: bytes | None  # None: longer than any answer has to be, or packed although we take none that is
    retry_after: timedelta | None = None
    location: str = ""  # of a redirect, which is never followed

    @property
    def said(self) -> str:
        """The status for people."""
        known = next((status.phrase for status in HTTPStatus if status == self.status), "")
        return f"HTTP {self.status} {known}".rstrip()


class Service:
    """A DICOMweb server for the length of one delivery; use it as a context manager."""

    def __init__(self, destination: StowDestination, timeouts: Timeouts = Timeouts()) -> None:
        self.name, self._timeouts, self._base = destination.url, timeouts, destination.url
        try:
            self._context = client_context(destination.tls or DestinationTLS()) if destination.url.startswith("https:") else None
            headers = {"User-Agent": IMPLEMENTATION_VERSION_NAME, "Accept-Encoding": "identity", **authorisation(destination.auth)}
        except ConfigError as error:  # a file that was there at the start
            raise TemporaryFailure(self.name, f"{error.key}: {error.problem}") from error
        self._extensions = {"sni_hostname": destination.tls.name} if destination.tls is not None and destination.tls.name else {}
        limits = httpx.Timeout(timeouts.response, connect=timeouts.connect)
        # No proxies and no .netrc from the environment: what goes where is written in the configuration.
        self._client = httpx.Client(verify=self._context or False, headers=headers, timeout=limits, follow_redirects=False, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, query: Mapping[str, str]) -> Reply:
        """Ask for what lies below the base of the service."""
        return self._exchange(self._client.build_request("GET", self._base + path, params=dict(query), headers={"Accept": "application/dicom+json"}), 0)

    def post(self, path: str, content: Iterator[bytes], size: int, content_type: str) -> Reply:
        """Send ``content`` of ``size`` bytes as it is read; raises OSError where it cannot be read to its end."""
        deadline = time.monotonic() + self._allowed(size)
        headers = {"Accept": ACCEPT, "Content-Type": content_type, "Content-Length": str(size)}
        return self._exchange(self._client.build_request("POST", self._base + path, content=self._in_time(content, deadline), headers=headers), size)

    def _allowed(self, size: int) -> float:
        return self._timeouts.connect + self._timeouts.response + size / self._timeouts.slowest

    def _in_time(self, chunks: Iterator[bytes], deadline: float) -> Iterator[bytes]:
        for chunk in chunks:
            if time.monotonic() > deadline:
                raise TemporaryFailure(self.name, "takes what it is sent, or answers, too slowly")
            yield chunk

    def _exchange(self, request: httpx.Request, size: int) -> Reply:
        deadline = time.monotonic() + self._allowed(size)
        request.extensions = {**request.extensions, **self._extensions}
        try:
            answer = self._client.send(request, stream=True)
            try:
                return self._reply(answer, deadline)
            finally:
                answer.close()
        except httpx.LocalProtocolError as error:  # the file became longer or shorter while it was read
            raise OSError(f"what was to be sent changed meanwhile: {error}") from error
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise TemporaryFailure(self.name, why_not(error, self._context)) from error

    def _reply(self, answer: httpx.Response, deadline: float) -> Reply:
        body: bytes | None = b""
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            body = None
        else:
            read = bytearray()
            for chunk in self._in_time(answer.iter_raw(), deadline):
                read += chunk
                if len(read) > _MOST_ANSWER:
                    break
            body = bytes(read) if len(read) <= _MOST_ANSWER else None
        return Reply(answer.status_code, body, retry_after(answer.headers), answer.headers.get("Location", ""))


def retry_after(headers: Mapping[str, str]) -> timedelta | None:
    """Return how long a server asks to be left alone (RFC 9110 10.2.3): seconds, or a date that is judged by the server's own clock."""
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return timedelta(seconds=min(int(asked[:12]), 10**9))
    try:
        wait = email.utils.parsedate_to_datetime(asked) - email.utils.parsedate_to_datetime(headers.get("Date", ""))
    except (TypeError, ValueError):
        return None
    return max(wait, timedelta(0))


def examine(name: str, destination: StowDestination) -> Iterator[str]:
    """Look at what a destination's ``auth`` names, before anybody connects: yields warnings, raises `ConfigError` for what cannot be used."""
    auth, key = destination.auth, f"destinations.{name}.auth"
    authorisation(auth, key)
    if destination.in_clear:
        yield f"destinations.{name}.url: results{' and secrets' if auth else ''} go to {destination.url} in clear: use https where others can listen"
    file = auth and (auth.bearer_file or (auth.basic and auth.basic.password_file))
    if file and file.stat().st_mode & 0o077:
        yield f"{key}: {file} can be read by others: chmod 600 {file}"


def authorisation(auth: Auth | None, key: str = "auth") -> dict[str, str]:
    """Return the header that shows who we are; raises `ConfigError`, with the path of the configuration below ``key``, for an unusable secret."""
    if auth is None:
        return {}
    if auth.basic is not None:
        place = f"{key}.basic.{'password_file' if auth.basic.password_file else 'password_env'}"
        password = secret_of(auth.basic.password_file, auth.basic.password_env, place)
        made = httpx.BasicAuth(auth.basic.user, password)
        return {"Authorization": next(made.auth_flow(httpx.Request("GET", "http://localhost"))).headers["Authorization"]}
    place = f"{key}.{'bearer_file' if auth.bearer_file else 'bearer_env'}"
    token = secret_of(auth.bearer_file, auth.bearer_env, place)
    if not token.isascii() or any(character.isspace() for character in token):
        raise _unusable(place, "holds no token: one line of ASCII characters without spaces is expected")
    return {"Authorization": f"Bearer {token}"}


def secret_of(file: Path | None, variable: str | None, key: str) -> str:
    """Read a secret of one line from a file or from an environment variable; raises `ConfigError` about ``key`` where there is none to be had."""
    if file is None:
        text = os.environ.get(variable or "", "")
        what = f"the environment variable {variable}"
    else:
        what = str(file)
        try:
            with file.open(encoding="utf-8") as source:
                text = source.read(_MOST_SECRET)
        except OSError as error:
            raise _unusable(key, f"{file} cannot be read ({error.strerror}): name a file that the node's user may read") from error
        except UnicodeDecodeError as error:
            raise _unusable(key, f"{file} is not UTF-8 text: write the secret into it, and nothing else") from error
    secret = text.rstrip("\r\n")
    if not secret or not secret.isprintable():
        raise _unusable(key, f"{what} holds no secret: one line of printable characters is expected")
    return secret


def _unusable(key: str, problem: str) -> ConfigError:
    return ConfigError("configuration", None, key, problem)


def why_not(error: Exception, context: ClientContext | None) -> str:
    """Say what went wrong on the way, and what to do."""
    if context is not None and context.fault is not None:
        return explain(context.fault)
    if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
        return f"cannot be reached ({_root(error)}): check address and port, and whether it runs"
    if isinstance(error, httpx.TimeoutException):
        return "gives no answer, or takes nothing any more"
    return f"broke off, or does not speak HTTP ({_root(error)})"


def _root(error: BaseException) -> str:
    """Return the words of the system, which libraries wrap several times."""
    while error.__context__ is not None and not isinstance(error, ssl.SSLError):
        error = error.__context__
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
