"""`pacs-node bench analysis`: from the files of a series to its finding, stage by stage.

::

    phantom ─► files, uncompressed and JPEG-LS ─► one process for each way of running, all warm ─► rounds in turns ─► medians

Each way has a process of its own, for threads are given to a process once and its peak memory is its own. The ways take turns, so that whatever
else the machine does meets all of them; beside the time on the wall stands the processors' time, which wavers less.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pacs_node.analysis import pipeline
from pacs_node.analysis.bundle import Bundle, load
from pacs_node.autoencoder.precision import has_bfloat16
from pacs_node.workbench.bench import work_folder
from pacs_node.workbench.bench_series import SYNTAXES, write_series

STAGES = ("read", "prepare", "network", "score")  # decoding belongs to reading

Say = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """One way of running: what the files are encoded in, how many processors, ``half`` precision or not (None: as the node would), where."""

    syntax: str = "uncompressed"
    threads: int = 2
    half: bool | None = None
    device: str = "cpu"

    def __str__(self) -> str:
        how = "" if self.half is None else ", bfloat16" if self.half else ", float32"
        return f"{self.syntax}, {self.threads} thread{'s' if self.threads > 1 else ''}{how}" + (f", {self.device}" if self.device != "cpu" else "")


@dataclass(frozen=True)
class Round:
    """One series: seconds of each stage on the wall, of the processors in all, the score, and the process's peak memory in MB so far."""

    seconds: tuple[float, ...]
    processor: float
    score: float
    peak: float


def ways(device: str = "cpu") -> list[Way]:
    """Return what is compared: as the node runs first; then one thread, the other syntax, and both precisions."""
    most = len(os.sched_getaffinity(0))
    usual = Way(threads=min(2, most) if device == "cpu" else most, device=device)
    fewer = [Way(threads=1, device=device)] if usual.threads > 1 else []
    syntaxes = [Way(syntax, usual.threads, device=device) for syntax in SYNTAXES if syntax != usual.syntax]
    return [usual, *fewer, *syntaxes, *(Way(threads=usual.threads, half=half, device=device) for half in (False, True))]


def bench_analysis(
    bundle: Path, slices: int = 135, rows: int = 512, rounds: int = 5, *, device: str = "cpu", work: Path | None = None, say: Say = lambda what: None
) -> dict[str, Any]:
    """Measure the analysis of a phantom series of ``slices`` × ``rows``² by the bundle in folder ``bundle``, in every one of `ways`.

    Returns for each way slices/s (median of the rounds, lowest, highest), milliseconds of processor time a slice, the share of each stage and peak
    memory in MB. Raises `InputError` where the series cannot be made, `BundleError`, or `NotAnalysable` where the bundle does not judge it.
    """
    manifest = load(bundle).manifest
    with work_folder(work) as folder, ExitStack() as stack:
        say("making the series")
        files = write_series(manifest, slices, rows, folder)
        runners = {way: stack.enter_context(_Runner(way, bundle, files[way.syntax])) for way in ways(device)}
        found: dict[Way, list[Round]] = {way: [] for way in runners}
        for number in range(rounds + 1):  # the first warms up
            for way, runner in runners.items():
                say(f"round {number} of {rounds}: {way}")
                measured = runner.run()
                if number:
                    found[way].append(measured)
    return {
        "bundle": f"{manifest.name} {manifest.version}",
        "slices": slices,
        "rows": rows,
        "rounds": rounds,
        "processor": processor(),
        "bfloat16": has_bfloat16(torch.device(device)),
        "device": torch.cuda.get_device_name(device) if device != "cpu" else "cpu",
        "ways": [_row(way, found[way], slices) for way in found],
    }


def faster(found: dict[str, Any]) -> bool:
    """Tell whether the network took less time in bfloat16 than in float32 on a device that has it, in what `bench_analysis` returned."""
    took = {one["half"]: one["ms_per_slice"]["network"] for one in found["ways"]}
    return bool(found["bfloat16"]) and took[True] < took[False]


def _row(way: Way, rounds: Sequence[Round], slices: int) -> dict[str, Any]:
    rates = np.array([slices / sum(one.seconds) for one in rounds])
    stages = np.median([one.seconds for one in rounds], axis=0)
    return {
        "way": str(way),
        "half": way.half,
        "slices_per_s": float(np.median(rates)),
        "range": [float(rates.min()), float(rates.max())],
        "processor_ms_per_slice": float(np.median([one.processor for one in rounds])) * 1000 / slices,
        "share": {stage: float(value / stages.sum()) for stage, value in zip(STAGES, stages, strict=True)},
        "ms_per_slice": {stage: float(value * 1000 / slices) for stage, value in zip(STAGES, stages, strict=True)},
        "peak_mb": max(one.peak for one in rounds),
        "score": rounds[-1].score,
    }


def processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


# --- in a process of its own -------------------------------------------------------------------------------------------------


@dataclass
class _Runner:
    """A process that analyses one series in one way, as often as it is asked."""

    way: Way
    bundle: Path
    files: Sequence[Path]
    pool: ProcessPoolExecutor = field(init=False)

    def __enter__(self) -> _Runner:
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (self.way, self.bundle))
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def run(self) -> Round:
        return self.pool.submit(_analyse, self.way, tuple(self.files)).result()


_loaded: list[Bundle] = []  # of this process


def _begin(way: Way, bundle: Path) -> None:
    if way.device == "cpu":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: way.threads])
    os.environ["OMP_NUM_THREADS"] = str(way.threads)
    _loaded.append(load(bundle))


def _analyse(way: Way, files: Sequence[Path]) -> Round:
    """Do what `pipeline.analyse` does, and look at the clock in between."""
    bundle = _loaded[0]
    begin, marks = time.process_time(), [time.perf_counter()]
    volume = pipeline.read_series(files, bundle.manifest)
    marks.append(time.perf_counter())
    prepared = pipeline.prepare(volume, bundle.manifest)
    pipeline.refuse_unfamiliar(prepared, bundle)
    marks.append(time.perf_counter())
    seen = pipeline.pass_through(prepared, bundle, way.device, half=way.half)
    marks.append(time.perf_counter())
    finding = pipeline.conclude(prepared, seen, bundle, way.device, today=datetime.now(UTC).date())
    marks.append(time.perf_counter())
    return Round(tuple(np.diff(marks).tolist()), time.process_time() - begin, finding.score, peak_memory())


def peak_memory() -> float:
    """Return the largest resident size of this process so far, MB, torch included."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
