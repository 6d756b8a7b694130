"""How processes count: each writes files of its own in shared memory, in the format of prometheus_client's multiprocess mode; the page adds them up.

Nothing here may fail or slow down what counts. The files lie in memory, not on the data folder's disk: writing to a file that is mapped from a
full disk would end the process. Room is claimed before it is used, and where there is none, nothing is counted any more, which is said once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from pacs_node.monitoring.metrics import METRICS, Kind, Metric

OTHER = "other"
MOST_VALUES = 200  # combinations of labels of one metric and process: headers hold anything
_ROOM = 1 << 16  # bytes of a new file
_BEAT_SECONDS = 1.0
_PREFIX = {Kind.COUNTER: "counter", Kind.HISTOGRAM: "histogram", Kind.GAUGE: "gauge_max"}  # as prometheus_client's collector reads them
UNREADABLE = (OSError, RuntimeError, ValueError, struct.error)  # no room; or a file that a crash has damaged
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, and only where it is ours


class Sheet(MmapedDict):  # type: ignore[misc]  # prometheus_client leaves it untyped
    """A file of values. Raises OSError where there is no room for another one."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(_ROOM, os.fstat(file.fileno()).st_size))
        super().__init__(str(path))

    def _init_value(self, key: str) -> None:
        if self._used + len(key.encode()) + 64 > self._capacity:  # it is about to grow: twofold, as below
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
        super()._init_value(key)

    def __del__(self) -> None:
        """Close the file, also where it turned out to be damaged."""
        if getattr(self, "_f", None) is not None:
            self._f.close()

    def add(self, key: str, amount: float) -> None:
        """Add to a value."""
        self.write_value(key, self.read_value(key)[0] + amount, 0.0)


