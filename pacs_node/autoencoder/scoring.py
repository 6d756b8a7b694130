"""From reconstructions to maps and scores.

::

    slices x ─► network ─► mean, log-variance (, change), embedding
      │                        │
      └────────► evidence: offset · energy · structure · low band · error (· change)   (parts, S, P, P)
      │                        │   minus the healthy mean, over the healthy spread, at that slice and image position
      │                        ▼
      │                   z maps ─► fused z map (S, P, P) ─► slice scores ─► study parts ─► study score
      └────────► the slice as a whole (`whole`), where it was learnt ─────────────▲

Everything "healthy" is measured on held-out training normals and kept in `Normals`; nothing here says normal or abnormal.
Input values are in [0, 1], z values and scores are dimensionless. S slices, P pixels an edge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder import threads, whole
from pacs_node.autoencoder.fusing import FUSIONS
from pacs_node.autoencoder.losses import box_mean, structural_similarity
from pacs_node.autoencoder.network import Network, with_neighbours
from pacs_node.autoencoder.precision import mixed, repeatable

PARTS = ("offset", "energy", "structure", "low_band", "error", "change")  # the last only of networks with a change output
STUDY_PARTS = ("peak", "extent", "embedding")
ALL_STUDY_PARTS = (*STUDY_PARTS, *whole.NAMES)  # the last only of bundles that learnt slices as a whole
CELLS = 16  # healthy statistics are kept on a grid of this many cells an edge
LOW = 32  # edge of the low band
_BLUR = 5
_CLIP = 12.0  # one mad pixel must not decide over a study
_MOVING = 3  # slices of the moving average
_PIECE, _PIECE_OF_A_GPU = 16, 256  # slices whose maps are made at a time; so few stay in a processor's cache: 2.5 times as fast as all at once

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Normals:
    """What held-out normal slices look like to this network; the tensors are stored with the weights.

    There are as many (pixel) parts as the network gives: all of `PARTS`, or all but change.
    ``mean`` and ``spread``: (parts, strata · bins, CELLS, CELLS), evidence by kind of series, slice position (bins over the series) and image
    position.
    ``low_mean`` (LOW²) and ``low_axes`` (k, LOW²): principal components of the low band.
    ``embedding_mean`` (features) and ``embedding_white`` (features, features): whitening of embeddings.
    ``study_mean`` and ``study_spread`` (study parts): of the study parts over held-out studies.
    ``whole``: what normal slices look like as a whole, with two further study parts; None where it was not learnt.
    """

    mean: Tensor
    spread: Tensor
    low_mean: Tensor
    low_axes: Tensor
    embedding_mean: Tensor
    embedding_white: Tensor
    study_mean: Tensor
    study_spread: Tensor
    whole: whole.Whole | None = None

    def __post_init__(self) -> None:
        pixel, study = (len(self.mean), len(self.spread)), (len(self.study_mean), len(self.study_spread))
        if pixel[0] != pixel[1] or pixel[0] not in (len(PARTS) - 1, len(PARTS)) or study != 2 * (len(self.study_parts),):
            raise ValueError(f"statistics of other parts than {', '.join((*PARTS, *self.study_parts))}")

    FIELDS = ("mean", "spread", "low_mean", "low_axes", "embedding_mean", "embedding_white", "study_mean", "study_spread")

    @property
    def study_parts(self) -> tuple[str, ...]:
        """Names of the study parts."""
        return STUDY_PARTS if self.whole is None else ALL_STUDY_PARTS

    def to(self, device: str) -> Normals:
        """Return the same numbers on a device, but those of `whole`, which judges on the CPU."""
        return replace(self, **{name: getattr(self, name).to(device) for name in self.FIELDS})


@dataclass(frozen=True, slots=True)
class Stratum:
    """Which of ``of`` kinds of series one is, counted from 0: each kind has healthy statistics of its own. ``picture``: it is a mere picture."""

    index: int = 0
    of: int = 1
    picture: bool = False

    def bins(self, slices: int, all_bins: int) -> Tensor:
        """Return for each of ``slices`` slices its row among the ``all_bins`` rows of `Normals`."""
        bins = all_bins // self.of
        return self.index * bins + bins_of(slices, bins)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the network made of a series: ``mean`` and ``log_variance`` (S, P, P), ``embedding`` (S, features), ``change`` (S, P, P) where it says it."""

    mean: Tensor
    log_variance: Tensor
    embedding: Tensor
    change: Tensor | None = None

    def of(self, some: slice | list[int], device: str = "cpu") -> Seen:
        """Return what it made of some of the slices, on a device."""
        change = None if self.change is None else self.change[some].to(device)
        return Seen(self.mean[some].to(device), self.log_variance[some].to(device), self.embedding[some].to(device), change)


