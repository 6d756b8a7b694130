"""`pacs-node bench journey --scale`: how much the journey slows down as the database fills up, and how long a worker waits for its job.

Rates are measured in turn with few and with many studies in the database, so that what else the machine does meets both alike; ratios tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import yaml

from pacs_node import clock, node
from pacs_node.config import Settings
from pacs_node.database import jobs
from pacs_node.database.engine import Store, database_url
from pacs_node.journey import House, now
from pacs_node.journey.assemble import assemble
from pacs_node.journey.deliver import deliver
from pacs_node.journey.receive import receive
from pacs_node.journey.run_job import Worker, run_job
from pacs_node.records import Sender
from pacs_node.workbench.bench import work_folder
from pacs_node.workbench.filling import fill
from pacs_node.workbench.hospital import plain_studies, rules
from pacs_node.workbench.stand_in import StandIn
from pacs_node.workbench.tables import job_rows, status_tables

_AFTER_QUIET = timedelta(minutes=1)
_CLAIMS = 300
_LEASE = timedelta(minutes=1)
_EXPLICIT = "1.2.840.10008.1.2.1"
_ROWS_A_STUDY = 10  # instances of a study of the archive of a million

STAGES = ("index", "assemble", "claim, run, commit", "deliver")
"""Of a study's journey, in order."""

AT_REST = ("a round of all duties with nothing to do", "status tables")
"""What does not grow with the traffic and should not grow with the history."""

Say = Callable[[str], None]


def bench_scale(few: int, many: int, instances: int, rounds: int, *, work: Path | None = None, say: Say = lambda what: None) -> dict[str, Any]:
    """Measure with ``few`` and with ``many`` studies in the database, and the claim of a job with ``instances`` instances in it.

    Returns milliseconds a study by stage (medians over ``rounds`` of ten studies each), the ratios, and median and 95 % of the claim.
    """
    with work_folder(work) as folder:
        sides = []
        for count in (few, many):
            say(f"filling a database with {count} studies")
            sides.append(_Side(folder / str(count), count))
        for number in range(rounds + 1):
            say(f"measuring, round {number} of {rounds}")
            for side in sides if number % 2 else sides[::-1]:
                side.measure(number, kept=number > 0)  # the first warms up
        found = {"few": few, "many": many, "ms": [_compared(name, *(side.taken[name] for side in sides)) for name in (*STAGES, "all stages", *AT_REST)]}
        for side in sides:
            side.house.store.close()
        say(f"filling a database with {instances} instances")
        return found | {"claim": _claims(folder / "claims", instances)}


def _compared(name: str, few: Sequence[_Spent], many: Sequence[_Spent]) -> dict[str, Any]:
    one, other = (float(np.median([spent.wall for spent in side])) for side in (few, many))
    work = [float(np.median([spent.processor for spent in side])) for side in (few, many)]
    return {"stage": name, "few": one, "many": other, "ratio": other / one, "processor_ratio": work[1] / max(work[0], 1e-3)}


class _Side:
    """A house with a history, and the milliseconds that it took."""

    def __init__(self, folder: Path, studies: int) -> None:
        folder.mkdir()
        self.house, self.worker = _house(folder), Worker("bench", StandIn())
        fill(self.house.store, studies, 4, queued=0)
        self.taken: dict[str, list[_Spent]] = {name: [] for name in (*STAGES, "all stages", *AT_REST)}

    def measure(self, number: int, *, kept: bool) -> None:
        """Let ten studies go all the way."""
        studies = plain_studies(f"round {number}", 10)
        for index, study in enumerate(studies):
            sender = Sender("BENCH", "PACS_NODE", "127.0.0.1:1", f"b{number}x{index}")
            for image in study:
                self.house.spool.store(sender, image.sop_class_uid, image.sop_uid, _EXPLICIT, [image.body])
            self.house.spool.end_association(sender, released=True, stored=len(study), refused=0)
        later = now() + _AFTER_QUIET
        self.house.clock = lambda: later
        steps: list[Callable[[], object]] = [
            lambda: _all(lambda: receive(self.house, later)),
            lambda: _all(lambda: assemble(self.house, later)),
            lambda: _all(lambda: run_job(self.house, self.worker)),
            lambda: _all(lambda: deliver(self.house, "archive", later)),
        ]
        spent = [_spent(step, len(studies)) for step in steps]
        whole = _Spent(sum(one.wall for one in spent), sum(one.processor for one in spent))
        _round(self.house)  # what comes due once after a change is not to be counted
        rest = [_spent(lambda: _round(self.house)), _spent(lambda: (status_tables(self.house.settings), job_rows(self.house.settings, 50)))]
        if kept:
            for name, value in zip(self.taken, (*spent, whole, *rest), strict=True):
                self.taken[name].append(value)


def _all(step: Callable[[], object]) -> None:
    while step():
        pass


def _round(house: House) -> None:
    for duty in clock.duties(house):
        duty.run(house)


@dataclass(frozen=True, slots=True)
class _Spent:
    """Milliseconds that passed, and those that a processor worked for this process."""

    wall: float
    processor: float


def _spent(step: Callable[[], object], parts: int = 1) -> _Spent:
    """Return what each of the ``parts`` of a step took."""
    used = time.process_time()  # outside of what it times: asking the system may itself take milliseconds
    begin = time.perf_counter()
    step()
    wall = time.perf_counter() - begin
    return _Spent(1000 * wall / parts, 1000 * (time.process_time() - used) / parts)


def _house(folder: Path) -> House:
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules(), sort_keys=False))
    settings = Settings.model_validate(
        {
            "node": {"name": "bench", "data": str(folder / "data"), "rules": str(folder / "rules.yaml")},
            "reception": {"reserve": "0B"},
            "retention": {"keep": "3650d", "high_watermark": "100%"},
            "destinations": {"archive": {"kind": "folder", "path": str(folder / "out")}},
        }
    )
    (folder / "data").mkdir()
    house = node.make_house(settings)
    house.store.upgrade()
    house.log = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical"))
    return house


# --- the claim ---------------------------------------------------------------------------------------------------------------


def _claims(folder: Path, instances: int) -> dict[str, Any]:
    """Time claims in a database with a long history, a hundredth of whose jobs wait."""
    folder.mkdir()
    store = Store(database_url(None, folder))
    store.upgrade()
    studies = max(1, instances // _ROWS_A_STUDY)
    queued = max(_CLAIMS, studies // 100)
    fill(store, studies, _ROWS_A_STUDY, queued=queued)
    moment = now()
    taken: list[tuple[float, float]] = []
    work = _spent(lambda: taken.extend(_claim(store, moment) for _ in range(_CLAIMS)), _CLAIMS)
    store.close()
    figures: dict[str, Any] = {"instances": studies * _ROWS_A_STUDY, "jobs": studies + queued, "queued": queued, "processor_ms": work.processor}
    for name, values in zip(("claim", "transaction"), zip(*taken, strict=True), strict=True):
        figures |= {f"{name}_ms_median": float(np.median(values)), f"{name}_ms_p95": float(np.percentile(values, 95))}
    return figures


def _claim(store: Store, moment: datetime) -> tuple[float, float]:
    """Return the milliseconds that a claim took, and the transaction around it."""
    begin = time.perf_counter()
    with store.write() as session:
        started = time.perf_counter()
        job = jobs.claim(session, "bench", moment, _LEASE)
        claimed = time.perf_counter()
        assert job is not None
    return 1000 * (claimed - started), 1000 * (time.perf_counter() - begin)
