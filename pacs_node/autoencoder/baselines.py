"""What an autoencoder has to beat: simple detectors that are trained with every bundle and reported beside it.

Slices are (S, P, P) in [0, 1] with their foreground; a map is larger where a pixel is less usual. Each gives a study one score, larger
where it is less like normal ones. None knows a label, so none knows a direction: "darker than usual" and "brighter than usual" both count
as a distance. A sign that was chosen by looking at labels makes another, supervised detector.

::

    name         score of a study                                           map
    intensity    top share of the map, 3-slice moving average, maximum      distance of each pixel from the usual intensity
    mean         distance of its mean foreground intensity from the usual   the same number everywhere: it says nothing about where
    components   as intensity                                               residual of the reconstruction from principal components
    neighbour    distance to the nearest normal slice in whitened           difference from that normal slice
                 component space, 3-slice moving average, maximum
    prototypes   the same to the nearest of k-means' centres                difference from that centre
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder.scoring import moving_peak, principal_axes, top_share

EDGE = 64  # slices are reduced to this edge for the principal components
AXES = 64
PROTOTYPES = 16
_MOST_ROWS = 1500
_ROUNDS = 30  # of k-means
_RIDGE = 0.1  # share of the mean variance added along every axis: axes of next to no spread must not decide


@dataclass(frozen=True, slots=True)
class Baselines:
    """Numbers of the baselines.

    ``centre`` median foreground intensity, ``mean`` (EDGE²) and ``axes`` (k, EDGE²) of the components, ``level`` median of the studies' mean
    foreground intensities, ``roots`` (k) spread of normal slices along each axis, ``rows`` (n, k) and ``prototypes`` (m, k) whitened
    coordinates of normal slices and of k-means' centres. What a file of an earlier version lacks is None, and its baseline is left out.
    """

    centre: float
    mean: Tensor
    axes: Tensor
    level: float | None = None
    roots: Tensor | None = None
    rows: Tensor | None = None
    prototypes: Tensor | None = None

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return what ``baselines.npz`` holds."""
        kept: dict[str, NDArray[np.float32]] = {"centre": np.array([self.centre], dtype=np.float32), "mean": self.mean.numpy(), "axes": self.axes.numpy()}
        if self.level is not None:
            kept["level"] = np.array([self.level], dtype=np.float32)
        optional = {"roots": self.roots, "rows": self.rows, "prototypes": self.prototypes}
        return kept | {name: value.numpy() for name, value in optional.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Baselines:
        """Read the arrays back; raises `KeyError` where one of the first three is missing."""
        tensors = {name: torch.from_numpy(arrays[name].astype(np.float32)) for name in ("mean", "axes", "roots", "rows", "prototypes") if name in arrays}
        level = float(arrays["level"][0]) if "level" in arrays else None
        return cls(float(arrays["centre"][0]), tensors.pop("mean"), tensors.pop("axes"), level, **tensors)


def fit_baselines(train: Sequence[tuple[Tensor, Tensor]]) -> Baselines:
    """Fit them on normal studies: pairs of slices (S, P, P) and foreground."""
    values = torch.cat([x[foreground][::97] for x, foreground in train])
    reduced = torch.cat([_reduce(x * foreground) for x, foreground in train])
    reduced = reduced[:: max(1, len(reduced) // _MOST_ROWS)]
    mean, axes = principal_axes(reduced, AXES)
    along = (reduced - mean) @ axes.T
    variance = along.square().mean(0)
    roots = (variance + _RIDGE * variance.mean() + 1e-12).sqrt()
    rows = along / roots
    level = torch.stack([_level(x, foreground) for x, foreground in train]).median()
    return Baselines(float(values.median()), mean, axes, float(level), roots, rows, k_means(rows, min(PROTOTYPES, max(1, len(rows) // 8))))


def k_means(rows: Tensor, count: int, seed: int = 0) -> Tensor:
    """Return ``count`` centres (count, D) of ``rows`` (N, D) by Lloyd's iteration from a seeded k-means++ start (Arthur and Vassilvitskii 2007)."""
    generator = torch.Generator().manual_seed(seed)
    centres = rows[torch.randint(len(rows), (1,), generator=generator)]
    for _ in range(count - 1):
        near = torch.cdist(rows, centres).min(1).values.square() + 1e-12
        centres = torch.cat([centres, rows[torch.multinomial(near, 1, generator=generator)]])
    for _ in range(_ROUNDS):
        member = F.one_hot(torch.cdist(rows, centres).argmin(1), count).to(rows)
        sizes = member.sum(0)[:, None]
        centres = torch.where(sizes > 0, member.T @ rows / sizes.clamp(min=1), centres)
    return centres


def _reduce(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x[:, None], EDGE).flatten(1)


def _level(x: Tensor, foreground: Tensor) -> Tensor:
    """Mean intensity of a study's foreground; 0 where it shows nothing but air."""
    return x[foreground].mean() if foreground.any() else x.new_zeros(())


def _as_map(rows: Tensor, foreground: Tensor) -> Tensor:
    """Bring absolute values of reduced slices (S, EDGE²) back to (S, P, P), zero outside the foreground."""
    edges = list(foreground.shape[1:])
    return F.interpolate(rows.reshape(-1, 1, EDGE, EDGE), size=edges, mode="bilinear", align_corners=False)[:, 0].abs() * foreground


Judged = tuple[float, Tensor]
"""Score of a study and map (S, P, P)."""


def _intensity(x: Tensor, foreground: Tensor, fitted: Baselines, top: float) -> Judged:
    heat = (x - fitted.centre).abs() * foreground
    return baseline_score(heat, foreground, top), heat


def _mean(x: Tensor, foreground: Tensor, fitted: Baselines, top: float) -> Judged | None:
    if fitted.level is None:
        return None
    distance = abs(float(_level(x, foreground)) - fitted.level)
    return distance, distance * foreground.float()


def _components(x: Tensor, foreground: Tensor, fitted: Baselines, top: float) -> Judged:
    rows = _reduce(x * foreground) - fitted.mean
    heat = _as_map(rows - rows @ fitted.axes.T @ fitted.axes, foreground)
    return baseline_score(heat, foreground, top), heat


def _nearest(x: Tensor, foreground: Tensor, fitted: Baselines, among: Tensor | None) -> Judged | None:
    if fitted.roots is None or among is None:
        return None
    rows = _reduce(x * foreground) - fitted.mean
    near = torch.cdist(rows @ fitted.axes.T / fitted.roots, among).min(1)
    normal = (among[near.indices] * fitted.roots) @ fitted.axes
    return moving_peak(near.values), _as_map(rows - normal, foreground)


BASELINES: dict[str, Callable[[Tensor, Tensor, Baselines, float], Judged | None]] = {
    "intensity": _intensity,
    "mean": _mean,
    "components": _components,
    "neighbour": lambda x, foreground, fitted, top: _nearest(x, foreground, fitted, fitted.rows),
    "prototypes": lambda x, foreground, fitted, top: _nearest(x, foreground, fitted, fitted.prototypes),
}
"""Every baseline: a function of slices, foreground, the fitted numbers and the top share; None where its numbers were not fitted."""


def judge_baselines(x: Tensor, foreground: Tensor, fitted: Baselines, top: float) -> dict[str, Judged]:
    """Return score and map of every baseline that was fitted, by its name; ``top`` is the share of a slice's foreground that makes its score."""
    judged = {name: baseline(x, foreground, fitted, top) for name, baseline in BASELINES.items()}
    return {name: one for name, one in judged.items() if one is not None}


def baseline_score(heat: Tensor, foreground: Tensor, top: float) -> float:
    """Return the study score of a map: as for the network, the maximum of a 3-slice moving average of each slice's top share."""
    return moving_peak(top_share(heat, foreground, top))
