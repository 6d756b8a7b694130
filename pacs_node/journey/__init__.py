"""The journey of a study, top to bottom: the only package that joins the rooms to the database.

::

    receive.py     spool ─► its readers        instances, ends of associations, requests              (1 reception)
    arriving.py    header ─► what is indexed   an arrival as read                                     (1 reception)
    index.py       arriving ─► instances       what arrived is new, or repeats what is here           (2 assembly)
    repeats.py     repeat ─► its consequence   duplicate, correction, conflict, back after removal    (2 assembly)
    notes.py       spool ─► services           what peers said by DIMSE-N requests is taken to heart  (1 reception)
    announcements.py   notes ─► studies        what MPPS and availability notifications list          (2 assembly)
    reject.py      rejection notes             what is not used any more, and what of it is out       (2 assembly)
    facts.py       database ─► facts           what completeness is judged by                         (2 assembly)
    assemble.py    instances ─► jobs           complete? which rules? which series?                   (2 assembly, 3 routing)
    count.py       archives ─► counts          how many instances an archive has, what it has more    (2 assembly)
    run_job.py     job ─► finding ─► objects   claim, analyse, build, gate, commit with the outbox    (4 analysis, 5 results)
    build.py       finding ─► objects          one set of result objects for each set of kinds        (5 results)
    deliver.py     objects ─► destinations     one row per object and destination                     (6 delivery)
    verify.py      patients                    whether an archive means the same one                  (6 delivery)
    contexts.py    associations ─► kinds      what destinations take, known before building           (6 delivery)
    fallback.py    refused ─► another kind     what goes in the place of a kind that is not taken     (6 delivery)
    supersede.py   re-runs ─► rejection notes  what earlier runs left at a destination                (6 delivery)
    commit.py      stored ─► delivered         an archive's storage commitment decides                (6 delivery)
    vouch.py       requests ─► reports         what we commit to where others ask us                  (6 delivery)
    drift.py       findings ─► alerts          whether recent scores still fit the calibration        (4 analysis)
    events.py      what happened ─► webhooks, e-mail  results and faults, told in order            (monitoring)
    silence.py     nothing ─► alerts           senders that are expected to send, and do not          (monitoring)
    telling.py     people                      what is stuck, and what an archive coerced             (6 delivery)
    reconcile.py   files ─► index              what the database lacks, at the start
    pressure.py    a full disk                 said, half files swept
    heart.py       signs of life               a worker renews its lease, or ends where its job hangs
    retire.py      what is finished            files go, rows stay                                    (7 retention)
    heartbeat.py   a phantom ─► alerts         the whole way on a schedule, timed              (monitoring)
    leases.py      silent workers, bad ends    what becomes of a job that nobody finishes
    noting.py      audit                       what the trail says of all this
    trail.py       audit ─► syslog             a copy of the audit trail, elsewhere
    tallying.py    what is counted of a job
    operate.py     retry, release, cancel      what operators do, audited

Every step has the same shape: read what is due, do the slow work without a transaction, then commit the next state in one short
write. A process may be killed between any two lines: what is due is found again, and doing it again changes nothing.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from pacs_node.analysis.installed import models_folder as models_folder  # here for those above
from pacs_node.config import Settings, shipped
from pacs_node.database.alerts import clear_alert, clear_kind, raise_alert
from pacs_node.database.engine import Store
from pacs_node.database.outage import pause_after
from pacs_node.errors import DatabaseUnavailable
from pacs_node.monitoring.counting import Counts
from pacs_node.reception.pressure import Disk, Pressure, measure
from pacs_node.reception.spool import Spool
from pacs_node.routing import Rules

Answer = TypeVar("Answer")


@dataclass
class House:
    """What every step needs: the configuration, the database, the spool and where things lie."""

    settings: Settings
    store: Store
    rules: Rules
    bundles: Mapping[str, Path]
    spool: Spool
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)  # a moved one in tests
    stopping: threading.Event = field(default_factory=threading.Event)  # set when the process is to end
    quarantine_seen: int = 0  # when the quarantine folder had last changed as it was read, ns
    pressure: Pressure = Pressure.NORMAL  # of the disk, as it was last said
    swept_at: datetime | None = None
    began: datetime = field(default_factory=lambda: datetime.now(UTC))  # when this process began
    measure: Callable[[Path], Disk] = measure  # a made-up disk in tests
    counts: Counts = field(default_factory=Counts)  # what this process counts; nothing, unless the node says where
    folders: threading.Lock = field(default_factory=threading.Lock)  # held by who moves files into study folders, and by who removes empty ones
    begun: set[tuple[int, str]] = field(default_factory=set)  # study and sender whose beginning stands in the audit trail
    looked: dict[str, tuple[datetime, int]] = field(default_factory=dict)  # where retention's last look at what is ripe ended
    log: structlog.typing.FilteringBoundLogger = field(default_factory=structlog.get_logger)

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.settings.node.data

    @property
    def longest_wait(self) -> timedelta:
        """No timer of a study is set further ahead than this, unless the clock was set back."""
        general, rules = self.settings.assembly, self.rules.rules
        spans = [span for rule in rules for span in (rule.complete.quiet, rule.complete.deadline) if span is not None]
        return max([general.quiet, general.deadline, *spans]) + timedelta(minutes=10)

    @property
    def patience(self) -> tuple[timedelta, timedelta]:
        """How soon some rule might find a study complete: (after its last arrival, after its first)."""
        general, rules = self.settings.assembly, self.rules.rules
        quiet = min([general.quiet, *(rule.complete.quiet for rule in rules if rule.complete.quiet is not None)])
        deadline = min([general.deadline, *(rule.complete.deadline for rule in rules if rule.complete.deadline is not None)])
        return quiet, deadline

    def folder(self, relative: str) -> Path:
        """Return a folder of the data folder; what is missing is made, and each new name is synced in its parent."""
        path = self.data / relative
        for missing in reversed([part for part in (path, *path.parents) if not part.is_dir()]):
            missing.mkdir(exist_ok=True)
            sync_folder(missing.parent)
        return path

    def patiently(self, action: Callable[[], Answer]) -> Answer:
        """Do what must not be left undone: while the database is away, wait and try again. Raises `DatabaseUnavailable` where the process is to stop.

        ``action`` must be one that may be done twice: a connection can be lost between a commit and its answer.
        """
        for failures in itertools.count(1):
            try:
                return action()
            except DatabaseUnavailable:
                if self.stopping.wait(pause_after(failures)):
                    raise
        raise AssertionError("counting has no end")

    def alert(self, kind: str, subject: str, message: str) -> None:
        """Tell a person: an ERROR line in the log and a line on `pacs-node status`, until it is cleared. Raises `DatabaseUnavailable` after the line."""
        try:
            with self.store.write() as session:
                new = raise_alert(session, kind, subject, message, self.clock())
        except DatabaseUnavailable:
            self.log.error("alert", kind=kind, subject=subject, message=message, kept="only in the log: the database is away")
            raise
        if new:
            self.log.error("alert", kind=kind, subject=subject, message=message)

    def clear(self, kind: str, subject: str) -> None:
        """Take an alert back."""
        with self.store.write() as session:
            cleared = clear_alert(session, kind, subject, self.clock())
        if cleared:
            self.log.info("alert over", kind=kind, subject=subject)

    def clear_all(self, kind: str) -> None:
        """Take all alerts of a kind back."""
        with self.store.write() as session:
            clear_kind(session, kind, self.clock())


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def now() -> datetime:
    """Return the present time, UTC."""
    return datetime.now(UTC)


def rules_file(settings: Settings) -> Path:
    """Return the rules in force: the configured file, else the one in ``./config``, else the shipped one."""
    if settings.node.rules is not None:
        return settings.node.rules
    local = Path("config/rules.yaml")
    return local if local.is_file() else shipped("config") / "rules.yaml"
