"""What an autoencoder has to beat: simple detectors that are trained with every bundle and reported beside it.

Slices are (S, P, P) in [0, 1] with their foreground; a map is larger where a pixel is less usual. A study's score is, as for the
network, the maximum of a 3-slice moving average of each slice's top share.
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
_MOST_ROWS = 1500


@dataclass(frozen=True, slots=True)
class Baselines:
    """Numbers of the baselines: ``centre`` median foreground intensity, ``mean`` (EDGE²) and ``axes`` (k, EDGE²) of the components."""

    centre: float
    mean: Tensor
    axes: Tensor

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Return what ``baselines.npz`` holds."""
        return {"centre": np.array([self.centre], dtype=np.float32), "mean": self.mean.numpy(), "axes": self.axes.numpy()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Baselines:
        """Read the arrays back; raises `KeyError` where one is missing."""
        return cls(float(arrays["centre"][0]), torch.from_numpy(arrays["mean"].astype(np.float32)), torch.from_numpy(arrays["axes"].astype(np.float32)))


def fit_baselines(train: Sequence[tuple[Tensor, Tensor]]) -> Baselines:
    """Fit them on normal studies: pairs of slices (S, P, P) and foreground."""
    values = torch.cat([x[foreground][::97] for x, foreground in train])
    rows = torch.cat([_reduce(x * foreground) for x, foreground in train])
    mean, axes = principal_axes(rows[:: max(1, len(rows) // _MOST_ROWS)], AXES)
    return Baselines(float(values.median()), mean, axes)


def _reduce(x: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(x[:, None], EDGE).flatten(1)


def intensity_map(x: Tensor, foreground: Tensor, fitted: Baselines) -> Tensor:
    """Distance of each pixel's intensity from the usual foreground intensity."""
    return (x - fitted.centre).abs() * foreground


def components_map(x: Tensor, foreground: Tensor, fitted: Baselines) -> Tensor:
    """Absolute residual of the reconstruction from principal components."""
    rows = _reduce(x * foreground) - fitted.mean
    rest = (rows - rows @ fitted.axes.T @ fitted.axes).reshape(-1, 1, EDGE, EDGE)
    return F.interpolate(rest, size=x.shape[1:], mode="bilinear", align_corners=False)[:, 0].abs() * foreground


BASELINES: dict[str, Callable[[Tensor, Tensor, Baselines], Tensor]] = {"intensity": intensity_map, "components": components_map}
"""Every baseline: a function of slices, foreground and the fitted numbers to a map (S, P, P)."""


def baseline_score(heat: Tensor, foreground: Tensor, top: float) -> float:
    """Return the study score of a baseline's map."""
    return moving_peak(top_share(heat, foreground, top))
