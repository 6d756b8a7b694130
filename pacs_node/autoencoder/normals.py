"""Measuring what is healthy: the statistics that residuals, embeddings and study parts are judged against.

All of it comes from normal studies that the network was not trained on, so that the spread is that of unseen patients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder import whole
from pacs_node.autoencoder.familiarity import Portrait
from pacs_node.autoencoder.network import Network
from pacs_node.autoencoder.scoring import CELLS, PARTS, STUDY_PARTS, Fusion, Normals, Seen, Stratum, evidence, judge, look, low_band, principal_axes

LOW_AXES = 48
_PRIOR = 50.0  # pixels' worth of the bin's own mean that is mixed into each cell
_LEAST_STUDIES = 3  # of a stratum, to be judged by statistics of its own
_RIDGE = 0.1  # share of the mean variance added to every direction of the embedding
_MOST_ROWS = 4000  # slices that the low band's axes are computed from


@dataclass(frozen=True, slots=True)
class Example:
    """One normal study: slices ``x`` (S, P, P) in [0, 1], their ``foreground`` (S, P, P), what kind of series it is, and its ``portrait`` for the gate."""

    x: Tensor
    foreground: Tensor
    stratum: Stratum = field(default_factory=Stratum)
    portrait: Portrait | None = None


def fit_normals(network: Network, train: Sequence[Tensor], held_out: Sequence[Example], fusion: Fusion, bins: int) -> Normals:
    """Measure `Normals` with ``bins`` slice positions for each kind of series.

    ``train`` are the training studies' slices (S, P, P), for the low band's axes only; ``held_out`` studies give everything else.
    Raises `ValueError` with fewer than two held-out studies.
    """
    if len(held_out) < 2:
        raise ValueError("measuring what is healthy needs at least two held-out studies")
    rows = torch.cat([low_band(x) for x in train])
    rows = rows[:: max(1, len(rows) // _MOST_ROWS)]
    low_mean, low_axes = principal_axes(rows, LOW_AXES)
    seen = [look(network, example.x) for example in held_out]
    mean, spread = _cells(held_out, seen, (low_mean, low_axes), bins, fusion.centred)
    embedding_mean, white = _whitening(torch.cat([one.embedding for one in seen]))
    parts = len(STUDY_PARTS)
    normals = Normals(mean, spread, low_mean, low_axes, embedding_mean, white, torch.zeros(parts), torch.ones(parts))
    return _with_study_parts(normals, held_out, seen, fusion)


def _cells(held_out: Sequence[Example], seen: Sequence[Seen], low: tuple[Tensor, Tensor], bins: int, centred: bool) -> tuple[Tensor, Tensor]:
    """Mean and spread of the evidence in every bin and cell, drawn towards the bin's own where few pixels fell."""
    strata = held_out[0].stratum.of
    shape = (len(PARTS) - (seen[0].change is None), strata * bins, CELLS, CELLS)
    count, total, square = torch.zeros(shape[1:]), torch.zeros(shape), torch.zeros(shape)
    for example, one in zip(held_out, seen, strict=True):
        maps = evidence(example.x, one, example.foreground, *low, centred=centred)
        cell = maps.shape[-1] // CELLS
        which = example.stratum.bins(len(example.x), strata * bins)
        count.index_add_(0, which, _sum(example.foreground[None].float(), cell)[0])
        total.index_add_(1, which, _sum(maps, cell))
        square.index_add_(1, which, _sum(maps.square(), cell))
    _share_with_the_rare(held_out, bins, (count[None], total, square))
    everywhere = count.sum((1, 2), keepdim=True).clamp(min=1)
    bin_mean, bin_square = (table.sum((2, 3), keepdim=True) / everywhere for table in (total, square))
    mean = (total + _PRIOR * bin_mean) / (count + _PRIOR)
    variance = (square + _PRIOR * bin_square) / (count + _PRIOR) - mean.square()
    floor = 0.25 * (bin_square - bin_mean.square()).clamp(min=1e-12).sqrt()
    spread = torch.maximum(variance.clamp(min=0).sqrt(), floor)
    if seen[0].change is not None:
        _everywhere_alike(mean[-1], spread[-1], bins, count, total[-1], square[-1])
    return mean, spread


def _everywhere_alike(mean: Tensor, spread: Tensor, bins: int, count: Tensor, total: Tensor, square: Tensor) -> None:
    """Give the change map one mean and spread in each stratum; all tables are (strata · bins, CELLS, CELLS), the first two are changed.

    A detector knows how unusual what it says is in this place; measured again by place it finds less, since a place where one healthy
    study made it say something would be forgiven much.
    """
    by_stratum = [table.view(-1, bins * CELLS**2).sum(1) for table in (count, total, square)]
    pixels, first, second = (table.repeat_interleave(bins)[:, None, None] for table in by_stratum)
    mean.copy_((first / pixels.clamp(min=1)).expand_as(mean))
    spread.copy_((second / pixels.clamp(min=1) - mean.square()).clamp(min=1e-6).sqrt())


def _share_with_the_rare(held_out: Sequence[Example], bins: int, tables: Sequence[Tensor]) -> None:
    """Give strata of too few studies the sums of all strata; the tables are (…, strata · bins, CELLS, CELLS), changed in place."""
    studies = Counter(example.stratum.index for example in held_out)
    rare = [index for index in range(held_out[0].stratum.of) if studies[index] < _LEAST_STUDIES]
    for table in tables:
        by_stratum = table.view(len(table), -1, bins, CELLS, CELLS)
        by_stratum[:, rare] = by_stratum.sum(1, keepdim=True)


def _sum(maps: Tensor, cell: int) -> Tensor:
    return F.avg_pool2d(maps, cell) * cell**2


def _whitening(embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and symmetric inverse root of the ridged covariance of (N, features)."""
    mean = embeddings.mean(0)
    centred = embeddings - mean
    covariance = centred.T @ centred / max(1, len(centred) - 1)
    values, vectors = torch.linalg.eigh(covariance)
    values = values.clamp(min=0) + _RIDGE * values.clamp(min=0).mean() + 1e-8
    return mean, vectors @ torch.diag(values.rsqrt()) @ vectors.T


def _with_study_parts(normals: Normals, held_out: Sequence[Example], seen: Sequence[Seen], fusion: Fusion) -> Normals:
    """Fill in mean and spread of the study parts over the held-out studies."""
    rows = [
        list(judge(example.x, one, example.foreground, normals, fusion, example.stratum).parts.values()) for example, one in zip(held_out, seen, strict=True)
    ]
    table = torch.tensor(rows)
    return replace(normals, study_mean=table.mean(0), study_spread=table.std(0).clamp(min=1e-3))


def with_whole(normals: Normals, studies: Iterable[Example]) -> Normals:
    """Add what normal studies look like as a whole, learnt from all of them: a study is judged by those of other folds; see `whole.fit_whole`."""
    rows = normals.mean.shape[1]
    learnt = whole.fit_whole(((one.x.float(), one.stratum.bins(len(one.x), rows)) for one in studies), rows)
    return replace(
        normals,
        whole=learnt.whole,
        study_mean=torch.cat([normals.study_mean[: len(STUDY_PARTS)], learnt.study_mean]),
        study_spread=torch.cat([normals.study_spread[: len(STUDY_PARTS)], learnt.study_spread]),
    )
