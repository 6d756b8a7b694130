"""What a detector should not be taught as usual: pixels of training studies that the autoencoder finds unusual.

Among studies that were taken for normal some hold what nobody has seen. An autoencoder hardly learns what is rare; a detector is told that
whatever stands in a training slice is no change, and learns it. So the most unusual pixels, and those around them, are left out of its lessons:
first what the autoencoder finds, then what both find together, which is four times as precise (Yoon et al. 2022, Self-supervise, Refine, Repeat).

::

    training slices ─► autoencoder ────────────────► z map ─► above the share of held-out pixels? ─► widened ─► left out of the first lessons
           │               └─► and first detector ─► z map ─► the same ────────────────────────────────────► left out of the lessons
           └──────────────────────────────────────────────────────────────────────────────────────────────────────► detector
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder.network import Network
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.autoencoder.scoring import Fusion, judge, look

_AROUND = 7  # pixels: a finding reaches a little further than its most unusual part
_DRAWN = 4000  # pixels of each held-out study, to find the line


def usual(network: Network, train: Sequence[Example], held_out: Sequence[Example], fusion: Fusion, bins: int, share: float) -> list[Tensor]:
    """Return the foreground of each training study (S, P, P) without what is more unusual than all but ``share`` of the held-out pixels.

    ``fusion`` weighs the maps of ``network``, that of a detector among them where it has one. Raises `ValueError` like `normals.fit_normals`.
    """
    normals = fit_normals(network, [one.x for one in train], held_out, fusion, bins)

    def unusual(one: Example) -> Tensor:
        return judge(one.x, look(network, one.x), one.foreground, normals, fusion, one.stratum).z

    line = _line((unusual(one)[one.foreground] for one in held_out), share)
    return [one.foreground & ~_widened(unusual(one) > line) for one in train]


def _line(values: Iterable[Tensor], share: float) -> float:
    """Return what all but ``share`` of the values lie below; of each tensor (n) evenly spread ones count."""
    drawn = torch.cat([some[:: max(1, len(some) // _DRAWN)] for some in values])
    return float(drawn.sort().values[min(len(drawn) - 1, int((1 - share) * len(drawn)))])


def _widened(found: Tensor) -> Tensor:
    """Widen what was found in (S, P, P) by a square of `_AROUND` pixels."""
    return F.max_pool2d(found[:, None].float(), _AROUND, stride=1, padding=_AROUND // 2)[:, 0] > 0
