"""Training studies that stand out: perhaps they are not normal, and a person should look at them before the bundle learns to overlook them.

Judged by the study score, since the mean loss of a study hardly notices a lesion. Lesions that look like usual tissue are not found, and of
many studies a normal one may stand out too: it is a hint, and nothing is left out because of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.normals import Example
from pacs_node.workbench.material import Report
from pacs_node.workbench.shelf import Shelf

_DEVIATIONS = 6.0  # median absolute deviations above the median: 4 standard deviations, were the scores normally distributed
_LEAST = 8  # studies that can say what is usual


@dataclass(frozen=True, slots=True)
class Suspect:
    """A study whose score lies beyond what the others of its shelf suggest."""

    name: str
    score: float
    beyond: float  # the score from which on that holds


def suspects_in(bundle: Bundle, shelves: Sequence[Shelf], report: Report) -> tuple[Suspect, ...]:
    """Score every study by the bundle that they made, and return those that stand out on their shelf, the most unusual first.

    Studies trained on and held out are looked at apart: the network knows the former better.
    """
    count = sum(len(shelf) for shelf in shelves)
    found, done = [], 0
    for shelf in shelves:
        scores = []
        for one in shelf.studies:
            scores.append(_score(bundle, one))
            done += 1
            report("looking for studies that stand out", done / count)
        beyond = fence(scores)
        found += [Suspect(name, score, beyond) for name, score in zip(shelf.names, scores, strict=True) if score > beyond]
    return tuple(sorted(found, key=lambda one: -one.score))


def fence(scores: Sequence[float]) -> float:
    """Return the score beyond which one stands out of ``scores``; infinite where they are too few to say."""
    if len(scores) < _LEAST:
        return math.inf
    middle = float(np.median(scores))
    return middle + _DEVIATIONS * float(np.median(np.abs(np.asarray(scores) - middle)))


def _score(bundle: Bundle, one: Example) -> float:
    return bundle.judge(one.x, one.foreground, one.stratum)[1].study
