"""`pacs-node bench journey`: a simulated hospital day through a node of its own, and everything accounted for at its end.

::

    studies of a seed ── C-STORE, several associations ──► receivers and core (own process trees) ── C-STORE ──► archive, away for a while
                                                               └── one worker here, with an engine that stands in
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
import yaml
from sqlalchemy import func, select

from pacs_node import node
from pacs_node.config import Settings, load_settings
from pacs_node.database.tables import DeliveryRow
from pacs_node.delivery.archive import FolderArchive
from pacs_node.errors import StartError
from pacs_node.executors import local
from pacs_node.journey import now
from pacs_node.journey.run_job import Worker, run_job
from pacs_node.workbench.accounts import Accounts, account, at_rest
from pacs_node.workbench.bench import work_folder
from pacs_node.workbench.children import running_node
from pacs_node.workbench.hospital import SOP_CLASSES, DayStudy, Image, Piece, plan, rules
from pacs_node.workbench.receivers import AE_TITLE, free_port, wait_until_ready
from pacs_node.workbench.sender import Sender
from pacs_node.workbench.stand_in import StandIn
from pacs_node.workbench.tables import open_store

_SENDERS = 4  # associations at once
_TOGETHER = 3  # studies whose images one association mixes
_OUTAGE_BEGINS = 0.15  # share of the studies whose results are out by then
_QUIET = 2.0  # seconds
_SECONDS_A_STUDY = 5.0  # how long the end of the day is awaited, beside the minute that it takes at least

Say = Callable[[str], None]


@dataclass
class _Tally:
    """What senders were answered. Written by several threads."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, image: Image) -> None:
        with self.lock:
            self.acknowledged[hashlib.sha256(image.body).hexdigest()] += 1


def bench_journey(
    studies: int, seed: int, *, outage: float = 12.0, models: bool = False, work: Path | None = None, say: Say = lambda what: None
) -> dict[str, Any]:
    """Send a day of ``studies`` through a node and draw it up; ``wrong`` in what is returned lists what is not accounted for.

    ``outage``: seconds for which the archive is away. ``models``: the node's own workers judge, with the shipped models, which find most of
    these small studies out of scope; else an engine that stands in. Raises `StartError` where the node does not come up.
    """
    day = plan(studies, seed)
    with work_folder(work) as folder, FolderArchive(folder / "archive", "ARCHIVE") as archive:
        settings = _configure(folder, archive.port)
        with _running(folder, models=models):
            worker = _stand_in_worker(settings) if not models else None
            try:
                tally, begin = _Tally(), now()
                away = threading.Thread(target=_be_away, args=(archive, max(1, int(studies * _OUTAGE_BEGINS)), outage), name="outage", daemon=True)
                away.start()
                sending = _send_day(day, settings.node.port, tally, random.Random(seed), say)
                say("waiting until nothing is under way")
                rested = _wait(settings, away, 60.0 + outage + _SECONDS_A_STUDY * studies)
            finally:
                if worker is not None:
                    worker()
        accounts = account(settings, day, tally.acknowledged, archive.folder, archive.received, forgiving=models)
        if not rested:
            accounts.wrong.insert(0, "not everything came to rest in time")
        return _figures(settings, day, accounts, begin, sending) | {"seed": seed, "outage_s": outage}


