"""The slice as a whole: is a picture like this among the normal ones? No network, next to no time.

::

    slice x ─► outline: edge energies in 4 directions, 3 octaves, on a 4 × 4 grid, logarithms (192)
      │              ├─► distance to the nearest normal slice, in whitened principal components
      │              └─► what those components leave over
      └──────► shape: 32 × 32 pixels, level and contrast taken out
                     └─► what the principal components of normal shapes leave over
                                  │  logarithm, from the usual median, in units of the usual spread
                                  ▼
                     outline: mean of the first two       shape: the third                    (S, 2)

What a reconstruction leaves over grows with contrast and detail, so that a plain picture looks healthier than a normal one whatever it
shows. Both parts are made so that neither counts: logarithms of energies compare ratios, and a shape has no contrast.
The outline is the spatial envelope of Oliva and Torralba 2001 with the simplest filters; "usual" is measured on slices that the
components were not computed from (folds of studies that lie side by side, so that neighbours of one patient part as seldom as possible).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

NAMES = ("outline", "shape")
_OCTAVES, _GRID, _SHAPE = 3, 4, 32
_OUTLINE_AXES, _SHAPE_AXES = 32, 48
_RIDGE = 0.1  # share of the mean variance added along every axis
_FOLDS = 5
_FEW = 40  # studies; fewer are worth twice the folds
_MOST_ROWS = 1500
_LEAST_SLICES = 20  # for usual values of a kind of series and position of its own
_FLOOR = 1e-5  # of an energy, and of a distance, whose logarithm is taken
_CLIP = 12.0
_MAD = 1.4826  # standard deviations of a normal distribution a median absolute deviation


def outline(x: Tensor) -> Tensor:
    """Return logarithms of edge energies: (S, P, P) in [0, 1] to (S, 192)."""
    across = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    slanting = torch.tensor([[0.0, 1, 2], [-1, 0, 1], [-2, -1, 0]]) / 8
    filters = torch.stack([across, across.T, slanting, slanting.flip(1)])[:, None].to(x)
    found, level = [], x[:, None]
    for _ in range(_OCTAVES):
        energy = F.conv2d(F.pad(level, (1, 1, 1, 1), mode="replicate"), filters).square()
        found.append((F.adaptive_avg_pool2d(energy, _GRID).flatten(1) + _FLOOR).log())
        level = F.avg_pool2d(level, 2)
    return torch.cat(found, 1)


def shape(x: Tensor) -> Tensor:
    """Return small slices without their level and contrast: (S, P, P) to (S, 32²), rows of mean 0 and length 1 (0 for an empty slice)."""
    rows = F.adaptive_avg_pool2d(x[:, None], _SHAPE).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    lengths: Tensor = rows.norm(dim=1, keepdim=True)
    return rows / lengths.clamp(min=1e-3)


@dataclass(frozen=True, slots=True)
class Whole:
    """Normal slices, and how far held-out normal slices usually are from them; the tensors are stored with the weights.

    ``outline_mean`` and ``outline_scale`` (192), ``outline_axes`` (k, 192), ``outline_roots`` (k) spread along each axis, ``outline_rows``
    (n, k) whitened normal slices; ``shape_mean`` (32²), ``shape_axes`` (m, 32²); ``usual`` and ``spread`` (strata · bins, 3) of the three log
    distances.
    """

    outline_mean: Tensor
    outline_scale: Tensor
    outline_axes: Tensor
    outline_roots: Tensor
    outline_rows: Tensor
    shape_mean: Tensor
    shape_axes: Tensor
    usual: Tensor
    spread: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return what a bundle stores."""
        return {field.name: getattr(self, field.name).contiguous() for field in fields(self)}

    def distances_of(self, outlines: Tensor, shapes: Tensor) -> Tensor:
        """Return logarithms of the three distances of slices: nearest outline, rest of the outline, rest of the shape; (S, 3)."""
        rows = (outlines - self.outline_mean) / self.outline_scale
        near = torch.cdist(rows @ self.outline_axes.T / self.outline_roots, self.outline_rows).min(1).values
        rests = [_rest(rows, self.outline_axes), _rest(shapes - self.shape_mean, self.shape_axes)]
        return (torch.stack([near, *rests], 1) + _FLOOR).log()

    def parts(self, distances: Tensor, which: Tensor) -> Tensor:
        """Return `NAMES` of log distances (S, 3) as (S, 2): 0 is usual, 1 a usual spread above; ``which`` (S) is each slice's row of ``usual``."""
        z = ((distances - self.usual[which]) / self.spread[which]).clamp(-_CLIP, _CLIP)
        return torch.stack([z[:, :2].mean(1), z[:, 2]], 1)

    def study(self, x: Tensor, which: Tensor) -> Tensor:
        """Return `NAMES` (2) of a study's slices (S, P, P)."""
        return study_parts(self.parts(self.distances_of(outline(x), shape(x)), which))


