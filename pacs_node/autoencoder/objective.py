"""What training minimises: the reconstruction's loss, the prices of the gates and the penalties that a recipe asks for.

::

    spoilt input ─► network ─┬─► mean, log-variance ─► training_loss, or negative_elbo with `elbo` ───┐
                             ├─► prices of the gates, weighed by kind ────────────────────────────────┼─► loss (scalar)
                             └─► codes ─► jacobian_norm, where `contractive` has a weight ────────────┘

The classical autoencoders are choices of this and of the gates:

============  ==========================  =====================================  =================
autoencoder   gates (skips, bottom)       objective                              corruptions
============  ==========================  =====================================  =================
plain         none … none, open           defaults                               none
sparse        … sparse or sparse_kl       penalties: sparse or sparse_kl         none
denoising     open                        defaults                               any
contractive   none … none, open           penalties: contractive                 none
variational   none … none, gauss          elbo                                   none
bounded       bounded                     defaults                               any
adversarial   any                         `Schedule.adversarial`                 any
============  ==========================  =====================================  =================
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pacs_node.autoencoder.gates import PRICED
from pacs_node.autoencoder.losses import negative_elbo, training_loss
from pacs_node.autoencoder.network import Network, Output
from pacs_node.autoencoder.penalties import CONTRACTIVE, jacobian_norm

VARIATIONAL = "gauss"
PENALTIES = (*PRICED, CONTRACTIVE)
"""Everything that a recipe's ``penalties`` may weigh: the gates that have a price, and the contractive penalty."""


@dataclass(frozen=True, slots=True)
class Elbo:
    """Train on the evidence lower bound of the `gauss` gates (Kingma & Welling 2014).

    ``beta`` weighs the divergence (Higgins et al. 2017; 1 is the bound itself). Against a latent that collapses to its prior:
    ``free_bits``, the nats a latent element of each level that cost nothing (Kingma et al. 2016), and ``warm_up``, the share of all
    steps over which the weight rises from zero (Sønderby et al. 2016).
    """

    beta: float = 1.0
    free_bits: float = 0.0
    warm_up: float = 0.0

    def weight(self, done: float) -> float:
        """Return the divergence's weight when the share ``done`` of all steps is behind."""
        return self.beta * min(1.0, done / self.warm_up) if self.warm_up else self.beta


@dataclass(frozen=True, slots=True)
class Objective:
    """The loss of a recipe. ``penalty`` is the weight of every price that ``penalties`` (pairs of name and weight) does not name.

    The contractive penalty costs a second backward pass and has no weight unless it is named. With ``elbo`` the likelihood is plain and
    there is no structural term: the loss is the bound. Raises `ValueError` for a penalty that is not in `PENALTIES`.
    """

    penalty: float = 0.01
    penalties: tuple[tuple[str, float], ...] = ()
    elbo: Elbo | None = None

    def __post_init__(self) -> None:
        unknown = [name for name, _ in self.penalties if name not in PENALTIES]
        if unknown:
            raise ValueError(f"unknown penalty {unknown[0]!r}: allowed are {', '.join(PENALTIES)}")
        if self.elbo is not None and VARIATIONAL in dict(self.penalties):
            raise ValueError(f"elbo weighs the divergence of {VARIATIONAL} gates by its beta: give penalties.{VARIATIONAL} or elbo, not both")

    def weight(self, name: str) -> float:
        """Return the weight of one penalty."""
        return dict(self.penalties).get(name, 0.0 if name == CONTRACTIVE else self.penalty)


def training_objective(network: Network, objective: Objective, target: Tensor, weight: Tensor, spoilt: Tensor, done: float) -> tuple[Tensor, Output]:
    """Return the loss of a training step and the network's output.

    ``target`` and ``weight`` (B, 1, P, P), ``spoilt`` (B, inputs, P, P); ``done`` is the share of all steps behind.
    """
    contractive = objective.weight(CONTRACTIVE)
    if contractive:
        spoilt = spoilt.detach().requires_grad_()
    output: Output = network(spoilt)
    elbo = objective.elbo
    loss = _reconstruction(network, objective, output, target, weight, (elbo.weight(done), elbo.free_bits) if elbo else None, beta=0.5)
    if contractive:
        loss = loss + contractive * jacobian_norm(output.codes, spoilt)
    return loss, output


def held_out_objective(network: Network, objective: Objective, target: Tensor, weight: Tensor, spoilt: Tensor) -> Tensor:
    """Return the loss by which epochs are compared, for a network in evaluation mode.

    The plain likelihood, since that of training (β-NLL) does not fall as the fit gets better; the whole divergence, whatever warm-up and
    free bits spare in training, at the latent's mean; no contractive and no adversarial part.
    """
    return _reconstruction(network, objective, network(spoilt), target, weight, (objective.elbo.beta, 0.0) if objective.elbo else None, beta=0.0)


def _reconstruction(
    network: Network, objective: Objective, output: Output, target: Tensor, weight: Tensor, bound: tuple[float, float] | None, *, beta: float
) -> Tensor:
    """Loss of the reconstruction and the prices of the gates; ``bound``: the divergence's weight and free bits where the ELBO is asked for."""
    kinds = network.architecture.gates
    priced = [(kind, price) for kind, price in zip(kinds, output.prices, strict=True) if kind in PRICED and not (bound and kind == VARIATIONAL)]
    prices = sum((objective.weight(kind) * price for kind, price in priced), start=target.new_zeros(()))
    if bound is None:
        return training_loss(target, output.mean, output.log_variance, weight, beta) + prices
    return negative_elbo(target, output.mean, output.log_variance, weight, divergence(output, kinds, bound[1]), bound[0]) + prices


def divergence(output: Output, kinds: tuple[str, ...], free_bits: float = 0.0) -> Tensor:
    """Return the latents' divergence from their prior, in nats an image: the sum over the `gauss` levels, each at least ``free_bits`` an element."""
    levels = [price.clamp(min=free_bits) * code[0].numel() for kind, price, code in zip(kinds, output.prices, output.codes, strict=True) if kind == VARIATIONAL]
    return torch.stack(levels).sum()
