"""The training loop: seeded, resumable, stopped early on held-out normal slices, on the CPU or a GPU by the same recipe.

Every epoch draws its random numbers from generators seeded by (seed, epoch), so a run that was interrupted and resumed from its
checkpoint ends with the same weights as one that was not. What is spoilt, and how, is drawn on the CPU whatever the device, so that both
see the same slices.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pacs_node.autoencoder.adversarial import Adversarial, Adversary
from pacs_node.autoencoder.change import change_loss, crops
from pacs_node.autoencoder.checkpoint import Progress, Resumable, resume, save
from pacs_node.autoencoder.corruption import DEFAULT_CORRUPTIONS, Augmentation, augment, corrupt
from pacs_node.autoencoder.losses import weight_of
from pacs_node.autoencoder.network import Detector, Network
from pacs_node.autoencoder.objective import Objective, held_out_objective, training_objective
from pacs_node.autoencoder.precision import arithmetic, mixed, repeatable

_GRADIENT_LIMIT = 1.0
_SETTLING = 1000  # slices
_WARM_UP = 0.1  # fraction of all steps in which the learning rate rises


class Diverged(ArithmeticError):
    """The loss is no number any more, and no epoch before gave weights to keep."""


class Slices(NamedTuple):
    """Training slices: ``pixels`` (N, inputs, P, P) float in [0, 1] and ``foreground`` (N, P, P) boolean."""

    pixels: Tensor
    foreground: Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, how fast and towards what to train.

    ``patience``: epochs without a better held-out loss before training stops. ``precision``: see `precision.PRECISIONS`.
    ``adversarial``: a discriminator takes part. ``crop``: the edge of the `change.crops` that a
    detector is trained on, None for whole slices; it has no other objective.
    """

    epochs: int = 20
    batch: int = 32
    rate: float = 2e-3
    patience: int = 6
    seed: int = 0
    objective: Objective = field(default_factory=Objective)
    corruptions: tuple[str, ...] = DEFAULT_CORRUPTIONS
    augmentation: Augmentation = field(default_factory=Augmentation)
    adversarial: Adversarial | None = None
    precision: str = "float32"
    crop: int | None = None


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


class _Run:
    """One training run: what it changes and where it computes."""

    def __init__(self, network: Network | Detector, schedule: Schedule, device: torch.device) -> None:
        self.network, self.schedule, self.device = network.to(device), schedule, device
        self.dtype = arithmetic(schedule.precision, device)
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.rate, weight_decay=1e-4)
        torch.manual_seed(schedule.seed)  # the discriminator's first weights
        self.adversary = Adversary(schedule.adversarial, device) if schedule.adversarial else None

    @property
    def parts(self) -> dict[str, Resumable]:
        """What a checkpoint holds."""
        parts: dict[str, Resumable] = {"network": self.network, "optimiser": self.optimiser}
        return parts | {"adversary": self.adversary} if self.adversary else parts


def fit(
    network: Network | Detector,
    train: Slices,
    held_out: Slices,
    schedule: Schedule,
    *,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[Step], None] = lambda step: None,
) -> History:
    """Train ``network``, or a detector, in place and leave it with its best weights, in evaluation mode, on ``device``.

    ``checkpoint`` is written after every epoch and resumed from where it belongs to the same data size, schedule and architecture;
    any other content is ignored. ``progress`` is called after every batch and may raise to stop. Raises `ValueError` without slices, and
    where the device cannot compute in the schedule's precision; `Diverged` where the first epoch ends without a finite loss. A later
    epoch that does so ends the run.
    """
    if not len(train.pixels) or not len(held_out.pixels):
        raise ValueError("training needs at least one training and one held-out slice")
    device = torch.device(device)
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        run = _Run(network, schedule, device)
        with repeatable(run.dtype, device):
            done = _epochs(run, train, held_out, checkpoint, progress)
        network.load_state_dict(done.best)
        if network.architecture.norm == "batch":
            _settle(run, train)
    network.eval()
    return History(tuple(done.losses), done.best_epoch)


def _epochs(run: _Run, train: Slices, held_out: Slices, checkpoint: Path | None, progress: Callable[[Step], None]) -> Progress:
    """Train from where the checkpoint stands until the schedule or the held-out slices say enough."""
    schedule = run.schedule
    counted = hashlib.sha256(train.foreground.contiguous().numpy().data).hexdigest()  # what is left out of the lessons belongs to them
    key = repr((run.network.architecture, schedule, tuple(train.pixels.shape), tuple(held_out.pixels.shape), counted))
    done = resume(checkpoint, key, run.parts)
    for epoch in range(len(done.losses), schedule.epochs):
        if epoch - done.best_epoch > schedule.patience and done.best_epoch >= 0:
            break
        _epoch(run, train, progress, done)
        loss = _held_out_loss(run, held_out)
        if not math.isfinite(loss):
            break
        done.losses.append(loss)
        if done.better():
            done.best_epoch, done.best = epoch, {name: value.to("cpu", copy=True) for name, value in run.network.state_dict().items()}
        if checkpoint is not None:
            save(checkpoint, key, run.parts, done)
    if done.best_epoch < 0:
        raise Diverged("the loss is no finite number after the first epoch: lower the recipe's rate, or the weights of its penalties")
    return done