def _rest(rows: Tensor, axes: Tensor) -> Tensor:
    return (rows - rows @ axes.T @ axes).square().mean(1).sqrt()


def _sampled(rows: Tensor) -> Tensor:
    return rows[:: max(1, len(rows) // _MOST_ROWS)]


def _components(rows: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean, axes and the ridged spread along each; at most a quarter as many axes as rows, for the rest of unseen rows to be like theirs."""
    mean = rows.mean(0)
    _, values, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    count = min(count, max(1, len(rows) // 4))
    variance = values[:count].square() / max(1, len(rows) - 1)
    return mean, axes[:count].contiguous(), (variance + _RIDGE * variance.mean() + 1e-12).sqrt()


@dataclass(frozen=True, slots=True)
class Learnt:
    """What `fit_whole` found: ``whole``, and median and spread (2) of its parts over normal studies that it was not learnt from."""

    whole: Whole
    study_mean: Tensor
    study_spread: Tensor


def fit_whole(studies: Iterable[tuple[Tensor, Tensor]], count: int) -> Learnt:
    """Learn what normal studies look like as a whole, looking at each once.

    Each study is its slices (S, P, P) and their rows (S) among ``count`` rows of kinds of series and slice positions. Studies that may
    show one patient should lie side by side. Raises `ValueError` with fewer than two studies.
    """
    seen = [(outline(x), shape(x), which) for x, which in studies]
    if len(seen) < 2:
        raise ValueError("learning what slices look like as a whole needs at least two studies")
    outlines, shapes, rows = ([one[place] for one in seen] for place in range(3))
    distances: list[Tensor] = []
    for fold in torch.arange(len(seen)).tensor_split(min(len(seen), _FOLDS if len(seen) > _FEW else 2 * _FOLDS)):
        first, end = int(fold[0]), int(fold[-1]) + 1
        others = _known(outlines[:first] + outlines[end:], shapes[:first] + shapes[end:])
        distances += [others.distances_of(*both) for both in zip(outlines[first:end], shapes[first:end], strict=True)]
    usual, spread = _usual(torch.cat(distances), torch.cat(rows), count)
    whole = replace(_known(outlines, shapes), usual=usual, spread=spread)
    parts = torch.stack([study_parts(whole.parts(one, which)) for one, which in zip(distances, rows, strict=True)])
    return Learnt(whole, *_robust(parts))


def _known(outlines: Sequence[Tensor], shapes: Sequence[Tensor]) -> Whole:
    """What is normal by these slices; what is usual is still to be measured."""
    table = _sampled(torch.cat(list(outlines)))
    scale = table.std(0) if len(table) > 1 else torch.ones_like(table[0])
    scale = scale + 1e-3 * scale.mean() + 1e-6
    mean, axes, roots = _components(table / scale, _OUTLINE_AXES)
    shape_mean, shape_axes, _ = _components(_sampled(torch.cat(list(shapes))), _SHAPE_AXES)
    whitened = (table / scale - mean) @ axes.T / roots
    return Whole(mean * scale, scale, axes, roots, whitened, shape_mean, shape_axes, torch.zeros(1, 3), torch.ones(1, 3))


def _usual(distances: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Median and robust spread (count, 3) of log distances (N, 3); rows of few slices share those of all."""
    everything = _robust(distances)
    by_row = [_robust(distances[rows == row]) if int((rows == row).sum()) >= _LEAST_SLICES else everything for row in range(count)]
    return torch.stack([middle for middle, _ in by_row]), torch.stack([spread for _, spread in by_row])


def _robust(values: Tensor) -> tuple[Tensor, Tensor]:
    """Median and spread of each column: a few strange studies among the normal ones move neither much."""
    middle = values.quantile(0.5, dim=0)
    return middle, (_MAD * (values - middle).abs().quantile(0.5, dim=0)).clamp(min=1e-2)


def study_parts(slices: Tensor) -> Tensor:
    """Return for each column of slice values (S, k) the maximum of its 3-slice moving average (k)."""
    return F.avg_pool1d(slices.T[None], min(3, len(slices)), stride=1)[0].max(1).values
