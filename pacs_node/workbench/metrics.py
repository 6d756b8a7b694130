"""How well scores tell two groups apart: AUROC and average precision with bootstrap intervals. Pure functions of arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

ROUNDS = 1000


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the area under the ROC curve; raises `ValueError` where one group is empty."""
    if len(set(positive)) < 2:
        raise ValueError("an AUROC needs studies of both groups")
    return float(roc_auc_score(positive, scores))


def auroc_interval(scores: Sequence[float], positive: Sequence[bool], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC, both groups resampled by study."""
    values, truth = np.asarray(scores), np.asarray(positive, dtype=bool)
    rng = np.random.default_rng(seed)
    high, low = values[truth], values[~truth]
    drawn = [_rank_auroc(rng.choice(low, len(low)), rng.choice(high, len(high))) for _ in range(ROUNDS)]
    first, last = np.percentile(drawn, [2.5, 97.5])
    return float(first), float(last)


def _rank_auroc(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Share of pairs in which the high group's score is larger, ties counted half."""
    ordered = np.sort(low)
    below = np.searchsorted(ordered, high, "left") + np.searchsorted(ordered, high, "right")
    return float(below.mean() / 2 / len(low))


def average_precision(heat: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return the average precision of a map's pixels against a mask of the same shape; raises `ValueError` for an empty mask."""
    if not truth.any():
        raise ValueError("an average precision needs at least one positive pixel")
    return float(average_precision_score(truth.ravel(), heat.ravel()))


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return mean and 95 % bootstrap interval of values, one a study."""
    table = np.asarray(values)
    rng = np.random.default_rng(seed)
    drawn = rng.choice(table, (ROUNDS, len(table))).mean(1)
    first, last = np.percentile(drawn, [2.5, 97.5])
    return float(table.mean()), float(first), float(last)
