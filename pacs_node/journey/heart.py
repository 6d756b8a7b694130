"""The signs of life of a worker: its lease is renewed from a thread, and a run that is not done by its deadline ends the process.

A library that hangs cannot be interrupted, so the process goes, its parent starts another one, and the job is tried again. Where not even
this thread gets to run any more, `Worker.last_resort` ends the process a little later, from outside of Python.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from pacs_node.database import jobs
from pacs_node.errors import DatabaseUnavailable, PacsNodeError
from pacs_node.executors.retry import Fault
from pacs_node.journey import House
from pacs_node.journey.build import Task
from pacs_node.journey.leases import decide_after

GRACE = timedelta(seconds=60)  # between the deadline and the last resort
HUNG = 71  # exit code of a process whose job did not end by its deadline
_BEATS = 6  # in a lease


class LostJob(PacsNodeError):
    """The job was cancelled or given to another worker."""


@dataclass(frozen=True)
class Life:
    """Whose signs of life: the worker's name, and how its process ends where it has to. The defaults suit a process that runs nothing else."""

    worker: str
    end: Callable[[int], object] = os._exit
    last_resort: Callable[[float | None], None] = lambda seconds: None  # ends the process after so many seconds; None: not after all


class Heart:
    """Beats as long as a job runs; `beat` raises `LostJob` where the job is no longer the worker's."""

    def __init__(self, house: House, task: Task, life: Life) -> None:
        self._house, self._task, self._life = house, task, life
        self._stop, self._lost = threading.Event(), threading.Event()
        self._progress = 0.0
        self._end = time.monotonic() + house.settings.executor.job_deadline.total_seconds()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Heart:
        self._life.last_resort((self._house.settings.executor.job_deadline + GRACE).total_seconds())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._life.last_resort(None)

    def beat(self, progress: float) -> None:
        """Note progress (0…1); raises where the job is no longer ours."""
        self._progress = progress
        if self._lost.is_set():
            raise LostJob("lost")

    @property
    def left(self) -> float:
        """Seconds until the run has to be done."""
        return self._end - time.monotonic()

    def _run(self) -> None:
        pause = self._house.settings.executor.lease.total_seconds() / _BEATS
        while not self._stop.wait(max(0.0, min(pause, self._end - time.monotonic()))):
            if time.monotonic() >= self._end:
                self._give_up()
                return
            try:
                mine = self._sign()
            except DatabaseUnavailable:
                continue  # said by the store; the lease outlives several beats
            if not mine:
                self._lost.set()

    def _sign(self) -> bool:
        with self._house.store.write() as session:
            until = self._house.clock() + self._house.settings.executor.lease
            return jobs.beat(session, self._task.job_id, self._life.worker, until, self._progress, self._task.attempts)

    def _give_up(self) -> None:
        deadline = self._house.settings.executor.job_deadline
        self._house.log.error("job hangs", job=self._task.job_id, worker=self._life.worker, deadline=str(deadline))
        try:
            with self._house.store.write() as session:
                job = jobs.still_mine(session, self._task.job_id, self._life.worker, self._task.attempts)
                if job is not None:
                    decide_after(self._house, session, job, Fault.TOO_SLOW, f"it was not done after {deadline} (executor.job_deadline)", self._house.clock())
        except DatabaseUnavailable as error:  # its lease runs out, then
            self._house.log.error("a job that hangs could not be given back", job=self._task.job_id, problem=error.reason)
        self._life.end(HUNG)
