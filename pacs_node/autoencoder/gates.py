"""What stands between encoder and decoder on each path of the U-Net: how much of the image may pass.

Without a gate a U-Net copies its input, lesion included. Each kind limits that in one classical way:

==========  ===============================================================================================================
none        the skip is closed: a plain autoencoder
open        everything passes; the corruption of the input alone forbids copying (denoising autoencoder, Vincent et al. 2008,
            Kascenas et al. 2022)
sparse      an L1 penalty on the activations (sparse autoencoder, Ng 2011)
gauss       a Gaussian latent with the Kullback-Leibler divergence to N(0, 1) (variational autoencoder, Kingma & Welling 2014)
bounded     a sigmoid and Laplace noise of fixed scale: a channel of bounded capacity
==========  ===============================================================================================================
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """One path from encoder to decoder. ``forward`` maps (batch, channels, height, width) to the same shape and a scalar penalty.

    The penalty is a mean over all activations, so that its weight does not depend on batch or image size. Noise is drawn in
    training only: a gate in evaluation mode is deterministic.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Let everything pass, without penalty."""
        return x, x.new_zeros(())


class ClosedGate(Gate):
    """Nothing passes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return zeros."""
        return torch.zeros_like(x), x.new_zeros(())


class SparseGate(Gate):
    """Everything passes at a price: the mean absolute activation."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the input and its L1 norm per element."""
        return x, x.abs().mean()


class GaussGate(Gate):
    """A Gaussian latent per position: sampled in training, its mean in evaluation."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.parameters_of = nn.Conv2d(channels, 2 * channels, kernel_size=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latent and its divergence from N(0, 1) per element, in nats."""
        mean, log_variance = self.parameters_of(x).chunk(2, dim=1)
        log_variance = log_variance.clamp(-8, 8)
        penalty = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        if self.training:
            mean = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return mean, penalty


class BoundedGate(Gate):
    """Activations squeezed into (0, 1) with Laplace noise of scale 0.1 in training: about two bits a channel may pass."""

    SCALE = 0.1

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bounded activations, centred on zero; no penalty is needed."""
        bounded = torch.sigmoid(x)
        if self.training:
            uniform = torch.rand_like(bounded) - 0.5
            bounded = bounded - self.SCALE * uniform.sign() * torch.log1p(-2 * uniform.abs().clamp(max=0.4999))
        return 2 * bounded - 1, x.new_zeros(())


GATES: dict[str, type[Gate]] = {"none": ClosedGate, "open": Gate, "sparse": SparseGate, "gauss": GaussGate, "bounded": BoundedGate}
"""Every kind of gate that a bundle's ``model.yaml`` may name."""
