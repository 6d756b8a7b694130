"""What every answer to a browser says beside its content, and for which names this server answers."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Content Security Policy (W3C CSP 3): everything comes from this server, nothing stands inline, nobody frames the page."""

HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Shield:
    """Adds the security headers to every answer. What says nothing about it is not kept by browsers and proxies.

    With ``only_local``, requests that were addressed to another name than this machine's are refused: a page on the
    internet may give its own name our loopback address, and would read ours with the reader's browser ("DNS rebinding").
    """

    def __init__(self, app: ASGIApp, *, only_local: bool) -> None:
        self.app, self.only_local = app, only_local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_shielded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        host = Headers(scope=scope).get("host", "")
        if self.only_local and not local_name(host):
            answer = PlainTextResponse(f"This address answers to 127.0.0.1 and localhost only, not to {host[:100]!r}.\n", 421)
            await answer(scope, receive, send_shielded)
            return
        await self.app(scope, receive, send_shielded)


def local_name(host: str) -> bool:
    """Tell whether a Host header names this machine: ``localhost`` or a loopback address, with any port."""
    name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
    name = name.strip("[]")
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
