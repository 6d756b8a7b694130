"""How the study's parts become one number, without labels.

Each part comes in units of its spread over normal studies, from their mean. A rule is a pure function of those values (n) and their weights
(n, none negative, not all zero); what each part adds is told by `explanation`, for every rule.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def weighted(z: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean (after Stouffer 1949): best where every part that has a weight rises with what is looked for."""
    return (z * weights).sum() / weights.sum()


def tail(z: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of -ln of each part's one-sided normal tail (after Fisher 1932): a part that is lower than usual takes next to nothing away.

    For parts that may point the wrong way, such as a residual that falls where pictures are plain.
    """
    likelihood: Tensor = torch.special.log_ndtr(-z)
    return -(likelihood * weights).sum() / weights.sum()


def largest(z: Tensor, weights: Tensor) -> Tensor:
    """The largest of the parts that have a weight, whatever the weight (Tippett 1931): one part that is far out is enough."""
    return z.masked_fill(weights <= 0, -math.inf).max()


FUSIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"weighted": weighted, "tail": tail, "largest": largest}
"""``scoring.fusion`` of a bundle to its rule."""