@dataclass(frozen=True, slots=True)
class Scores:
    """The judgement of a series: fused ``z`` (S, P, P; 0 outside the foreground), ``slices`` (S), ``parts`` and ``study``."""

    z: Tensor
    slices: Tensor
    parts: Mapping[str, float]
    study: float


def look(network: Network, x: Tensor, *, batch: int = 32, half: bool = False, beat: Callable[[float], None] = lambda fraction: None) -> Seen:
    """Pass slices (S, P, P) through the network, ``batch`` at a time; ``beat`` hears the fraction done after each batch.

    ``half``: compute in bfloat16 where that is harmless (torch.autocast); what is returned is float32 all the same.
    """
    device, dtype = next(network.parameters()).device, torch.bfloat16 if half else torch.float32
    stacked = with_neighbours(x, network.slices)
    if device.type == "cuda":
        stacked = stacked.pin_memory()

    def see(some: slice) -> Seen:
        with torch.inference_mode(), mixed(dtype, device), repeatable(dtype, device):
            output = network(stacked[some].to(device, non_blocking=True))
            mean, log_variance = (values[:, 0].float().cpu() for values in (output.mean, output.log_variance))
            change = None if output.change is None else output.change[:, 0].float().cpu()
            return Seen(mean, log_variance, output.embedding.float().cpu(), change)

    batches = threads.pieces(len(x), batch if device.type == "cuda" else min(batch, _PIECE))
    seen: list[Seen] = []
    with closing(_in_turn(see, batches, device.type)) as results:
        for some, one in zip(batches, results, strict=True):
            seen.append(one)
            beat(some.stop / len(x))
    changes = [one.change for one in seen if one.change is not None]
    mean, log_variance, embedding = (torch.cat([getattr(one, name) for one in seen]) for name in ("mean", "log_variance", "embedding"))
    return Seen(mean, log_variance, embedding, torch.cat(changes) if changes else None)


def _in_turn(work: Callable[[slice], Result], pieces: Sequence[slice], device: str) -> Generator[Result]:
    """Do pieces of a series side by side on processors, one after the other on a GPU."""
    if device == "cpu":
        yield from threads.in_order(work, pieces)
    else:
        yield from map(work, pieces)


def low_band(x: Tensor) -> Tensor:
    """Return the low band of slices: (S, P, P) to (S, LOW²)."""
    return F.adaptive_avg_pool2d(x[:, None], LOW).flatten(1)


def principal_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean (D) and up to ``count`` principal axes (k, D) of ``rows`` (N, D)."""
    mean = rows.mean(0)
    _, _, axes = torch.linalg.svd(rows - mean, full_matrices=False)
    return mean, axes[: min(count, max(1, len(rows) // 4))].contiguous()


def _local(x: Tensor) -> Tensor:
    """Local mean of (S, P, P) over a 5 × 5 window."""
    return box_mean(x[:, None], _BLUR)[:, 0]


def _centred(residual: Tensor, foreground: Tensor) -> Tensor:
    """Take each slice's median over its foreground from the residual (S, P, P): a slice that is brighter as a whole is no finding."""
    medians = residual.where(foreground, residual.new_tensor(torch.nan)).flatten(1).nanmedian(1).values
    return residual - medians.nan_to_num()[:, None, None]


def evidence(x: Tensor, seen: Seen, foreground: Tensor, low_mean: Tensor, low_axes: Tensor, *, centred: bool = False, parts: Collection[str] = PARTS) -> Tensor:
    """Return the raw maps (parts, S, P, P), as many of ``parts`` as the network gives: the larger, the less like a normal slice.

    offset: local mean of the standardised residual, absolute; energy: its local root mean square; structure: 1 - SSIM;
    low_band: distance of the blurred slice from the principal subspace of normal ones; error: local root mean square of the residual as
    it is, for images whose predicted spread misleads (speckle); change: a detector's logit of something being changed here, the only
    one below zero. ``centred``: see `Fusion`.
    """
    weight = foreground.float()
    share = _local(weight).clamp(min=1e-3)  # so that only pixels of the foreground count in a local mean
    difference = x - seen.mean
    plain = (_centred(difference, foreground) if centred else difference) * weight
    residual = plain * (-0.5 * seen.log_variance).exp()
    made: dict[str, Callable[[], Tensor | None]] = {
        "offset": lambda: (_local(residual) / share).abs(),
        "energy": lambda: (_local(residual.square()) / share).clamp(min=0).sqrt(),
        "structure": lambda: 1 - structural_similarity(x[:, None], seen.mean[:, None])[:, 0],
        "low_band": lambda: _outside(x, low_mean, low_axes),
        "error": lambda: (_local(plain.square()) / share).clamp(min=0).sqrt(),
        "change": lambda: seen.change,
    }
    maps = (made[name]() for name in PARTS if name in parts)
    return torch.stack([one for one in maps if one is not None]) * weight


