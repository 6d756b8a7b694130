"""Training slices that a bundle keeps, so that a person can see what normal looks like to it beside what stands out.

::

    training studies ─► some slices, spread over studies and positions ─► embedding and small picture ─► Reference
    slice that stands out ─► its embedding ─► nearest of them, at most one a study

Pictures of patients are patient data: a bundle that holds them stays at its site. They are for a report on the spot, and go into no DICOM object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder.network import Network, with_neighbours

EDGE = 64  # pixels of a picture's edge
_GOLDEN = 0.6180339887498949  # positions k · φ mod 1 spread evenly, however many there are


@dataclass(frozen=True, slots=True)
class Reference:
    """Kept slices: ``embedding`` (n, features) float16, ``picture`` (n, EDGE, EDGE) uint8, ``study`` (n) int32 and ``position`` (n) int32.

    ``study`` counts the training studies and says nothing about who they were; ``position`` is the slice in it, from 0.
    """

    embedding: Tensor
    picture: Tensor
    study: Tensor
    position: Tensor

    FIELDS = ("embedding", "picture", "study", "position")

    def __post_init__(self) -> None:
        count = len(self.embedding)
        if self.picture.shape != (count, EDGE, EDGE) or self.study.shape != (count,) or self.position.shape != (count,):
            raise ValueError("reference slices of other shapes than (n, features), (n, 64, 64), (n) and (n)")


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A kept slice: its row in `Reference` and its distance, in units of the normal embeddings' spread."""

    row: int
    distance: float


@torch.inference_mode()
def keep(network: Network, train: Sequence[Tensor], most: int) -> Reference | None:
    """Keep up to ``most`` slices of the training studies ``train``, each (S, P, P) in [0, 1]; None where there is nothing to keep."""
    chosen = _chosen([len(x) for x in train], most)
    if not chosen:
        return None
    device, inputs = next(network.parameters()).device, network.slices
    embeddings = [network(with_neighbours(train[study], inputs)[position][None].float().to(device)).embedding[0].cpu() for study, position in chosen]
    pictures = torch.cat([F.adaptive_avg_pool2d(train[study][position][None].float(), EDGE) for study, position in chosen])
    study, position = (torch.tensor(column, dtype=torch.int32) for column in zip(*chosen, strict=True))
    return Reference(torch.stack(embeddings).half(), (255 * pictures.clamp(0, 1)).round().to(torch.uint8), study, position)


def _chosen(slices: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Choose (study, position) pairs, as many of each study, at positions that differ from study to study."""
    studies = [round(index) for index in torch.linspace(0, len(slices) - 1, min(len(slices), most)).tolist()] if slices and most else []
    each = most // max(1, len(studies))
    return [(study, position) for order, study in enumerate(studies) for position in _positions(slices[study], min(each, slices[study]), order)]


def _positions(slices: int, count: int, order: int) -> list[int]:
    """Spread ``count`` positions over ``slices``, shifted from study to study."""
    return [int((turn + order * _GOLDEN % 1) / count * slices) for turn in range(count)]


def distances(embedding: Tensor, reference: Reference, white: Tensor) -> Tensor:
    """Return the distance of each slice's embedding (S, features) from each kept one, (S, n); ``white`` is `Normals.embedding_white`.

    Per root of the embedding's length, as `scoring.embedding_distance`.
    """
    ours, kept = (rows.float() @ white for rows in (embedding, reference.embedding))
    apart: Tensor = torch.cdist(ours, kept) / embedding.shape[1] ** 0.5
    return apart


def nearest(embedding: Tensor, reference: Reference, white: Tensor, count: int = 3) -> list[list[Neighbour]]:
    """Return for each slice's embedding (S, features) the nearest ``count`` kept slices, the nearest first, no two of one study."""
    found = []
    for row in distances(embedding, reference, white):
        best: dict[int, Neighbour] = {}
        for index in row.argsort().tolist():
            best.setdefault(int(reference.study[index]), Neighbour(index, float(row[index])))
            if len(best) == count:
                break
        found.append(list(best.values()))
    return found


def usual_distance(reference: Reference, white: Tensor) -> float:
    """Return the median distance of a kept slice from the nearest one of another study: what is near. NaN where all are of one study."""
    between = distances(reference.embedding, reference, white)
    other = reference.study[:, None] != reference.study[None, :]
    closest = between.where(other, torch.inf).min(1).values
    return float(closest[closest.isfinite()].median()) if closest.isfinite().any() else float("nan")
