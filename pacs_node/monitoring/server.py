"""The server of the status page, ``/live``, ``/ready`` and ``/metrics``: a process of its own that only reads.

::

    /live /ready            open to everyone                              health.py
    /metrics                token, or as the page                         exposition.py
    /…                      loopback, or `monitoring.auth`                web.py
"""

from __future__ import annotations

import asyncio
import socket
import threading

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from pacs_node.errors import DatabaseUnavailable
from pacs_node.monitoring import exposition, health, web
from pacs_node.monitoring.access import Access
from pacs_node.monitoring.credentials import context
from pacs_node.monitoring.logins import Logins
from pacs_node.monitoring.shield import Shield
from pacs_node.monitoring.sources import Sources

_CONNECTIONS = 128  # at once; more are answered 503
_GRACE_SECONDS = 3  # that requests get when the process is to stop
_FIRST_REQUEST_SECONDS = 10.0  # that a connection has for it: those that say nothing must not keep others, and probes, away


class _Impatient(H11Protocol):
    """A connection that is closed where its first request does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(_FIRST_REQUEST_SECONDS, self._leave_the_silent)

    def _leave_the_silent(self) -> None:
        if getattr(self, "cycle", None) is None and not self.transport.is_closing():  # uvicorn says that it is never None
            self.transport.close()


def application(sources: Sources, logins: Logins | None = None) -> Starlette:
    """Compose health, metrics and pages."""
    monitoring = sources.settings.monitoring
    access = Middleware(Access, monitoring=monitoring, failed=logins.failed if logins else None)
    return Starlette(
        routes=[*health.routes(sources), *exposition.routes(sources), *web.pages(sources)],
        middleware=[Middleware(Shield, only_local=monitoring.auth is None), access],
        exception_handlers={DatabaseUnavailable: _database_away, Exception: _fault},
    )


def _database_away(_request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}\nReception goes on; this page comes back with the database.\n", 503)


def _fault(request: Request, error: Exception) -> Response:
    structlog.get_logger().error("page failed", path=request.url.path, exc_info=error)
    return PlainTextResponse("A fault of this page; the node's log has the details.\n", 500)


def serve(sources: Sources, listening: socket.socket, stop: threading.Event) -> None:
    """Serve on a listening socket until ``stop`` is set; returns early where the server fails."""
    logins = Logins(sources.data)
    config = uvicorn.Config(
        application(sources, logins),
        log_config=None,
        access_log=False,
        proxy_headers=False,  # whose word about the peer is believed is `access`'s to say
        server_header=False,
        lifespan="off",
        ws="none",
        http=_Impatient,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    config.load()
    config.ssl = context(sources.settings.monitoring)
    server = uvicorn.Server(config)

    def run() -> None:
        try:
            server.run(sockets=[listening])
        finally:
            stop.set()  # a server that fails ends the process, which is then replaced

    thread = threading.Thread(target=run, name="page")  # not the main thread: signals stay ours
    thread.start()
    stop.wait()
    server.should_exit = True
    thread.join()
    logins.tell()
