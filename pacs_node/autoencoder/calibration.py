"""From scores to statements: conformal p-values, a threshold with a promise, and the tail of healthy pixels.

A score means something only beside the scores of calibration studies: p = (1 + #{calibration ≥ s}) / (n + 1) is valid for any
exchangeable score (Vovk et al. 2005; Bates et al. 2023). Scores and thresholds are dimensionless.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
TAIL_STEP = 0.1
TAIL_END = 4.0
_BINS = np.linspace(-20.0, 80.0, 10_001)


def conformal_p(score: float, calibration: Sequence[float]) -> float:
    """Return p = (1 + #{calibration ≥ score}) / (n + 1), in (0, 1]."""
    above = sum(1 for value in calibration if value >= score)
    return (1 + above) / (len(calibration) + 1)


def percentile(score: float, calibration: Sequence[float]) -> float:
    """Return which share of the calibration scores lies below ``score``, 0…100. Raises `ValueError` without any."""
    if not calibration:
        raise ValueError("a percentile needs at least one calibration score")
    return 100.0 * sum(1 for value in calibration if value < score) / len(calibration)


def threshold_rank(n: int, alpha: float, confidence: float = CONFIDENCE) -> int | None:
    """Return which order statistic (1-based, ascending) of ``n`` calibration scores promises a false-positive rate of at most ``alpha``.

    The rate of scores above the k-th of n is Beta(n - k + 1, k) distributed; the smallest k is returned for which it is at most
    ``alpha`` with the ``confidence`` asked for (Wilks 1941). None where ``n`` is too small (α = 5 % needs 59).
    """
    if n < 1 or not 0 < alpha < 1:
        raise ValueError(f"n {n} must be positive and alpha {alpha} between 0 and 1")
    at_most, rank = 0.0, None  # probability of at most (n - k) of n scores above a threshold whose true rate is alpha
    for above in range(n):
        at_most += math.exp(_log_binomial(n, above, alpha))
        if 1 - at_most < confidence:
            break
        rank = n - above
    return rank


def _log_binomial(n: int, k: int, p: float) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)


