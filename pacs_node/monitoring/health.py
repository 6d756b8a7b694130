"""``/live`` and ``/ready``: whether the node works, and why not."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pacs_node.monitoring.sources import Sources


def routes(sources: Sources) -> list[BaseRoute]:
    """Return the routes of ``/live`` and ``/ready``."""

    def live(_request: Request) -> Response:
        return JSONResponse({"live": True})

    def ready(_request: Request) -> Response:
        return JSONResponse({"ready": True, "reasons": []})

    return [Route("/live", live), Route("/ready", ready)]
