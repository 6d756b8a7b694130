"""What an interrupted training run leaves behind, so that the same command goes on where it stopped."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor


class Resumable(Protocol):
    """A part of a run that can be written down and taken up again: network, optimiser, adversary."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must be kept."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take up what was kept."""


@dataclass
class Progress:
    """How far a run is: the held-out loss of each finished epoch, and the best weights so far with their epoch (0-based, -1: none)."""

    losses: list[float] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = -1

    def better(self) -> bool:
        """Whether the last epoch is the best so far."""
        return self.best_epoch < 0 or self.losses[-1] < self.losses[self.best_epoch]


def save(path: Path, key: str, parts: Mapping[str, Resumable], progress: Progress) -> None:
    """Write the checkpoint beside its name first, so that an interruption leaves the former one."""
    content = {"key": key, "losses": progress.losses, "best": progress.best, "best_epoch": progress.best_epoch}
    part = path.with_name(path.name + ".part")
    torch.save(content | {name: one.state_dict() for name, one in parts.items()}, part)
    os.replace(part, path)


def resume(path: Path | None, key: str, parts: Mapping[str, Resumable]) -> Progress:
    """Bring ``parts`` to where a checkpoint of the run ``key`` stands; a fresh `Progress` where there is none, or it is damaged or of another run."""
    if path is None or not path.is_file():
        return Progress()
    content = _content(path)
    if content.get("key") != key:
        return Progress()
    for name, one in parts.items():
        one.load_state_dict(content[name])
    return Progress(list(content["losses"]), content["best"], int(content["best_epoch"]))


def _content(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError):  # what torch says of files that are damaged
        return {}
    return content if isinstance(content, dict) else {}