class Counts:
    """What one process counts, by the names of `metrics.TABLE`. ``folder`` None: nothing is kept. Used by several threads."""

    def __init__(self, folder: Path | None = None, process: str = "") -> None:
        self.process = process
        self._folder, self._lock = folder, threading.Lock()
        self._sheets: dict[Kind, Sheet] = {}
        self._known: dict[tuple[str, tuple[str, ...]], tuple[Metric, tuple[str, ...]]] = {}
        self._keys: dict[tuple[str, tuple[str, ...], str], str] = {}
        self._used: dict[str, int] = {}
        self._beaten = 0.0

    def add(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        if self._folder is not None:
            self._write(name, labels, [("_total", (), amount)])

    def set(self, name: str, *labels: str, value: float) -> None:
        """Set a gauge."""
        if self._folder is not None:
            self._write(name, labels, [("", (), value)])

    def observe(self, name: str, *labels: str, value: float) -> None:
        """Put a value into a histogram."""
        if self._folder is not None:
            bounds = METRICS[name].bounds
            place = bisect_left(bounds, value)
            bound = floatToGoString(bounds[place]) if place < len(bounds) else "+Inf"
            self._write(name, labels, [("_bucket", (bound,), 1.0), ("_sum", (), value)])

    @contextmanager
    def timed(self, name: str, *labels: str) -> Iterator[None]:
        """Put the time of a block that came to its end into a histogram, in seconds."""
        begin = time.perf_counter()
        yield
        self.observe(name, *labels, value=time.perf_counter() - begin)

    def beat(self) -> None:
        """Give a sign of life; cheap enough for every turn of a loop."""
        now = time.monotonic()
        if self._folder is None or now - self._beaten < _BEAT_SECONDS:
            return
        if not self._beaten:
            self.set("pacs_node_process_start_timestamp_seconds", self.process, value=time.time())
        self._beaten = now
        self.set("pacs_node_process_beat_timestamp_seconds", self.process, value=time.time())
        with suppress(OSError):  # no descriptor is free: a process does not end because of what it counts
            self.set("pacs_node_process_resident_memory_bytes", self.process, value=_resident())

    def _write(self, name: str, labels: tuple[str, ...], values: Sequence[tuple[str, tuple[str, ...], float]]) -> None:
        with self._lock:
            try:
                metric, labels = self._known.get((name, labels)) or self._know(name, labels)
                sheet = self._sheets.get(metric.kind) or self._open(metric.kind)
                for suffix, bound, value in values:
                    key = self._keys.get((name, labels, suffix + "".join(bound))) or self._key(metric, labels, suffix, bound)
                    if metric.kind is Kind.GAUGE:
                        sheet.write_value(key, value, time.time())
                    else:
                        sheet.add(key, value)
            except UNREADABLE as error:
                self._folder = None
                structlog.get_logger().warning("nothing is counted any more", process_name=self.process, problem=str(error))

    def _know(self, name: str, labels: tuple[str, ...]) -> tuple[Metric, tuple[str, ...]]:
        metric, instead = METRICS[name], (*labels[:-1], OTHER)
        if len(labels) != len(metric.labels):
            raise TypeError(f"{name} has the labels {metric.labels}, not {labels}")
        if self._used.get(name, 0) >= MOST_VALUES and labels and labels != instead:
            return self._known.get((name, instead)) or self._know(name, instead)
        self._used[name] = self._used.get(name, 0) + 1
        self._known[name, labels] = metric, labels
        if metric.kind is Kind.HISTOGRAM:
            sheet = self._sheets.get(metric.kind) or self._open(metric.kind)
            for bound in (*map(floatToGoString, metric.bounds), "+Inf"):
                sheet.read_value(self._key(metric, labels, "_bucket", (bound,)))  # all buckets are there from the first value on
        return metric, labels

    def _key(self, metric: Metric, labels: tuple[str, ...], suffix: str, bound: tuple[str, ...]) -> str:
        names, said = (*metric.labels, *(("le",) if bound else ())), (*(label[:120] for label in labels), *bound)
        key = str(mmap_key(metric.name, metric.name + suffix, list(names), list(said), metric.help))
        self._keys[metric.name, labels, suffix + "".join(bound)] = key
        return key

    def _open(self, kind: Kind) -> Sheet:
        assert self._folder is not None
        self._sheets[kind] = Sheet(self._folder / f"{_PREFIX[kind]}_{self.process}.db")
        return self._sheets[kind]


def _resident() -> float:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


# --- the folder ----------------------------------------------------------------------------------------------------------


def folder_for(data: Path) -> Path:
    """Return the folder in which the processes of a node on this machine count: the same one for all roles on a data folder."""
    root = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    digest = hashlib.sha256(str(data.resolve()).encode()).hexdigest()[:16]
    return root / f"pacs-node-{os.geteuid()}-{digest}"


@contextmanager
def counting(data: Path, processes: Sequence[str]) -> Iterator[Path | None]:
    """Make the folder, empty of what these processes counted before; give None where it cannot be had. It goes when the last role has ended."""
    folder = folder_for(data)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if folder.is_symlink() or facts.st_uid != os.geteuid() or facts.st_mode & 0o077:
            raise PermissionError(f"{folder} belongs to someone else")
        _forget_dead(folder)
        _remove(folder, processes)
        mark = folder / f"owner-{os.getpid()}"
        mark.touch()
    except OSError as error:
        structlog.get_logger().warning("nothing is counted", problem=str(error))
        yield None
        return
    try:
        yield folder
    finally:
        _remove(folder, processes)
        with suppress(OSError):
            mark.unlink(missing_ok=True)
            folder.rmdir()  # where no other role counts in it


def _remove(folder: Path, processes: Sequence[str]) -> None:
    for name in processes:
        for prefix in _PREFIX.values():
            (folder / f"{prefix}_{name}.db").unlink(missing_ok=True)


def _forget_dead(ours: Path) -> None:
    """Take away the folders of nodes that were killed: none of those that made them is there any more."""
    for folder in ours.parent.glob(f"pacs-node-{os.geteuid()}-*"):
        marks = list(folder.glob("owner-*"))
        for mark in marks:
            if not Path(f"/proc/{mark.name[6:]}").exists():
                mark.unlink(missing_ok=True)
        if marks and folder != ours and not list(folder.glob("owner-*")):
            shutil.rmtree(folder, ignore_errors=True)
