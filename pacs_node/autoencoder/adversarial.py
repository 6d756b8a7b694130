"""Adversarial training: a small patch discriminator tells reconstructions from normal slices, and the network learns to pass for one.

After Goodfellow et al. 2014; patches instead of whole images after Isola et al. 2017; spectral normalisation, which keeps a discriminator of
few images from running away, after Miyato et al. 2018. It sharpens reconstructions, which plain likelihood leaves smooth; whether that helps
to find lesions is for the ablation table to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

_SLOPE = 0.2
_MOMENTS = (0.5, 0.999)  # Adam's, as in Isola et al. 2017


class Game(NamedTuple):
    """What both sides minimise: ``discriminator`` of (real, fake) verdicts and ``generator`` of fake verdicts; scalars."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


def hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return mean max(0, 1 - real) + mean max(0, 1 + fake) (Lim & Ye 2017): verdicts beyond ±1 are sure enough."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Tensor:
    """Return the negative mean verdict."""
    return -fake.mean()


def least_squares_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Return half the squared distances of real verdicts from 1 and of fake ones from 0 (Mao et al. 2017)."""
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def least_squares_generator(fake: Tensor) -> Tensor:
    """Return half the squared distance of fake verdicts from 1."""
    return 0.5 * (fake - 1).square().mean()


GAMES: dict[str, Game] = {
    "hinge": Game(hinge_discriminator, hinge_generator),
    "least_squares": Game(least_squares_discriminator, least_squares_generator),
}
"""Every loss that a recipe's ``adversarial.loss`` may name."""


@dataclass(frozen=True, slots=True)
class Adversarial:
    """How the discriminator takes part: ``weight`` of its verdict in the network's loss, its first layer's ``channels``, its Adam ``rate``.

    Raises `ValueError` for a ``loss`` that is not in `GAMES`.
    """

    weight: float = 0.01
    loss: str = "hinge"
    channels: int = 32
    rate: float = 2e-4

    def __post_init__(self) -> None:
        if self.loss not in GAMES:
            raise ValueError(f"unknown adversarial loss {self.loss!r}: allowed are {', '.join(GAMES)}")


class Discriminator(nn.Module):
    """A verdict for each overlapping patch of 46 × 46 pixels: positive for real, negative for reconstructed (Isola et al. 2017).

    ::

        (B, 1, P, P) ─ 4×4/2 ─► (B, C, P/2) ─ 4×4/2 ─► (B, 2C, P/4) ─ 4×4/2 ─► (B, 4C, P/8) ─ 4×4 ─► verdicts (B, 1, P/8 - 1, P/8 - 1)

    Leaky rectifiers between the layers; each layer's largest singular value is held at 1 (Miyato et al. 2018). Input in [0, 1].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (1, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for low, high in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(low, high, 4, stride=2, padding=1)), nn.LeakyReLU(_SLOPE)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 4, padding=1)))

    def forward(self, x: Tensor) -> Tensor:
        """Judge every patch of each slice."""
        verdicts: Tensor = self.layers(x)
        return verdicts


class Adversary:
    """The discriminator of one training run with its own optimiser; its first weights come from torch's global generator.

    ::

        clean slice ──────────────────► discriminator ─► real ─┐
        network ─► reconstruction ─┬──► discriminator ─► fake ─┴─► learn(): the discriminator's step
                                   └──► discriminator ─► fake ───► price(): part of the network's loss
    """

    def __init__(self, how: Adversarial, device: torch.device) -> None:
        self.weight, self.game = how.weight, GAMES[how.loss]
        self.discriminator = Discriminator(how.channels).to(device)
        self.optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=how.rate, betas=_MOMENTS)

    def price(self, reconstruction: Tensor) -> Tensor:
        """Return the weighted loss of ``reconstruction`` (B, 1, P, P) for not passing as real; the discriminator itself learns nothing."""
        self.discriminator.requires_grad_(False)
        price = self.weight * self.game.generator(self.discriminator(reconstruction).float())
        self.discriminator.requires_grad_(True)
        return price

    def learn(self, clean: Tensor, reconstruction: Tensor) -> None:
        """Take one step at telling ``clean`` slices from reconstructions, both (B, 1, P, P)."""
        verdicts = self.discriminator(torch.cat([clean, reconstruction.detach()])).float()
        loss = self.game.discriminator(*verdicts.chunk(2))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"discriminator": self.discriminator.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a checkpoint stands."""
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimiser.load_state_dict(state["optimiser"])
