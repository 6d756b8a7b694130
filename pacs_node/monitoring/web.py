"""The status page: pages that only read, made on the server. They work without a script; with one they are brought up to date by themselves.

::

    /                overview          /jobs       /jobs/7      with /jobs/7/objects/31/1.png, a frame of its secondary capture
    /studies  /studies/3               /deliveries /scores      /search?q=ACCESSION_OR_UID

Whatever comes from a header is text to the templates, which escape it.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from pacs_node.analysis.installed import available, models_folder
from pacs_node.database.tables import ObjectRow
from pacs_node.dicom.sop_classes import name_of
from pacs_node.errors import DatabaseUnavailable, InputError, UnreadableObject
from pacs_node.monitoring import page_job, page_lists, page_overview, page_scores, page_study, preview, words
from pacs_node.monitoring.sources import Sources

REFRESH_SECONDS = 5  # between two looks of a browser that runs scripts
_LONGEST_WORD = 200  # characters of a search

TONES = {
    "complete": "good", "done": "good", "delivered": "good", "up": "good", "steady": "good",
    "receiving": "busy", "queued": "busy", "running": "busy", "waiting": "busy", "sending": "busy", "uncommitted": "busy", "uncertain": "busy",
    "held": "bad", "parked": "bad", "refused": "bad", "down": "bad", "DRIFT": "bad",
}  # fmt: skip
"""State → how it is painted; any other is quiet. The word itself is always there: nothing is said by colour alone."""


def pages(sources: Sources) -> list[BaseRoute]:
    """Return the routes of the status page, ``/`` first. Handlers are plain functions: Starlette runs them in threads, since they read the database."""
    site = _Site(sources)
    shown: dict[str, Callable[[Request, Session], Response]] = {
        "/": site.overview,
        "/studies": site.studies,
        "/studies/{number}": site.study,
        "/jobs": site.jobs,
        "/jobs/{number}": site.job,
        "/jobs/{number}/objects/{object}/{frame}.png": site.picture,
        "/deliveries": site.deliveries,
        "/scores": site.scores,
        "/search": site.search,
    }
    routes: list[BaseRoute] = [Route(path, site.reading(handler)) for path, handler in shown.items()]
    return [*routes, Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")]


class _Site:
    """The pages of one node."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._scores: page_scores.Kept[dict[str, Any]] = page_scores.Kept()
        self._templates = Environment(
            loader=PackageLoader("pacs_node.monitoring"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        self._templates.filters |= {"when": words.when, "span": words.span, "size": words.size, "class_name": name_of}
        self._templates.globals |= {
            "ago": words.ago,
            "until": words.until,
            "counted": words.counted,
            "tones": TONES,
            "node": sources.settings.node.name,
            "patients": sources.settings.monitoring.patients,
            "version": importlib.metadata.version("pacs-node"),
            "refresh": REFRESH_SECONDS,
            "verdict_of": page_job.verdict_of,
            "seconds_of": page_job.seconds_of,
        }

    def reading(self, handler: Callable[[Request, Session], Response]) -> Callable[[Request], Response]:
        """Return an endpoint: the handler with a session; what it cannot answer is said on a page."""

        def endpoint(request: Request) -> Response:
            try:
                with self._sources.read() as session:
                    return handler(request, session)
            except DatabaseUnavailable as error:
                said = f"{error}. Studies are received all the same; this page comes back with the database."
                return self._page(request, "message.html", {"title": "The database is away", "message": said}, 503)
            except (InputError, UnreadableObject) as error:
                return self._page(request, "message.html", {"title": "Not here", "message": str(error)}, 404)

        return endpoint

    def _page(self, request: Request, template: str, facts: dict[str, Any], status: int = 200) -> Response:
        shared = {"now": self._sources.clock(), "base": request.scope.get("root_path", ""), "here": request.url.path, "query": ""}
        return HTMLResponse(self._templates.get_template(template).render({**shared, **facts}), status)

    # --- pages -------------------------------------------------------------------------------------------------------------

    def overview(self, request: Request, session: Session) -> Response:
        """Show how the node is."""
        return self._page(request, "overview.html", page_overview.facts(self._sources, session))

    def studies(self, request: Request, session: Session) -> Response:
        """List studies."""
        asked = request.query_params
        return self._page(request, "studies.html", page_lists.study_list(session, asked.get("state", ""), asked.get("after", "")))

    def study(self, request: Request, session: Session) -> Response:
        """Show a study."""
        return self._page(request, "study.html", page_study.facts(self._sources, session, _number(request, "number")))

    def jobs(self, request: Request, session: Session) -> Response:
        """List jobs."""
        asked = request.query_params
        return self._page(request, "jobs.html", page_lists.job_list(session, asked.get("state", ""), asked.get("before", "")))

    def job(self, request: Request, session: Session) -> Response:
        """Show a job."""
        return self._page(request, "job.html", page_job.facts(self._sources, session, _number(request, "number")))

    def picture(self, request: Request, session: Session) -> Response:
        """Send a frame of a job's secondary capture as PNG."""
        obj = session.get(ObjectRow, _number(request, "object"))
        if obj is None or obj.job_id != _number(request, "number") or obj.kind not in preview.PICTURES:
            raise InputError("there is no such picture of this job")
        return Response(preview.frame_png(preview.file_of(self._sources.data, obj), _number(request, "frame")), media_type="image/png")

    def deliveries(self, request: Request, session: Session) -> Response:
        """List deliveries."""
        asked = request.query_params
        found = page_lists.delivery_list(self._sources, session, asked.get("destination", ""), asked.get("state", ""), asked.get("before", ""))
        return self._page(request, "deliveries.html", found)

    def scores(self, request: Request, session: Session) -> Response:
        """Show the latest scores of each bundle and scanner."""
        bundles = available(models_folder(self._sources.settings))
        return self._page(request, "scores.html", self._scores.get(lambda: page_scores.facts(session, bundles)))

    def search(self, request: Request, session: Session) -> Response:
        """Find studies; the only one found is shown at once."""
        word = request.query_params.get("q", "").replace("\x00", "").strip()[:_LONGEST_WORD]
        found = page_lists.found_studies(session, word) if word else []
        if len(found) == 1:
            return RedirectResponse(f"{request.scope.get('root_path', '')}/studies/{found[0]['row'].id}", 303)
        return self._page(request, "search.html", {"studies": found, "query": word})


def _number(request: Request, name: str) -> int:
    """Return a number of the path; raises `InputError` for anything else, and for one that no row can have."""
    word = request.path_params[name]
    if not (word.isascii() and word.isdigit()) or len(word) > 10 or int(word) > page_lists.LARGEST:
        raise InputError(f"{word[:32]!r} is no number of anything here")
    return int(word)