def _outside(x: Tensor, low_mean: Tensor, low_axes: Tensor) -> Tensor:
    """Return how far the low band of (S, P, P) lies outside of the principal subspace, by pixel."""
    rows = low_band(x) - low_mean
    rest = (rows - rows @ low_axes.T @ low_axes).reshape(-1, 1, LOW, LOW)
    return F.interpolate(rest, size=x.shape[1:], mode="bilinear", align_corners=False)[:, 0].abs()


def bins_of(slices: int, bins: int) -> Tensor:
    """Return the position bin of each of ``slices`` slices."""
    return ((torch.arange(slices) + 0.5) / max(slices, 1) * bins).long().clamp(max=bins - 1)


def standardise(maps: Tensor, foreground: Tensor, normals: Normals, which: Tensor, parts: Sequence[int] | None = None) -> Tensor:
    """Return z maps (parts, S, P, P) of raw maps, clipped to ±12; zero outside the foreground.

    ``which``: each slice's row of `Normals`; ``parts``: the rows of `PARTS` that the maps are, None for all.
    """
    tables = (table if parts is None else table[list(parts)] for table in (normals.mean, normals.spread))
    mean, spread = (_spread_out(table[:, which], maps.shape[-1]) for table in tables)
    return ((maps - mean) / spread).clamp(-_CLIP, _CLIP) * foreground


def _spread_out(cells: Tensor, pixels: int) -> Tensor:
    """Interpolate (parts, S, CELLS, CELLS) to (parts, S, P, P)."""
    return F.interpolate(cells, size=(pixels, pixels), mode="bilinear", align_corners=False)


