"""How well scores tell two groups of studies apart, with intervals by bootstrap over patients. Pure functions of arrays.

Every measure is computed for many weightings of the studies at once: a weight says how often a study counts. The value itself has weights
of one; a round of the bootstrap draws patients, all studies of a drawn patient come together. ::

    scores (n), positive (n), weights (rounds, n) ─► MEASURES[name] ─► values (rounds)

Studies are flagged where their score is larger. Everything is dimensionless, in 0…1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

ROUNDS = 1000
SPECIFICITY = 0.95
_AT_ONCE = 4_000_000  # weights in one piece
_ROUNDING = 1e-9

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Measure = Callable[[Floats, Flags, Floats], Floats]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; all NaN where it cannot be told."""

    value: float
    low: float
    high: float


# --- measures --------------------------------------------------------------------------------------------------------------


def _by_score(scores: Floats, positive: Flags, weights: Floats) -> tuple[Floats, Floats]:
    """Return how many positive and negative studies have each distinct score, in ascending order: two tables (rounds, scores)."""
    order = np.argsort(scores, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    sorted_weights = weights[:, order]
    high = np.add.reduceat(sorted_weights * positive[order], first, axis=1)
    return high, np.add.reduceat(sorted_weights, first, axis=1) - high


def _auroc(scores: Floats, positive: Flags, weights: Floats) -> Floats:
    """Share of pairs in which the positive study's score is larger, ties counted half (Hanley & McNeil 1982)."""
    high, low = _by_score(scores, positive, weights)
    below = np.cumsum(low, axis=1) - low / 2
    return _ratio((high * below).sum(1), high.sum(1) * low.sum(1))


def _average_precision(scores: Floats, positive: Flags, weights: Floats) -> Floats:
    """Precision averaged over recall, as a step function: no interpolation."""
    high, low = (table[:, ::-1] for table in _by_score(scores, positive, weights))
    found, all_found = np.cumsum(high, axis=1), np.cumsum(high + low, axis=1)
    return _ratio((high * found / np.maximum(all_found, _ROUNDING)).sum(1), found[:, -1])


def _sensitivity(scores: Floats, positive: Flags, weights: Floats) -> Floats:
    """Share of positive studies above the lowest score that at most 5 % of the negative ones exceed."""
    high, low = _by_score(scores, positive, weights)
    all_low = low.sum(1, keepdims=True)
    at = np.argmax(np.cumsum(low, axis=1) >= SPECIFICITY * all_low - _ROUNDING, axis=1)
    missed = np.take_along_axis(np.cumsum(high, axis=1), at[:, None], axis=1)[:, 0]
    return _ratio(high.sum(1) - missed, np.where(all_low[:, 0] > 0, high.sum(1), 0))


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(below > 0, above / below, np.nan)
    return result


MEASURES: dict[str, Measure] = {"auroc": _auroc, "ap": _average_precision, "sensitivity": _sensitivity}
"""Measure of study scores to what computes it: AUROC, average precision, sensitivity at 95 % specificity."""


# --- rounds of the bootstrap -----------------------------------------------------------------------------------------------


def draws(patients: Sequence[str], positive: Sequence[bool], rounds: int = ROUNDS, seed: int = 0) -> Floats:
    """Return how often each study counts in each round, (rounds, n).

    Patients are drawn with replacement, those with a positive study and those without each among themselves, so that both groups stay
    as large as they are. No round is drawn where either is a single patient: that says nothing of how patients vary.
    """
    names, owner = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    with_positive = np.zeros(len(names), dtype=bool)
    np.logical_or.at(with_positive, owner, np.asarray(positive, dtype=bool))
    rng, times = np.random.default_rng(seed), np.zeros((rounds, len(names)))
    groups = [np.flatnonzero(with_positive), np.flatnonzero(~with_positive)]
    if any(len(group) == 1 for group in groups):
        return np.zeros((0, len(owner)))
    for group in groups:
        if len(group):
            drawn = rng.integers(len(group), size=(rounds, len(group))) + len(group) * np.arange(rounds)[:, None]
            times[:, group] = np.bincount(drawn.ravel(), minlength=rounds * len(group)).reshape(rounds, len(group))
    return times[:, owner]


def _rounds(measure: Measure, scores: Floats, positive: Flags, weights: Floats) -> Floats:
    step = max(1, _AT_ONCE // max(1, len(scores)))
    if not len(weights):
        return np.zeros(0)
    return np.concatenate([measure(scores, positive, weights[first : first + step]) for first in range(0, len(weights), step)])


def _estimate(value: Floats, drawn: Floats) -> Estimate:
    known = drawn[np.isfinite(drawn)]
    if not len(known):
        return Estimate(float(value[0]), float("nan"), float("nan"))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(value[0]), float(low), float(high))


# --- what is asked ---------------------------------------------------------------------------------------------------------


def measure(name: str, scores: Sequence[float], positive: Sequence[bool], weights: Floats) -> Estimate:
    """Return a measure of `MEASURES` with its interval over the rounds of ``weights`` (see `draws`)."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    return _estimate(MEASURES[name](values, truth, np.ones((1, len(values)))), _rounds(MEASURES[name], values, truth, weights))


def difference(name: str, first: Sequence[float], second: Sequence[float], positive: Sequence[bool], weights: Floats) -> Estimate:
    """Return how much larger a measure is with the scores ``first`` than with ``second`` of the same studies: a paired bootstrap."""
    truth = np.asarray(positive, dtype=bool)
    tables = [np.asarray(scores, dtype=np.float64) for scores in (first, second)]
    ones = np.ones((1, len(truth)))
    value, drawn = ([_rounds(MEASURES[name], table, truth, how) for table in tables] for how in (ones, weights))
    return _estimate(value[0] - value[1], drawn[0] - drawn[1])


def mean(values: Sequence[float], weights: Floats) -> Estimate:
    """Return the mean of values, one a study, with its interval; NaN values (no such thing in this study) take no part."""
    table = np.asarray(values, dtype=np.float64)
    known = np.isfinite(table)
    sums = np.where(known, table, 0)
    value = _ratio(np.array([sums.sum()]), np.array([float(known.sum())]))
    return _estimate(value, _ratio(weights @ sums, weights @ known.astype(np.float64)))


def auroc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Return the area under the ROC curve; raises `ValueError` where one group is empty."""
    if len(set(positive)) < 2:
        raise ValueError("an AUROC needs studies of both groups")
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    return float(_auroc(values, truth, np.ones((1, len(values))))[0])


def auroc_interval(scores: Sequence[float], positive: Sequence[bool], patients: Sequence[str] | None = None, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the AUROC by patient; without ``patients`` each study is a patient's only one."""
    owners = [str(index) for index in range(len(scores))] if patients is None else patients
    found = measure("auroc", scores, positive, draws(owners, positive, seed=seed))
    return found.low, found.high


def mean_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """Return mean and 95 % bootstrap interval of values, one a patient."""
    found = mean(values, draws([str(index) for index in range(len(values))], [False] * len(values), seed=seed))
    return found.value, found.low, found.high


def average_precision(heat: NDArray[np.float32], truth: NDArray[np.bool_]) -> float:
    """Return the average precision of a map's pixels against a mask of the same shape; raises `ValueError` for an empty mask."""
    if not truth.any():
        raise ValueError("an average precision needs at least one positive pixel")
    return float(average_precision_score(truth.ravel(), heat.ravel()))


def matched(values: Sequence[float], positive: Sequence[bool], caliper: float) -> list[int]:
    """Return the indices of a subset in which each positive study has a negative one whose value differs by at most ``caliper``.

    Both groups are walked in the order of their values, the lowest that fit are paired first; for pairs within a caliper on one axis
    no other way finds more of them.
    """
    table, truth = np.asarray(values, dtype=np.float64), np.asarray(positive, dtype=bool)
    high, low = (sorted(np.flatnonzero(group), key=lambda index: (table[index], index)) for group in (truth, ~truth))
    kept: list[int] = []
    first = second = 0
    while first < len(high) and second < len(low):
        gap = table[high[first]] - table[low[second]]
        if abs(gap) <= caliper:
            kept += [int(high[first]), int(low[second])]
        first += gap <= caliper
        second += gap >= -caliper
    return sorted(kept)
