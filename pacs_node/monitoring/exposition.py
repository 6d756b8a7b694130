"""``/metrics`` in Prometheus' text format: what the processes counted, and what is looked up now."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from pacs_node.monitoring.counting import UNREADABLE
from pacs_node.monitoring.gauges import Row, look
from pacs_node.monitoring.health import judge
from pacs_node.monitoring.metrics import METRICS
from pacs_node.monitoring.sources import Sources

_FRESH_SECONDS = 2.0  # several scrapers at once cost one look


def routes(sources: Sources) -> list[BaseRoute]:
    """Return the route of ``/metrics``."""
    registry = CollectorRegistry()
    registry.register(NodeCollector(sources))

    def metrics(request: Request) -> Response:
        encoder, kind = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(registry), headers={"Content-Type": kind})

    return [Route("/metrics", metrics)]


class NodeCollector(Collector):
    """Everything of a node, as prometheus_client wants it."""

    def __init__(self, sources: Sources) -> None:
        self._sources, self._lock = sources, threading.Lock()
        self._looked, self._at = list[Row](), -_FRESH_SECONDS

    def describe(self) -> Iterable[prometheus_client.Metric]:
        """Nothing is looked up to be registered."""
        return []

    def collect(self) -> Iterator[prometheus_client.Metric]:
        """Give every metric that has values."""
        yield from counted(self._sources.counts)
        found: dict[str, prometheus_client.Metric] = {}
        for name, labels, value in self._rows():
            metric = METRICS[name]
            family = found.setdefault(name, prometheus_client.Metric(name, metric.help, metric.kind.value))
            family.add_sample(name, dict(zip(metric.labels, labels, strict=True)), value)
        yield from found.values()

    def _rows(self) -> list[Row]:
        with self._lock:
            if time.monotonic() - self._at >= _FRESH_SECONDS:
                rows, _ = look(self._sources)
                ready = judge(self._sources).ready
                name = self._sources.settings.node.name
                self._looked = [*rows, ("pacs_node_ready", (), float(ready)), ("pacs_node_info", (name, _version()), 1.0)]
                self._at = time.monotonic()
            return self._looked


def counted(folder: Path | None) -> list[prometheus_client.Metric]:
    """Return what the processes counted; files that come, go or are damaged are left out."""
    files = [str(file) for file in sorted(folder.glob("*.db")) if _readable(str(file))] if folder is not None else []
    try:
        return list(MultiProcessCollector.merge(files))
    except UNREADABLE:  # a process ended a moment ago: the next scrape has the others
        return []


def _readable(file: str) -> bool:
    try:
        MultiProcessCollector.merge([file])
    except UNREADABLE:
        return False
    return True


def _version() -> str:
    try:
        return version("pacs-node")
    except PackageNotFoundError:
        return "unknown"
