"""What the page of scores shows: the latest of each bundle and scanner beside its threshold, and whether they have drifted."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from sqlalchemy.orm import Session

from pacs_node.analysis.drift import threshold_of
from pacs_node.database import overview
from pacs_node.monitoring import charts
from pacs_node.monitoring.drift import LEAST, Watched, site_calibration, watched

_JOBS = 5000  # the newest of the node that are looked at
_SHOWN = 200  # scores of one chart
_KEPT = 30.0  # seconds that what was read is shown again

Answer = TypeVar("Answer")


class Kept(Generic[Answer]):
    """An answer that costs some time, kept for a while; one asks at a time."""

    def __init__(self, seconds: float = _KEPT) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._known: tuple[float, Answer] | None = None

    def get(self, make: Callable[[], Answer]) -> Answer:
        """Return the kept answer, or make it anew."""
        with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > self._seconds:
                self._known = (time.monotonic(), make())
            return self._known[1]


@dataclass(frozen=True, slots=True)
class Group:
    """The latest scores of one scanner, judged by one bundle."""

    scanner: str
    count: int
    above: int | None  # of those shown; None without a threshold
    threshold: float | None
    last: datetime
    chart: charts.Scatter


@dataclass(frozen=True, slots=True)
class BundleScores:
    """One bundle: its scanners, and what the comparison with its calibration says (nothing without a site's own)."""

    name: str
    calibrated: bool
    drift: tuple[Watched, ...]
    groups: tuple[Group, ...]


def facts(session: Session, bundles: Mapping[str, Path]) -> dict[str, Any]:
    """Return what the template shows."""
    scores: dict[str, dict[str, list[tuple[datetime, float]]]] = defaultdict(lambda: defaultdict(list))
    for pipeline, moment, finding in overview.recent_findings(session, _JOBS):
        if moment is not None and "score" in finding:
            rows = scores[pipeline][str(finding.get("origin") or finding.get("scanner") or "")]
            if len(rows) < _SHOWN:
                rows.append((moment, float(finding["score"])))
    seen = watched(session, bundles)
    found = [_bundle(name, bundles.get(name), groups, [one for one in seen if one.bundle == name]) for name, groups in sorted(scores.items())]
    return {"bundles": found, "idle": [name for name in bundles if name not in scores], "least": LEAST}


def _bundle(name: str, folder: Path | None, groups: Mapping[str, list[tuple[datetime, float]]], drift: list[Watched]) -> BundleScores:
    read = site_calibration(folder) if folder is not None else None
    made = []
    for scanner, rows in sorted(groups.items()):
        threshold = None
        if read is not None:
            own = threshold_of(read[0], scanner)
            threshold = threshold_of(read[0], "") if own is None else own
        above = None if threshold is None else sum(score > threshold for _, score in rows)
        chart = charts.scatter(rows, threshold, 480, 120)
        made.append(Group(scanner or "scanner not recorded", len(rows), above, threshold, max(moment for moment, _ in rows), chart))
    return BundleScores(name, read is not None, tuple(drift), tuple(made))