def _generator(seed: int, epoch: int) -> torch.Generator:
    torch.manual_seed(seed * 100_003 + epoch)  # the gates' noise
    return torch.Generator().manual_seed(seed * 100_003 + epoch)


def _epoch(run: _Run, train: Slices, progress: Callable[[Step], None], so_far: Progress) -> None:
    """One pass over the training slices in random order: the epoch after those whose losses ``so_far`` holds."""
    schedule, epoch = run.schedule, len(so_far.losses)
    generator = _generator(schedule.seed, epoch)
    batches = torch.split(torch.randperm(len(train.pixels), generator=generator), schedule.batch)
    total = len(batches) * schedule.epochs
    run.network.train()
    for number, chosen in enumerate(batches):
        done = epoch * len(batches) + number
        for group in run.optimiser.param_groups:
            group["lr"] = schedule.rate * _rate_factor(done / total)
        both = torch.cat([train.pixels[chosen].float(), train.foreground[chosen, None].float()], dim=1).to(run.device)
        clean, foreground = _augmented(both, generator, schedule.augmentation)
        loss = _step(run, clean, foreground, generator, done / total)
        progress(Step(epoch, done + 1, total, loss, so_far.losses[-1] if so_far.losses else math.nan))


def _augmented(both: Tensor, generator: torch.Generator, how: Augmentation) -> tuple[Tensor, Tensor]:
    """Move slices and their foreground (the last channel) together."""
    moved = augment(both, generator, how)
    return moved[:, :-1], moved[:, -1:] > 0.5


def _middle(x: Tensor) -> Tensor:
    """Return the slice that is reconstructed: (B, inputs, P, P) to (B, 1, P, P)."""
    middle = x.shape[1] // 2
    return x[:, middle : middle + 1]


def _step(run: _Run, clean: Tensor, foreground: Tensor, generator: torch.Generator, done: float) -> float:
    """Take one step; the share ``done`` of all steps is behind."""
    with mixed(run.dtype, run.device):
        loss, made = _loss(run, clean, foreground, generator, done)
        if run.adversary and made is not None:
            loss = loss + run.adversary.price(made)
    run.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(run.network.parameters(), _GRADIENT_LIMIT)
    run.optimiser.step()
    if run.adversary and made is not None:
        with mixed(run.dtype, run.device):
            run.adversary.learn(_middle(clean), made)
    return float(loss.detach())


def _loss(run: _Run, clean: Tensor, foreground: Tensor, generator: torch.Generator, done: float) -> tuple[Tensor, Tensor | None]:
    """Loss of reconstructing the clean middle slices from the spoilt input, with what was made of them; or of finding changes, without."""
    if isinstance(run.network, Detector):
        return change_loss(run.network, clean, foreground[:, 0], generator, run.schedule.crop), None
    spoilt = corrupt(clean, generator, run.schedule.corruptions)
    loss, output = training_objective(run.network, run.schedule.objective, _middle(clean), weight_of(foreground), spoilt, done)
    return loss, output.mean


@torch.no_grad()
def _held_out_loss(run: _Run, held_out: Slices) -> float:
    """Loss on held-out slices with the same corruption every time."""
    schedule = run.schedule
    generator = torch.Generator().manual_seed(schedule.seed)
    run.network.eval()
    losses = []
    for pixels, foreground in zip(*(torch.split(part, schedule.batch) for part in held_out), strict=True):
        clean, inside = pixels.float().to(run.device), foreground.to(run.device)
        with mixed(run.dtype, run.device):
            if isinstance(run.network, Detector):
                loss = change_loss(run.network, clean, inside, generator)
            else:
                spoilt = corrupt(clean, generator, schedule.corruptions)
                loss = held_out_objective(run.network, schedule.objective, _middle(clean), weight_of(inside[:, None]), spoilt)
        losses.append(float(loss) * len(pixels))
    return sum(losses) / len(held_out.pixels)


@torch.no_grad()
def _settle(run: _Run, train: Slices) -> None:
    """Measure the normalisation's statistics anew on clean training slices, or crops: those of training are of spoilt ones (Wu & Johnson 2021)."""
    torch.manual_seed(run.schedule.seed)  # the gates' noise: the same after an interruption
    layers = [layer for layer in run.network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    run.network.train()
    generator, crop = torch.Generator().manual_seed(run.schedule.seed), run.schedule.crop
    chosen = torch.arange(0, len(train.pixels), max(1, len(train.pixels) // _SETTLING))
    for some in torch.split(chosen, run.schedule.batch):
        x = train.pixels[some].float()
        run.network((x if crop is None else crops(x, train.foreground[some], crop, generator)[0]).to(run.device))


def _rate_factor(done: float) -> float:
    """Linear warm-up, then a half cosine down to 2 %; ``done`` in [0, 1]."""
    if done < _WARM_UP:
        return 0.1 + 0.9 * done / _WARM_UP
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))
