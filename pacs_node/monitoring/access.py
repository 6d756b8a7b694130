"""Who may read what of the server: one table, and the ways in which a reader can show who it is."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from enum import Enum
from functools import partial
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import anyio
import structlog
from anyio import CapacityLimiter
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pacs_node.config import Monitoring
from pacs_node.config.monitoring import Network
from pacs_node.errors import ConfigError
from pacs_node.monitoring.credentials import LONGEST_SECRET, read_token
from pacs_node.monitoring.users import Users


class Door(Enum):
    """What a reader has to show."""

    OPEN = "nothing"
    PAGE = "who it is, where `monitoring.auth` asks for it"
    METRICS = "the token, or what the page asks for"


DOORS: Mapping[str, Door] = {"/live": Door.OPEN, "/ready": Door.OPEN, "/metrics": Door.METRICS}
"""Path → door; everything else is the page."""


class Access:
    """Lets those in who may; for others, the answer says what is missing, and nothing of the node. ``failed`` hears who said to be a user and was not."""

    def __init__(self, app: ASGIApp, *, monitoring: Monitoring, failed: Callable[[str, str], object] | None = None) -> None:
        self.app, self.monitoring, self.failed = app, monitoring, failed
        auth = monitoring.auth
        self.users = Users(auth.users_file) if auth is not None and auth.users_file is not None else None
        self._one_at_a_time: CapacityLimiter | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = None if scope["type"] != "http" else await self._refusal(scope)
        await (self.app if refusal is None else refusal)(scope, receive, send)

    async def _refusal(self, scope: Scope) -> Response | None:
        door = DOORS.get(scope["path"], Door.PAGE)
        headers = Headers(scope=scope)
        if door is Door.OPEN:
            return None
        if door is Door.METRICS and self.monitoring.metrics_token_file is not None:
            if _has_token(headers, self.monitoring.metrics_token_file):
                return None
            if self.monitoring.auth is None:
                return _refused(scope, 401, "The token of monitoring.metrics_token_file is asked for.", "Bearer")
        if self.monitoring.auth is None:
            return None
        if self.users is None:
            return self._refused_by_proxy(scope, headers)
        user = _basic(headers)
        if user is not None and await self._known(*user):
            return None
        if user is not None and self.failed is not None:
            await anyio.to_thread.run_sync(self.failed, user[0], (scope.get("client") or ("", 0))[0])
        return _refused(scope, 401, "This page asks for a user and a password.", 'Basic realm="pacs-node", charset="UTF-8"')

    async def _known(self, name: str, password: str) -> bool:
        assert self.users is not None
        if self._one_at_a_time is None:
            self._one_at_a_time = CapacityLimiter(1)  # who guesses delays other guesses, not the threads that make pages
        try:
            return await anyio.to_thread.run_sync(partial(self.users.known, name, password), limiter=self._one_at_a_time)
        except ConfigError as error:
            structlog.get_logger().error("nobody can be let in", problem=str(error))
            return False

    def _refused_by_proxy(self, scope: Scope, headers: Headers) -> Response | None:
        auth = self.monitoring.auth
        assert auth is not None
        assert auth.proxy_header is not None
        if not _comes_from(scope, auth.proxies):
            return _refused(scope, 403, "This page is read through its proxy only.")
        if len(headers.getlist(auth.proxy_header)) != 1 or not headers[auth.proxy_header].strip():
            return _refused(scope, 403, "The proxy has to say who reads this page.")
        return None


def _refused(scope: Scope, status: int, sentence: str, challenge: str = "") -> Response:
    peer = (scope.get("client") or ("", 0))[0]
    structlog.get_logger().warning("page refused", address=peer, path=str(scope["path"])[:100], status=status)
    return PlainTextResponse(sentence + "\n", status, {"WWW-Authenticate": challenge} if challenge else None)


def _has_token(headers: Headers, file: Path) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        return hmac.compare_digest(token.strip().encode(), read_token(file).encode())
    except ConfigError as error:
        structlog.get_logger().error("metrics cannot be read", problem=str(error))
        return False


def _basic(headers: Headers) -> tuple[str, str] | None:
    """Return (user, password) of RFC 7617."""
    scheme, _, said = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic" or len(said) > 2 * LONGEST_SECRET:
        return None
    try:
        name, colon, password = base64.b64decode(said.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, no UTF-8
        return None
    return (name, password) if colon and len(password) <= LONGEST_SECRET else None


def _comes_from(scope: Scope, networks: tuple[Network, ...]) -> bool:
    try:
        peer = ip_address((scope.get("client") or ("", 0))[0])
    except ValueError:
        return False
    if isinstance(peer, IPv6Address) and peer.ipv4_mapped is not None:
        peer = peer.ipv4_mapped
    return any(peer in network for network in networks if network.version == peer.version)