def studies_needed(alpha: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of calibration studies that can promise ``alpha``: α = 5 % needs 59, α = 1 % needs 299."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-alpha))


def threshold(calibration: Sequence[float], alpha: float, confidence: float = CONFIDENCE) -> float | None:
    """Return the score above which a study is flagged, or None with too few calibration studies."""
    rank = threshold_rank(len(calibration), alpha, confidence) if calibration else None
    return None if rank is None else sorted(calibration)[rank - 1]


_LEAST_FOR_A_FENCE = 20  # scores; of fewer nobody can say which one does not belong
_EXPECTED_BEYOND = 0.1  # scores that a clean set would have beyond the fence
_LONG_TAIL = 7.0  # upper tail in units of the lower quarter: 2.4 of a normal, 3.8 of a Gumbel distribution


def suspect_beyond(scores: Sequence[float]) -> float:
    """Return the score beyond which the others suggest no score: what lies there may not belong into a calibration. Infinite where they cannot tell.

    Beyond the median, scores of one kind of study fall off like an exponential or faster. Its step is read from the quarter above the
    median, unless the upper tail as a whole is uncommonly long: then a part of the set is of another kind, which has widened that quarter too,
    and the quarter below the median is asked. Finds single strangers, and groups up to about a fifth of the set, that lie well apart.
    """
    if len(scores) < _LEAST_FOR_A_FENCE:
        return math.inf
    low, middle, high, end = (float(value) for value in np.quantile(np.asarray(scores), [0.25, 0.5, 0.75, 0.95]))
    below, above = (middle - low) / math.log(2), (high - middle) / math.log(2)
    step = below if end - middle > _LONG_TAIL * (middle - low) else min(above, 2 * below)
    return middle + step * math.log(0.5 * len(scores) / _EXPECTED_BEYOND) if step > 0 else math.inf


@dataclass(frozen=True, slots=True)
class Drift:
    """How recent scores lie to those of the calibration.

    ``above``: share of the recent ones above the threshold; ``expected``: the most that needs no explanation; ``higher`` and ``lower``: largest
    distance by which the recent distribution lies above or below the calibration's (Kolmogorov-Smirnov, one-sided), 0…1; ``p``: chance of
    anything at least as far out where nothing has drifted (at most 1, corrected for three looks).
    """

    above: float
    expected: float
    higher: float
    lower: float
    p: float


def drift(recent: Sequence[float], calibration: Sequence[float], threshold: float, alpha: float, unusual: float) -> Drift:
    """Compare recent scores with the calibration's; a share of at most ``unusual`` of them may truly be unusual, with scores however large.

    Calibration studies are normal, routine ones are not all: then the recent distribution F' lies between F and (1 - unusual) · F, so that
    only what F' exceeds F by, or F exceeds F' by beyond ``unusual``, is drift. The chances are those of the one-sided two-sample test
    (Smirnov 1939) and of the binomial distribution. Raises `ValueError` where one side is empty.
    """
    if not len(recent) or not len(calibration):
        raise ValueError("drift needs scores on both sides")
    new, old = np.sort(np.asarray(recent)), np.sort(np.asarray(calibration))
    places = np.concatenate([new, old])
    difference = np.searchsorted(old, places, "right") / len(old) - np.searchsorted(new, places, "right") / len(new)
    higher, lower = max(float(difference.max()), 0.0), max(float(-difference.min()), 0.0)
    size = len(new) * len(old) / (len(new) + len(old))
    flagged, expected = int((new > threshold).sum()), alpha + (1 - alpha) * unusual
    chances = (math.exp(-2 * size * max(higher - unusual, 0.0) ** 2), math.exp(-2 * size * lower**2), _at_least(flagged, len(new), expected))
    return Drift(flagged / len(new), expected, higher, lower, min(1.0, len(chances) * min(chances)))


def _at_least(count: int, n: int, p: float) -> float:
    """Return the chance of ``count`` or more of ``n`` where each has the chance ``p``."""
    return min(1.0, sum(math.exp(_log_binomial(n, k, p)) for k in range(count, n + 1)))


class PixelTail:
    """Counts healthy pixels by their z value, in bounded memory, and tabulates how rare each value is."""

    def __init__(self) -> None:
        self._counts: NDArray[np.int64] = np.zeros(len(_BINS) - 1, dtype=np.int64)

    def add(self, z: NDArray[np.float32]) -> None:
        """Count the z values of healthy foreground pixels (any shape); values beyond ±limits are counted at the limits."""
        clipped = np.clip(z.ravel(), _BINS[0], np.nextafter(_BINS[-1], 0))
        self._counts += np.histogram(clipped, bins=_BINS)[0]

    def table(self) -> tuple[float, ...]:
        """Return the z value at which the share of healthy pixels at or above it is 10^-t, for t = 0, 0.1 … 4.

        Raises `ValueError` where fewer than 10⁵ pixels were counted: the last entries would rest on nothing.
        """
        total = int(self._counts.sum())
        if total < 10 ** (TAIL_END + 1):
            raise ValueError(f"{total} healthy pixels are too few for a tail of 10^-{TAIL_END:.0f}: add more studies")
        at_or_above = np.cumsum(self._counts[::-1])[::-1] / total  # of the bin's lower edge
        levels = 10.0 ** -np.arange(0, TAIL_END + TAIL_STEP / 2, TAIL_STEP)
        edges = [float(_BINS[np.flatnonzero(at_or_above >= level)[-1]]) for level in levels]
        return tuple(np.maximum.accumulate(np.asarray(edges) + 1e-6 * np.arange(len(edges))).tolist())


def tail(z: NDArray[np.float32], table: Sequence[float]) -> NDArray[np.float32]:
    """Return -log10 of the share of healthy pixels at or above each z, 0…4, same shape, by linear interpolation of ``table``."""
    levels = np.arange(len(table)) * TAIL_STEP
    result: NDArray[np.float32] = np.interp(z, np.asarray(table), levels).astype(np.float32)
    return result


def relative(z: NDArray[np.float32], foreground: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return z stretched to 0…1 between the median and the 99.9th percentile of this series' foreground: a picture, not a probability."""
    if not foreground.any():
        return np.zeros_like(z)
    low, high = np.percentile(z[foreground], [50, 99.9])
    result: NDArray[np.float32] = np.clip((z - low) / max(float(high - low), 1e-6), 0, 1).astype(np.float32)
    return result