def fuse(z: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of z maps: (parts, S, P, P) to (S, P, P); parts beyond the weights count nothing, weights beyond the parts neither."""
    weight = torch.tensor([*weights, *[0.0] * len(z)][: len(z)], dtype=z.dtype, device=z.device)
    return torch.einsum("pshw,p->shw", z, weight / weight.sum())


def top_share(z: Tensor, foreground: Tensor, share: float) -> Tensor:
    """Return the mean of the largest ``share`` of each slice's foreground pixels: (S, P, P) to (S); 0 for a slice without foreground."""
    sizes = foreground.sum((1, 2))
    counts = (share * sizes.double()).long().clamp(min=1)
    inner = z.masked_fill(~foreground, -torch.inf).flatten(1)
    largest = inner.topk(int(counts.max()), sorted=True).values
    counted = torch.arange(largest.shape[1], device=z.device) < counts[:, None]
    sums = largest.masked_fill(~counted, 0).sum(1)
    return torch.where(sizes > 0, sums / counts, 0)


def moving_peak(values: Tensor, width: int = _MOVING) -> float:
    """Return the maximum of a moving average over ``width`` slices (over all of them, where there are fewer)."""
    width = min(width, len(values))
    return float(F.avg_pool1d(values[None, None], width, stride=1).max())


def embedding_distance(embedding: Tensor, normals: Normals) -> Tensor:
    """Return the Mahalanobis distance of each slice's embedding from the normal ones, per root of its length: (S, features) to (S)."""
    white = (embedding - normals.embedding_mean) @ normals.embedding_white
    return white.square().mean(1).sqrt()


def study_parts(z: Tensor, foreground: Tensor, slices: Tensor, distance: Tensor, moving: int = _MOVING) -> Tensor:
    """Return the study parts in the order of `STUDY_PARTS`.

    peak: maximum of the moving average of the slice scores over ``moving`` slices; extent: mean of the top 10 % of slices' mean z;
    embedding: maximum of the 3-slice moving average of the embedding distance.
    """
    inside = foreground.sum((1, 2)).clamp(min=1)
    means = (z * foreground).sum((1, 2)) / inside
    extent = means.topk(max(1, len(means) // 10)).values.mean()
    return torch.tensor([moving_peak(slices, moving), float(extent), moving_peak(distance)])


def study_score(parts: Tensor, normals: Normals, fusion: Fusion) -> float:
    """Return one number by the rule of ``fusion``, of the parts (n) each in units of its spread over normal studies; a part without a weight counts nothing."""
    weights = torch.zeros(len(parts))
    weights[: len(fusion.study)] = torch.tensor(fusion.study[: len(parts)])
    return float(FUSIONS[fusion.rule]((parts - normals.study_mean) / normals.study_spread, weights))


@dataclass(frozen=True, slots=True)
class Fusion:
    """How the parts are weighed: ``pixel`` in the order of `PARTS`, ``study`` of `ALL_STUDY_PARTS` (those left out at the end weigh nothing).

    ``top`` is the share that makes a slice's score, ``moving`` the slices of the moving average whose maximum is the peak (1 where slices
    are so far apart that a small lesion shows on one or two of them), ``rule`` one of `fusing.FUSIONS`.
    ``pictures`` weighs the study parts of mere pictures: of many sources and crops, they are told apart as a whole, not by what is small.
    ``centred``: the residual of each slice counts from its median, for images without a unit, whose brightness as a whole says nothing.
    """

    pixel: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 0.0)
    study: tuple[float, ...] = (1.0, 1.0, 1.0)
    top: float = 0.01
    centred: bool = False
    rule: str = "weighted"
    moving: int = _MOVING
    pictures: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        optional_parts = len(whole.NAMES)
        for name, weights, parts, optional in (
            ("pixel", self.pixel, PARTS, 1),
            ("study", self.study, ALL_STUDY_PARTS, optional_parts),
            ("pictures", self.pictures, ALL_STUDY_PARTS, optional_parts),
        ):
            if not len(parts) - optional <= len(weights) <= len(parts) or min(weights) < 0 or not sum(weights):
                raise ValueError(f"{name} weights {list(weights)} must be {len(parts)} numbers ({', '.join(parts)}), none negative, not all zero")
        if not 0 < self.top <= 1:
            raise ValueError(f"top {self.top} must be a share above 0 and at most 1")
        if self.moving < 1:
            raise ValueError(f"moving {self.moving} must be at least one slice")
        if self.rule not in FUSIONS:
            raise ValueError(f"unknown fusion {self.rule!r}: allowed are {', '.join(FUSIONS)}")

    def on(self, stratum: Stratum, normals: Normals) -> Fusion:
        """Return the fusion that counts for a kind of series; ``normals`` that were learnt without the parts of pictures have none of their own."""
        known = sum(self.pictures[: len(normals.study_parts)])
        return replace(self, study=self.pictures) if stratum.picture and known else self


def _fused(x: Tensor, seen: Seen, foreground: Tensor, normals: Normals, fusion: Fusion, which: Tensor) -> Tensor:
    """The fused z map of a few slices, made of the parts that weigh something."""
    given = [index for index in range(len(normals.mean)) if index < len(fusion.pixel) and fusion.pixel[index]]
    maps = evidence(x, seen, foreground, normals.low_mean, normals.low_axes, centred=fusion.centred, parts=[PARTS[index] for index in given])
    return fuse(standardise(maps, foreground, normals, which, given), [fusion.pixel[index] for index in given])


def judge(x: Tensor, seen: Seen, foreground: Tensor, normals: Normals, fusion: Fusion, stratum: Stratum, device: str = "cpu") -> Scores:
    """Turn what the network saw of slices ``x`` (S, P, P) into maps and scores; ``foreground`` (S, P, P) boolean is what counts.

    The maps are made on ``device``; what goes in and what comes out is on the CPU.
    """
    which, near = stratum.bins(len(x), normals.mean.shape[1]), normals.to(device)

    def maps(some: slice) -> tuple[Tensor, Tensor]:
        inside = foreground[some].to(device)
        fused = _fused(x[some].to(device), seen.of(some, device), inside, near, fusion, which[some].to(device))
        return fused.cpu(), top_share(fused, inside, fusion.top).cpu()

    made = list(_in_turn(maps, threads.pieces(len(x), _PIECE if device == "cpu" else _PIECE_OF_A_GPU), device))
    z, slices = (torch.cat(parts) for parts in zip(*made, strict=True))
    parts = study_parts(z, foreground, slices, embedding_distance(seen.embedding, normals), fusion.moving)
    if normals.whole is not None:
        parts = torch.cat([parts, normals.whole.study(x, which)])
    named = {name: float(value) for name, value in zip(normals.study_parts, parts, strict=True)}
    return Scores(z, slices, named, study_score(parts, normals, fusion.on(stratum, normals)))
