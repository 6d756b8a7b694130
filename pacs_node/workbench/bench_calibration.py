"""`pacs-node bench calibration`: whether a threshold keeps its promise with the scores that the pipeline really gives.

::

    phantoms of seeds of their own ─► pipeline ─► pool of scores (made once, kept in a file)
                                                     │ drawn at random, again and again
        n drawn with replacement: the calibration, its threshold; the rate of the whole pool above it is the true one, known exactly
        n drawn without:          the same, and the rest of the pool is a held-out set, whose rate is the true one and its own noise

A correct method keeps the promise in about 95 % of the first draws: 190 of 200 on average, and 183 or more in 99 of 100 runs of 200 draws. In how
many of the second a held-out set of that size shows it is less, and is said beside them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.manifest import WEIGHTS, Manifest, PhantomPart, sha256
from pacs_node.autoencoder import calibration
from pacs_node.errors import InputError
from pacs_node.workbench import material
from pacs_node.workbench.material import Planted, Report

FIRST_SEED = 7_000_000  # of the pool: no other use begins near
DRAWS = 200
KEPT = 183  # of the draws in which the promise must be kept
ALPHAS = (0.01, 0.05, 0.1)
_SIZES = (1.0, 1.25, 1.6, 2.0, 3.0, 5.0, 8.0)  # calibration studies, in units of the least number that can promise the rate


@dataclass(frozen=True, slots=True)
class Row:
    """One promise: ``n`` calibration studies, how many of the draws kept it, and the median and largest true rate.

    ``held_out``: in how many draws the rest of the pool showed no larger rate; ``held_out_due``: in how many it does on average for a method
    that keeps its promise exactly.
    """

    alpha: float
    n: int
    kept: int
    draws: int
    median_rate: float
    largest_rate: float
    held_out: int
    held_out_due: float


def bench_calibration(bundle_dir: Path, studies: int, cache: Path, report: Report = lambda what, fraction: None) -> dict[str, Any]:
    """Recalibrate `DRAWS` times for every rate and size that the pool allows; returns the table and whether every row keeps the promise.

    ``cache`` keeps the scores of ``studies`` phantoms: an interrupted run goes on where it ended. Raises `InputError` where the bundle's
    recipe names no phantoms.
    """
    bundle = bundles.load(bundle_dir)
    pool = np.asarray(pool_of(bundle, studies, cache, report))
    rows = [recalibrate(pool, alpha, n) for alpha in ALPHAS for n in sizes(alpha, len(pool))]
    return {
        "bundle": bundle.name,
        "weights_sha256": sha256(bundle_dir / WEIGHTS),
        "pool": len(pool),
        "distinct_scores": len(set(pool.tolist())),
        "rows": [{name: getattr(row, name) for name in Row.__slots__} for row in rows],
        "kept": all(row.kept >= KEPT for row in rows),
    }


def sizes(alpha: float, pool: int) -> list[int]:
    """Return the numbers of calibration studies to try: from the least that can promise ``alpha`` to a third of the pool."""
    least = calibration.studies_needed(alpha)
    return [n for n in (round(least * factor) for factor in _SIZES) if n <= pool // 3]


def recalibrate(pool: NDArray[np.float64], alpha: float, n: int, draws: int = DRAWS, seed: int = 0) -> Row:
    """Draw ``n`` calibration scores ``draws`` times, with and without replacement, and measure the rate above the threshold each time."""
    rng = np.random.default_rng([seed, n, round(1000 * alpha)])
    rates, rest = [], []
    for _ in range(draws):
        rates.append(float(np.mean(pool > _threshold(rng.choice(pool, n), alpha))))
        order = rng.permutation(pool)
        rest.append(float(np.mean(order[n:] > _threshold(order[:n], alpha))))
    kept, held_out = (sum(rate <= alpha for rate in measured) for measured in (rates, rest))
    return Row(alpha, n, kept, draws, float(np.median(rates)), max(rates), held_out, draws * chance_on_held_out(n, len(pool) - n, alpha))


def _threshold(scores: NDArray[np.float64], alpha: float) -> float:
    line = calibration.threshold(scores.tolist(), alpha)
    if line is None:
        raise ValueError(f"{len(scores)} studies cannot promise {alpha}")
    return line


def chance_on_held_out(n: int, held_out: int, alpha: float) -> float:
    """Return how probable it is that at most ``alpha`` of ``held_out`` scores lie above the threshold of ``n`` others, all of one kind and no two equal.

    Every order of the scores is as probable as any other, so that the number above is negative hypergeometric.
    """
    rank = calibration.threshold_rank(n, alpha)
    if rank is None:
        raise ValueError(f"{n} studies cannot promise {alpha}")
    whole = _log_ways(n + held_out, n)
    most = math.floor(alpha * held_out + 1e-9)
    return sum(math.exp(_log_ways(j + n - rank, j) + _log_ways(held_out - j + rank - 1, rank - 1) - whole) for j in range(most + 1))


def _log_ways(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


# --- the pool --------------------------------------------------------------------------------------------------------------


def pool_of(bundle: Bundle, studies: int, cache: Path, report: Report) -> list[float]:
    """Return the scores of ``studies`` normal phantoms by their seeds, from the cache as far as it holds them."""
    part = phantoms_of(bundle.manifest, bundle.folder)
    head = {"bundle": bundle.name, "weights_sha256": sha256(bundle.folder / WEIGHTS), "first_seed": FIRST_SEED}
    known = _read(cache, head)
    with cache.open("a", encoding="utf-8") as file:
        if not known and cache.stat().st_size == 0:
            file.write(json.dumps(head) + "\n")
        for index in range(len(known), studies):
            known.append(score(bundle, material.phantom(part, bundle.manifest, FIRST_SEED + index)))
            file.write(json.dumps(known[-1]) + "\n")
            file.flush()
            report("scoring phantoms", (index + 1) / studies)
    return known[:studies]


def phantoms_of(manifest: Manifest, folder: Path) -> PhantomPart:
    """Return what the recipe of the bundle in ``folder`` says of phantoms; raises `InputError` where it names none."""
    part = manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the recipe of {folder} names no phantoms: add `phantoms` to its recipe")
    return part


def score(bundle: Bundle, planted: Planted) -> float:
    """Score one prepared phantom as the node would."""
    one = planted.prepared
    return bundle.judge(one.x, torch.from_numpy(one.foreground), one.stratum)[1].study


def _read(cache: Path, head: dict[str, object]) -> list[float]:
    """Return the scores kept in ``cache``; a last line that was not written to its end counts as missing."""
    if not cache.is_file() or not cache.stat().st_size:
        return []
    first, *lines = cache.read_text(encoding="utf-8").splitlines(keepends=True)
    if json.loads(first) != head:
        raise InputError(f"{cache} holds scores of another model: remove it, or name another file with --cache")
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        cache.write_text(first + "".join(whole), encoding="utf-8")
    return [float(json.loads(line)) for line in whole]


def show(rows: Sequence[dict[str, Any]]) -> list[list[object]]:
    """Return the rows of the table for people."""
    return [
        [
            f"{100 * row['alpha']:g} %",
            row["n"],
            f"{row['kept']} of {row['draws']}",
            f"{100 * row['median_rate']:.2f} %",
            f"{100 * row['largest_rate']:.2f} %",
            f"{row['held_out']} ({row['held_out_due']:.0f})",
        ]
        for row in rows
    ]
