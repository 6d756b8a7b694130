"""``/live`` and ``/ready``: whether the node's loops turn, and whether what it receives becomes results; with reasons.

=============  ========================================================================================  =================
check          passes when                                                                               counts for ready
=============  ========================================================================================  =================
intake         a receiver gives signs of life                                                            yes
disk           there is more room than that at which associations are rejected                           yes
database       it answers                                                                                yes
core           it gives signs of life, and its duties come round                                         yes
worker         at least one gives signs of life                                                          yes
bundles        the models folder holds one at least, each with its weights                               yes
destinations   none is down                                                                              no: reported
alerts         none is open                                                                              no: reported
=============  ========================================================================================  =================

What runs on another machine is not judged here. ``/ready`` is no reason to keep senders away: reception goes on without the database,
the core, workers and destinations, and answers by itself when the disk is full.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pacs_node.analysis.installed import available
from pacs_node.config import shipped
from pacs_node.database.tables import AlertRow
from pacs_node.errors import DatabaseUnavailable
from pacs_node.monitoring.signs import Signs, read_signs
from pacs_node.monitoring.sources import Sources
from pacs_node.reception.pressure import WORDS, Pressure, pressure_of

_ROUNDS = 4  # of `hangs_after` that the core's intake duty may take for one round: a slow disk is no hanging process
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found; ``counts``: a failure makes the node not ready."""

    name: str
    ok: bool
    counts: bool
    reason: str  # one sentence for people


@dataclass(frozen=True, slots=True)
class Health:
    """All checks of a node."""

    checks: tuple[Check, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing that counts has failed."""
        return all(check.ok for check in self.checks if check.counts)

    def as_json(self) -> dict[str, object]:
        """Return what ``/ready`` says."""
        return {
            "ready": self.ready,
            "reasons": [f"{check.name}: {check.reason}" for check in self.checks if check.counts and not check.ok],
            "checks": {check.name: {"ok": check.ok, "counts": check.counts, "reason": check.reason} for check in self.checks},
        }


def routes(sources: Sources) -> list[BaseRoute]:
    """Return the routes of ``/live`` and ``/ready``. They name processes, destinations and numbers, no studies."""

    def live(_request: Request) -> Response:
        silent = list(hanging(sources))
        return JSONResponse({"live": not silent, "reasons": silent}, 503 if silent else 200)

    def ready(_request: Request) -> Response:
        found = judge(sources)
        return JSONResponse(found.as_json(), 200 if found.ready else 503)

    return [Route("/live", live), Route("/ready", ready)]


def hanging(sources: Sources) -> Iterator[str]:
    """Name the processes on this machine whose loops have stopped turning."""
    signs, now, limit = read_signs(sources.counts), time.time(), _limit(sources)
    for process, beat in sorted(signs.beats.items()):
        if now - beat > limit:
            yield f"{process}: no sign of life for {now - beat:.0f} s"
    if signs.gathered is not None and now - signs.gathered > _ROUNDS * limit:
        yield f"core: its intake has not come round for {now - signs.gathered:.0f} s"


def judge(sources: Sources) -> Health:
    """Look at everything."""
    signs = read_signs(sources.counts)
    database, about = _database(sources)
    return Health((_intake(sources, signs), _disk(sources), database, _core(sources, signs), _worker(sources, signs), _bundles(sources), *about))


def _limit(sources: Sources) -> float:
    return sources.settings.monitoring.hangs_after.total_seconds()


def _processes(sources: Sources, signs: Signs, role: str, enough: Callable[[Mapping[str, bool]], bool]) -> tuple[bool, str]:
    """Return whether the processes of a role give signs of life, and what to say."""
    if role not in sources.roles:
        return True, "not on this machine"
    if sources.counts is None:
        return True, "not known: there is no room for signs of life in memory (/dev/shm)"
    alive = {name: time.time() - beat <= _limit(sources) for name, beat in signs.beats.items() if name.partition("-")[0] == role}
    if not alive:
        return False, "has not started yet"
    silent = [f"{name} gives no sign of life" for name, here in sorted(alive.items()) if not here]
    return enough(alive), "; ".join(silent) or "alive"


def _intake(sources: Sources, signs: Signs) -> Check:
    ok, reason = _processes(sources, signs, "receiver", lambda alive: any(alive.values()))
    return Check("intake", ok, True, reason)


def _core(sources: Sources, signs: Signs) -> Check:
    ok, reason = _processes(sources, signs, "core", lambda alive: all(alive.values()))
    if ok and "core" in sources.roles and sources.counts is not None:
        if signs.gathered is None:
            return Check("core", False, True, "is starting: what arrived before is taken in first")
        if time.time() - signs.gathered > _ROUNDS * _limit(sources):
            return Check("core", False, True, f"its intake has not come round for {time.time() - signs.gathered:.0f} s")
    return Check("core", ok, True, reason)


def _worker(sources: Sources, signs: Signs) -> Check:
    ok, reason = _processes(sources, signs, "worker", lambda alive: any(alive.values()))
    return Check("worker", ok, True, reason)


def _disk(sources: Sources) -> Check:
    try:
        disk = sources.measure(sources.data)
    except OSError as error:
        return Check("disk", False, True, f"the data folder cannot be looked at ({error.strerror})")
    pressure = pressure_of(sources.settings, disk)
    return Check("disk", pressure < Pressure.REJECT, True, f"{disk.free / 1e9:.1f} GB free: {WORDS[pressure]}")


def _bundles(sources: Sources) -> Check:
    if "worker" not in sources.roles:
        return Check("bundles", True, True, "not on this machine")
    folder = sources.settings.node.models or shipped("models")
    found = available(folder)
    lacking = [name for name, path in found.items() if not (path / _WEIGHTS).is_file()]
    if lacking or not found:
        problem = f"{', '.join(lacking)} without weights: train, or install again" if lacking else "none installed: nothing can be analysed"
        return Check("bundles", False, True, problem)
    return Check("bundles", True, True, f"{len(found)} installed: {', '.join(found)}")


def _database(sources: Sources) -> tuple[Check, tuple[Check, ...]]:
    """Ask the database; what only it knows is not known without it."""
    open_ones = select(AlertRow.kind, AlertRow.subject).where(AlertRow.cleared_at.is_(None), AlertRow.kind == "destination")
    try:
        with sources.read() as session:
            down = [subject for _, subject in session.execute(open_ones)]
            alerts = session.scalar(select(func.count()).select_from(AlertRow).where(AlertRow.cleared_at.is_(None))) or 0
    except DatabaseUnavailable as error:
        unknown = (Check("destinations", False, False, "not known"), Check("alerts", False, False, "not known"))
        return Check("database", False, True, error.reason), unknown
    where = Check("destinations", not down, False, f"down: {', '.join(sorted(down))}" if down else "none is down")
    return Check("database", True, True, "answers"), (where, Check("alerts", not alerts, False, f"{alerts} open"))
