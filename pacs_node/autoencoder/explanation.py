"""Why a score is what it is: what each part adds to it, so that the parts' shares sum up to the score.

::

    study parts  ─┐
    usual values ─┴─► score of every subset of parts ─► Shapley value of each part      Σ = score
    z maps at the hottest place of a slice ───────────► the same, of the fused z there   Σ = fused z

For a weighted sum the Shapley value is the weighted, standardised part itself; for any other fusion it is the only attribution that is
symmetric, gives nothing to a part without influence, and adds up (Shapley 1953). All numbers are dimensionless.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import factorial

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder.scoring import PARTS, Fusion, Normals, Scores, Seen, Stratum, evidence, fuse, standardise, study_score

BASE = "usual"  # what the score is where every part has its usual value; 0 for standardised parts, and then left out
MOST_PARTS = 12  # the scores of 2^12 subsets are computed in a fraction of a second
_ORDERS = 64
_SMOOTH = 5  # the hottest place is that of the map averaged over so many pixels an edge: one pixel is noise


def shapley(score: Callable[[Tensor], float], values: Tensor, usual: Tensor) -> list[float]:
    """Return what each of the ``values`` (n) adds to ``score(values)`` compared with ``score(usual)``.

    The n numbers sum up to ``score(values) - score(usual)``. They are exact, from all 2^n subsets, up to `MOST_PARTS` values; of more the
    average over some orders of joining, always the same ones, which still adds up.
    """
    count = len(values)
    if count > MOST_PARTS:
        return _by_orders(score, values, usual)
    present = [[bool(subset >> part & 1) for part in range(count)] for subset in range(2**count)]
    scores = [score(torch.where(torch.tensor(chosen, dtype=torch.bool), values, usual)) for chosen in present]
    weights = [factorial(size) * factorial(count - size - 1) / factorial(count) for size in range(count)]
    return [
        sum(weights[sum(chosen)] * (scores[subset | 1 << part] - scores[subset]) for subset, chosen in enumerate(present) if not chosen[part])
        for part in range(count)
    ]


def _by_orders(score: Callable[[Tensor], float], values: Tensor, usual: Tensor) -> list[float]:
    """Average what each part adds when it joins, over orders and their reverses (Castro et al. 2009)."""
    generator, shares = torch.Generator().manual_seed(0), [0.0] * len(values)
    halves = [torch.randperm(len(values), generator=generator).tolist() for _ in range(_ORDERS // 2)]
    for order in (*halves, *(half[::-1] for half in halves)):
        present, before = usual.clone(), score(usual)
        for part in order:
            present[part] = values[part]
            after = score(present)
            shares[part] += (after - before) / _ORDERS
            before = after
    return shares


def contributions(score: Callable[[Tensor], float], parts: Mapping[str, float], usual: Tensor) -> dict[str, float]:
    """Return what each named part adds to the score of all of them; the numbers sum up to that score.

    ``score`` is a pure function of the parts' values (n); ``usual`` (n) what they are in healthy studies. `BASE` is among the names where
    the score of ``usual`` is not zero.
    """
    values = torch.tensor(list(parts.values()))
    shares = dict(zip(parts, shapley(score, values, usual.to(values)), strict=True))
    base = score(usual.to(values))
    return shares if base == 0 else {BASE: base, **shares}


def study_contributions(scores: Scores, normals: Normals, fusion: Fusion) -> dict[str, float]:
    """Return what each study part adds to the study's score, compared with its mean over healthy studies."""
    return contributions(lambda parts: study_score(parts, normals, fusion), scores.parts, normals.study_mean)


@dataclass(frozen=True, slots=True)
class Hot:
    """The hottest place of one slice: its pixel on the analysis grid, the fused ``z`` there, and what each map adds to it."""

    index: int
    row: int
    column: int
    z: float
    parts: Mapping[str, float]


def hottest(x: Tensor, seen: Seen, foreground: Tensor, scores: Scores, normals: Normals, fusion: Fusion, stratum: Stratum, slices: Sequence[int]) -> list[Hot]:
    """Say for each of the chosen ``slices`` where its map is hottest, and which pixel maps make it so; the arguments are those of `judge`."""
    chosen = list(slices)
    maps = evidence(x[chosen], seen.of(chosen), foreground[chosen], normals.low_mean, normals.low_axes, centred=fusion.centred)
    z = standardise(maps, foreground[chosen], normals, stratum.bins(len(x), normals.mean.shape[1])[chosen])
    smooth = F.avg_pool2d(scores.z[chosen][:, None], _SMOOTH, stride=1, padding=_SMOOTH // 2)[:, 0].masked_fill(~foreground[chosen], -torch.inf)
    found = []
    for position, index in enumerate(chosen):
        row, column = divmod(int(smooth[position].argmax()), x.shape[-1])
        values = z[:, position, row, column]
        parts = contributions(lambda part: float(fuse(part[:, None, None, None], fusion.pixel)), _named(values), torch.zeros(len(values)))
        found.append(Hot(index, row, column, float(scores.z[index, row, column]), parts))
    return found


def _named(values: Tensor) -> dict[str, float]:
    return {name: float(value) for name, value in zip(PARTS, values, strict=False)}
