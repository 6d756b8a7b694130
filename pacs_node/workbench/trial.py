"""What one trained recipe makes of one study: its scores beside the baselines', and how well it restores normal anatomy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.baselines import judge_baselines
from pacs_node.autoencoder.corruption import corrupt
from pacs_node.autoencoder.losses import beta_nll
from pacs_node.autoencoder.network import with_neighbours
from pacs_node.autoencoder.normals import Example

_BATCH = 32
STUDY = "study"


@dataclass(frozen=True, slots=True)
class Trial:
    """One study's numbers: ``scores`` by detector, `STUDY` for the fused one; ``loss`` and ``error`` see `restored`, of normal studies only."""

    name: str
    patient: str
    unusual: bool
    scores: dict[str, float]
    baselines: dict[str, float]
    loss: float | None = None
    error: float | None = None


def try_out(bundle: Bundle, name: str, patient: str, unusual: bool, example: Example, spoiling: Sequence[str]) -> Trial:
    """Judge one study as the node would; of a normal one also say how well it is restored after ``spoiling``."""
    x, foreground = example.x.float(), example.foreground
    _, judged = bundle.judge(x, foreground, example.stratum)
    scores = {STUDY: judged.study, **judged.parts}
    baselines = {known: float(value) for known, (value, _) in judge_baselines(x, foreground, bundle.baselines, bundle.manifest.scoring.top).items()}
    if unusual:
        return Trial(name, patient, True, scores, baselines)
    loss, error = restored(bundle, x, foreground, spoiling)
    return Trial(name, patient, False, scores, baselines, loss, error)


@torch.inference_mode()
def restored(bundle: Bundle, x: Tensor, foreground: Tensor, spoiling: Sequence[str]) -> tuple[float, float]:
    """Spoil normal slices (S, P, P) by the named corruptions and measure how well the network restores them, over the foreground.

    Returns the Gaussian negative log-likelihood (nats a pixel) and the root mean square error (of the range 0…1). The spoiling is
    drawn anew from the same seed each time, whatever the recipe trained with: recipes are compared on the same slices.
    """
    generator = torch.Generator().manual_seed(0)
    device, stacked = next(bundle.network.parameters()).device, with_neighbours(x, bundle.network.slices)
    likelihood = square = pixels = 0.0
    for start in range(0, len(x), _BATCH):
        target, weight = x[start : start + _BATCH, None], foreground[start : start + _BATCH, None].float()
        output = bundle.network(corrupt(stacked[start : start + _BATCH], generator, tuple(spoiling)).to(device))
        mean, log_variance, counted = output.mean.cpu(), output.log_variance.cpu(), float(weight.sum())
        likelihood += float(beta_nll(target, mean, log_variance, weight, beta=0.0)) * counted
        square += float(((target - mean).square() * weight).sum())
        pixels += counted
    return likelihood / max(pixels, 1.0), (square / max(pixels, 1.0)) ** 0.5
