"""What stands between encoder and decoder on each path of the U-Net: how much of the image may pass, and at what price.

Without a gate a U-Net copies its input, lesion included. Each kind limits that in one classical way:

==========  ===============================================================================================================
none        the skip is closed: a plain autoencoder (Hinton & Salakhutdinov 2006) is closed skips and an open bottom
open        everything passes; the corruption of the input alone forbids copying (denoising autoencoder, Vincent et al. 2008,
            Kascenas et al. 2022)
sparse      an L1 price on the activations (sparse autoencoder with the L1 penalty of Olshausen & Field 1996)
sparse_kl   units in (0, 1) whose mean activation is held at ρ by a Kullback-Leibler divergence (sparse autoencoder, Ng 2011)
gauss       a Gaussian latent with the Kullback-Leibler divergence to N(0, 1) (variational autoencoder, Kingma & Welling 2014)
bounded     a sigmoid and Laplace noise of fixed scale: a channel of bounded capacity
==========  ===============================================================================================================

A gate takes float (B, C, H, W) of one level and returns what passes, in the same shape, and its price: a scalar of at least zero, a
mean over all activations (nats or the activations' own unit, see each kind), so that its weight in the loss depends neither on the
batch nor on the image size. What a price weighs is the recipe's affair (`objective`). Noise is drawn in training only, from torch's
global generator: a gate in evaluation mode is deterministic.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

_LEAST = 1e-6  # a mean activation nearer to 0 or 1 has no usable logarithm


class Gate(nn.Module):
    """One path from encoder to decoder, here without any limit: the gate `open`.

    ::

        x (B, C, H, W) ─────────────► x        price 0

    ``priced`` says whether the kind has a price that a recipe can weigh.
    """

    priced: ClassVar[bool] = False

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Let everything pass, without a price."""
        return x, x.new_zeros((), dtype=torch.float32)


class ClosedGate(Gate):
    """Nothing passes: on all skips and with an `open` bottom the network is a plain autoencoder.

    ::

        x (B, C, H, W) ────┤ 0 ├────► zeros    price 0
    """

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros."""
        return torch.zeros_like(x), x.new_zeros((), dtype=torch.float32)


class SparseGate(Gate):
    """Everything passes at a price: the mean absolute activation, in the activations' own unit (Olshausen & Field 1996).

    ::

        x (B, C, H, W) ──┬──────────► x
                         └─► |x| ─► mean ─────► price
    """

    priced = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input and its L1 norm per element."""
        return x, x.float().abs().mean()


class SparseKLGate(Gate):
    """Units that are active in a share ρ of places only (Ng, "Sparse autoencoder", CS294A lecture notes, 2011).

    ::

        x (B, C, H, W) ─ 1×1 convolution ─ sigmoid ──┬──────────────────────► a in (0, 1)
                                                     └─ mean over B, H, W ─► ρ̂ (C) ─ KL(ρ ‖ ρ̂) ─ mean over C ─► price, nats a unit

    A unit is a channel; ρ̂ is its mean activation over the batch and all positions, since convolutions share their units over the
    image. The convolution is needed: what a level hands over is hardly negative, and its sigmoid could never come near ρ.
    """

    priced = True
    TARGET = 0.05

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.units = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the units' activations and their divergence from the target, in nats a unit."""
        active = torch.sigmoid(self.units(x))
        return active, kl_to_rho(active.float().mean((0, 2, 3)), self.TARGET).mean()


class GaussGate(Gate):
    """A Gaussian latent at each position: sampled in training, its mean in evaluation (Kingma & Welling 2014).

    ::

        x (B, C, H, W) ─ 1×1 convolution ─┬─► μ ────────────────(+)────────────► z = μ + σ ε
                                          └─► log σ² ─► σ · ε ───┘ training only
                                     μ, log σ² ─► KL(N(μ, σ²) ‖ N(0, 1)) ─ mean ─► price, nats a latent

    Price · C · H · W is the divergence of an image in nats, as the evidence lower bound needs it (`losses.negative_elbo`).
    """

    priced = True

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.parameters_of = nn.Conv2d(channels, 2 * channels, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent and its divergence from N(0, 1), in nats an element."""
        mean, log_variance = self.parameters_of(x).float().chunk(2, dim=1)
        log_variance = log_variance.clamp(-8, 8)
        price = kl_to_standard_normal(mean, log_variance).mean()
        if self.training:
            mean = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return mean, price


class BoundedGate(Gate):
    """Activations squeezed into (0, 1) with Laplace noise of scale 0.1 in training: about two bits a channel may pass.

    ::

        x (B, C, H, W) ─ sigmoid ─(+)─ 2 a - 1 ─► (B, C, H, W), in (-1, 1) without noise        price 0
                                   │
                     Laplace(0, 0.1), training only

    A channel whose input is bounded and whose noise is fixed carries a bounded number of bits (Shannon 1949).
    """

    SCALE = 0.1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounded activations, centred on zero; no price is needed."""
        bounded = torch.sigmoid(x.float())  # the noise needs more digits than bfloat16 has
        if self.training:
            uniform = torch.rand_like(bounded) - 0.5
            bounded = bounded - self.SCALE * uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.4999))
        return 2 * bounded - 1, x.new_zeros((), dtype=torch.float32)


def kl_to_rho(mean: Tensor, rho: float) -> Tensor:
    """Return KL(Bernoulli(ρ) ‖ Bernoulli(``mean``)) of each mean activation in [0, 1], in nats; 0 where it is ρ (Ng 2011)."""
    inside = mean.clamp(_LEAST, 1 - _LEAST)
    return rho * (rho / inside).log() + (1 - rho) * ((1 - rho) / (1 - inside)).log()


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(``mean``, exp ``log_variance``) ‖ N(0, 1)) of each element, in nats (Kingma & Welling 2014, appendix B)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)


GATES: dict[str, type[Gate]] = {
    "none": ClosedGate,
    "open": Gate,
    "sparse": SparseGate,
    "sparse_kl": SparseKLGate,
    "gauss": GaussGate,
    "bounded": BoundedGate,
}
"""Every kind of gate that a bundle's ``model.yaml`` may name."""

PRICED = tuple(name for name, gate in GATES.items() if gate.priced)
"""The kinds that have a price."""