def _configure(folder: Path, archive_port: int) -> Settings:
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules(), sort_keys=False))
    me = {"name": "bench", "ae_titles": [AE_TITLE], "address": "127.0.0.1", "port": free_port()}
    config = {
        "node": me | {"data": str(folder / "data"), "rules": str(folder / "rules.yaml")},
        "reception": {"reserve": "100MB"},
        "assembly": {"quiet": f"{_QUIET:g}s"},
        "retention": {"high_watermark": "100%"},
        "monitoring": {"port": None},
        "destinations": {"archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": archive_port, "accepts_research": True}},
    }
    (folder / "node.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return load_settings(folder / "node.yaml")


@contextmanager
def _running(folder: Path, *, models: bool) -> Iterator[None]:
    """Run the node: all of it, or its receivers and its core, each with what it says in a file of its own."""
    config = folder / "node.yaml"
    settings = load_settings(config)
    with ExitStack() as stack:
        for role in ("all",) if models else ("core", "receiver"):
            log = folder / f"{role}.log"
            process = stack.enter_context(running_node(config, log, "--role", role))
            if role != "core":
                wait_until_ready(process, settings.node.port, log)
        end = time.monotonic() + 60
        while "core ready" not in "".join(path.read_text(errors="replace") for path in folder.glob("*.log")):
            if time.monotonic() > end:
                raise StartError("the core of the node to be measured did not come up within a minute")
            time.sleep(0.1)
        yield


def _stand_in_worker(settings: Settings) -> Callable[[], None]:
    """Start a worker's loop in a thread of this process; returns what stops it."""
    stop = threading.Event()
    house = node.make_house(settings)
    house.log = structlog.wrap_logger(structlog.PrintLogger(), wrapper_class=structlog.make_filtering_bound_logger("critical"))
    worker = Worker("bench", StandIn())
    thread = threading.Thread(target=local.work, args=(lambda: run_job(house, worker), stop, 0.1), name="worker")
    thread.start()

    def end() -> None:
        stop.set()
        thread.join()
        house.store.close()

    return end


# --- the day -----------------------------------------------------------------------------------------------------------------


def _be_away(archive: FolderArchive, after: int, seconds: float) -> None:
    """Stop the archive once it has got some objects, and start it again."""
    while len(archive.received) < after:
        time.sleep(0.05)
    archive.stop()
    time.sleep(seconds)
    archive.start()


def _send_day(day: Sequence[DayStudy], port: int, tally: _Tally, dice: random.Random, say: Say) -> float:
    """Send both waves; returns the seconds in which the first went out."""
    seconds = 0.0
    for wave in (0, 1):
        pieces = [piece for study in day if (piece := study.waves[wave]) is not None]
        dice.shuffle(pieces)
        say(f"sending {len(pieces)} pieces of studies, wave {wave + 1}")
        begin = time.monotonic()
        with ThreadPoolExecutor(_SENDERS) as pool:
            list(pool.map(lambda pieces: _send(pieces, port, tally), _bundles(pieces)))
        if wave == 0:
            seconds = time.monotonic() - begin
            time.sleep(_QUIET + 1.0)  # what follows comes late: some of the results are out by now
    return seconds


def _bundles(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Let some pieces share an association; one that breaks off has its own."""
    alone = [[piece] for piece in pieces if piece.aborted]
    whole = [piece for piece in pieces if not piece.aborted]
    return [*alone, *(list(whole[start : start + _TOGETHER]) for start in range(0, len(whole), _TOGETHER))]


def _send(pieces: Sequence[Piece], port: int, tally: _Tally) -> None:
    """Send pieces over one association, their images in turn."""
    queues = [list(piece.images) for piece in pieces]
    with Sender(port, AE_TITLE, tuple(SOP_CLASSES.values())) as sender:
        while any(queues):
            for queue in filter(None, queues):
                image = queue.pop(0)
                if pieces[0].aborted and not queue:
                    sender.break_off(image.sop_class_uid, image.sop_uid, image.body)
                    return
                sender.send_encoded(image.sop_class_uid, image.sop_uid, image.body)
                tally.note(image)


def _wait(settings: Settings, away: threading.Thread, seconds: float) -> bool:
    end = time.monotonic() + seconds
    calm = 0
    while time.monotonic() < end:
        calm = calm + 1 if at_rest(settings) else 0
        if calm > 1 and not away.is_alive():
            return True
        time.sleep(0.5)
    return False


def _figures(settings: Settings, day: Sequence[DayStudy], accounts: Accounts, begin: datetime, sending: float) -> dict[str, Any]:
    with open_store(settings) as store, store.read() as session:
        last = session.scalar(select(func.max(DeliveryRow.delivered_at)))
    seconds = (last - begin).total_seconds() if last is not None else None
    first = sum(len(study.waves[0].images) for study in day if study.waves[0] is not None)
    return {
        "studies": len(day),
        "kinds": accounts.by_kind(),
        "instances": accounts.instances,
        "objects": accounts.objects,
        "seconds_to_delivery": accounts.seconds() | {"quiet": _QUIET},
        "seconds": seconds,
        "studies_per_s": len(day) / seconds if seconds else None,
        "instances_per_s_while_sending": first / sending,
        "wrong": accounts.wrong,
    }
