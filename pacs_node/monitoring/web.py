"""The status page."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from pacs_node.monitoring.sources import Sources


def pages(sources: Sources) -> list[BaseRoute]:
    """Return the routes of the status page, ``/`` first. Handlers are plain functions: Starlette runs them in threads, since they read the database."""

    def overview(_request: Request) -> Response:
        return HTMLResponse("<!doctype html><html lang=en><title>pacs-node</title><p>pacs-node")

    return [Route("/", overview)]
