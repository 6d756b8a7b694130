"""The training loop: seeded, resumable, stopped early on held-out normal slices.

Every epoch draws its random numbers from a generator seeded by (seed, epoch), so a run that was interrupted and resumed from its
checkpoint ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pacs_node.autoencoder.corruption import CORRUPTIONS, Augmentation, augment, corrupt
from pacs_node.autoencoder.losses import training_loss, weight_of
from pacs_node.autoencoder.network import Network, Output

_GRADIENT_LIMIT = 1.0
_WARM_UP = 0.1  # fraction of all steps in which the learning rate rises


class Slices(NamedTuple):
    """Training slices: ``pixels`` (N, inputs, P, P) float in [0, 1] and ``foreground`` (N, P, P) boolean."""

    pixels: Tensor
    foreground: Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train. ``patience``: epochs without a better held-out loss before training stops."""

    epochs: int = 20
    batch: int = 32
    rate: float = 2e-3
    patience: int = 6
    seed: int = 0
    penalty: float = 0.01
    corruptions: tuple[str, ...] = tuple(CORRUPTIONS)
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True)
class Step:
    """What a progress bar may show: ``done`` of ``total`` batches over all epochs and the losses so far (NaN before the first)."""

    epoch: int
    done: int
    total: int
    loss: float
    held_out: float


@dataclass(frozen=True, slots=True)
class History:
    """What came of it: the held-out loss of each epoch, and the epoch (0-based) whose weights were kept."""

    held_out: tuple[float, ...]
    best_epoch: int


@dataclass
class _State:
    """What a checkpoint holds beside the network and the optimiser."""

    losses: list[float]
    best: dict[str, Tensor]
    best_epoch: int = -1

    def better(self) -> bool:
        return self.best_epoch < 0 or self.losses[-1] < self.losses[self.best_epoch]


def fit(
    network: Network,
    train: Slices,
    held_out: Slices,
    schedule: Schedule,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> History:
    """Train ``network`` in place and leave it with its best weights, in evaluation mode.

    ``checkpoint`` is written after every epoch and resumed from where it belongs to the same data size, schedule and architecture;
    any other content is ignored. ``progress`` is called after every batch and may raise to stop. Raises `ValueError` without slices.
    """
    if not len(train.pixels) or not len(held_out.pixels):
        raise ValueError("training needs at least one training and one held-out slice")
    with torch.random.fork_rng(devices=[]):
        optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=1e-4)
        key = repr((network.architecture, schedule, tuple(train.pixels.shape), tuple(held_out.pixels.shape)))
        state = _resume(checkpoint, key, network, optimiser) or _State([], {})
        for epoch in range(len(state.losses), schedule.epochs):
            if epoch - state.best_epoch > schedule.patience and state.best_epoch >= 0:
                break
            _epoch(network, optimiser, train, schedule, progress, state)
            state.losses.append(_held_out_loss(network, held_out, schedule))
            if state.better():
                state.best_epoch, state.best = epoch, {name: value.clone() for name, value in network.state_dict().items()}
            if checkpoint is not None:
                _save(checkpoint, key, network, optimiser, state)
    network.load_state_dict(state.best)
    network.eval()
    return History(tuple(state.losses), state.best_epoch)


def _generator(seed: int, epoch: int) -> torch.Generator:
    torch.manual_seed(seed * 100_003 + epoch)  # the gates' noise
    return torch.Generator().manual_seed(seed * 100_003 + epoch)


def _epoch(network: Network, optimiser: torch.optim.Optimizer, train: Slices, schedule: Schedule, progress: Callable[[Step], None], state: _State) -> None:
    """One pass over the training slices in random order: the epoch after those whose losses ``state`` holds."""
    epoch = len(state.losses)
    generator = _generator(schedule.seed, epoch)
    batches = torch.split(torch.randperm(len(train.pixels), generator=generator), schedule.batch)
    total = len(batches) * schedule.epochs
    network.train()
    for number, chosen in enumerate(batches):
        done = epoch * len(batches) + number
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate * _rate_factor(done / total)
        both = torch.cat([train.pixels[chosen].float(), train.foreground[chosen, None].float()], dim=1)
        clean, foreground = _augmented(both, generator, schedule.augmentation)
        loss = _loss(network, clean, foreground, corrupt(clean, generator, schedule.corruptions), schedule.penalty)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _GRADIENT_LIMIT)
        optimiser.step()
        progress(Step(epoch, done + 1, total, float(loss.detach()), state.losses[-1] if state.losses else math.nan))


def _augmented(both: Tensor, generator: torch.Generator, how: Augmentation) -> tuple[Tensor, Tensor]:
    """Move slices and their foreground (the last channel) together."""
    moved = augment(both, generator, how)
    return moved[:, :-1], moved[:, -1:] > 0.5


def _loss(network: Network, clean: Tensor, foreground: Tensor, spoilt: Tensor, penalty: float, beta: float = 0.5) -> Tensor:
    """Loss of reconstructing the clean middle slice from the spoilt input."""
    output: Output = network(spoilt)
    middle = clean.shape[1] // 2
    loss: Tensor = training_loss(clean[:, middle : middle + 1], output.mean, output.log_variance, weight_of(foreground), beta)
    return loss + penalty * output.penalty


@torch.inference_mode()
def _held_out_loss(network: Network, held_out: Slices, schedule: Schedule) -> float:
    """Loss on held-out slices with the same corruption every time, by the plain likelihood: that of training is no measure of progress."""
    generator = torch.Generator().manual_seed(schedule.seed)
    network.eval()
    losses = []
    for pixels, foreground in zip(*(torch.split(part, schedule.batch) for part in held_out), strict=True):
        clean = pixels.float()
        loss = _loss(network, clean, foreground[:, None], corrupt(clean, generator, schedule.corruptions), schedule.penalty, beta=0.0)
        losses.append(float(loss) * len(pixels))
    return sum(losses) / len(held_out.pixels)


def _rate_factor(done: float) -> float:
    """Linear warm-up, then a half cosine down to 2 %; ``done`` in [0, 1]."""
    if done < _WARM_UP:
        return 0.1 + 0.9 * done / _WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def _save(path: Path, key: str, network: Network, optimiser: torch.optim.Optimizer, state: _State) -> None:
    """Write the checkpoint beside its name first, so that an interruption leaves the former one."""
    content = {
        "key": key,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
        "losses": state.losses,
        "best": state.best,
        "best_epoch": state.best_epoch,
    }
    part = path.with_name(path.name + ".part")
    torch.save(content, part)
    os.replace(part, path)


def _resume(path: Path | None, key: str, network: Network, optimiser: torch.optim.Optimizer) -> _State | None:
    """Load a checkpoint that belongs to this run; None where there is none."""
    if path is None or not path.is_file():
        return None
    content: dict[str, Any] = torch.load(path, weights_only=True)
    if content.get("key") != key:
        return None
    network.load_state_dict(content["network"])
    optimiser.load_state_dict(content["optimiser"])
    return _State(list(content["losses"]), content["best"], int(content["best_epoch"]))
