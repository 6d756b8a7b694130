"""Gates: shapes, gradients, and the value of every price against a reference that is written out."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from pacs_node.autoencoder.gates import GATES, PRICED, BoundedGate, SparseKLGate, kl_to_rho, kl_to_standard_normal
from pacs_node.autoencoder.network import Architecture, Network


def value_of(scalar: torch.Tensor) -> float:
    return float(scalar.detach())


def activations(seed: int = 1) -> torch.Tensor:
    return torch.randn(3, 8, 4, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", sorted(GATES))
def test_a_gate_keeps_the_shape_and_asks_a_scalar(kind: str) -> None:
    passed, price = GATES[kind](8)(activations())
    assert passed.shape == (3, 8, 4, 5)
    assert price.shape == ()
    assert bool(price > 0) is (kind in PRICED)


@pytest.mark.parametrize("kind", sorted(set(GATES) - {"none"}))
def test_gradients_reach_the_input_and_every_parameter_of_a_gate(kind: str) -> None:
    torch.manual_seed(0)
    gate, x = GATES[kind](8), activations().requires_grad_()
    passed, price = gate(x)
    (passed.square().mean() + price).backward()
    for gradient in (x.grad, *(parameter.grad for parameter in gate.parameters())):
        assert gradient is not None
        assert torch.isfinite(gradient).all()
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("kind", PRICED)
def test_the_price_alone_has_gradients_for_what_it_is_a_price_of(kind: str) -> None:
    torch.manual_seed(0)
    gate, x = GATES[kind](8), activations().requires_grad_()
    gate(x)[1].backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


def test_the_l1_price_is_the_mean_absolute_activation() -> None:
    x = activations()
    assert value_of(GATES["sparse"](8)(x)[1]) == pytest.approx(np.abs(x.numpy()).mean(), rel=1e-5)


def test_the_kl_price_compares_each_units_mean_activation_with_rho() -> None:
    torch.manual_seed(0)
    gate, x = SparseKLGate(8), activations()
    active, price = gate(x)
    weight, bias = gate.units.weight.detach().numpy()[:, :, 0, 0], gate.units.bias.detach().numpy()
    total, rho = 0.0, gate.TARGET
    for unit in range(8):
        seen = [
            1 / (1 + math.exp(-float(weight[unit] @ x[b, :, row, column].numpy() + bias[unit]))) for b in range(3) for row in range(4) for column in range(5)
        ]
        mean = sum(seen) / len(seen)
        total += rho * math.log(rho / mean) + (1 - rho) * math.log((1 - rho) / (1 - mean))
    assert value_of(price) == pytest.approx(total / 8, rel=1e-4)
    assert 0 < active.min() < active.max() < 1


def test_the_divergence_from_rho_is_that_of_two_coins() -> None:
    means = torch.linspace(0.01, 0.99, 25)
    assert torch.allclose(kl_to_rho(means, 0.05), kl_divergence(Bernoulli(torch.tensor(0.05)), Bernoulli(means)), atol=1e-6)
    assert float(kl_to_rho(torch.tensor(0.05), 0.05)) == pytest.approx(0, abs=1e-7)
    assert torch.isfinite(kl_to_rho(torch.tensor([0.0, 1.0]), 0.05)).all()


def test_the_gaussian_price_is_the_divergence_that_torch_knows() -> None:
    torch.manual_seed(0)
    gate, x = GATES["gauss"](8), activations()
    mean, log_variance = gate.parameters_of(x).chunk(2, dim=1)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0))
    assert torch.allclose(kl_to_standard_normal(mean, log_variance), expected, atol=1e-5)
    assert value_of(gate(x)[1]) == pytest.approx(value_of(expected.mean()), rel=1e-5)


def test_a_gaussian_gate_samples_with_the_spread_it_names_and_is_still_in_evaluation() -> None:
    torch.manual_seed(0)
    gate, x = GATES["gauss"](8), activations()[:1]
    mean, log_variance = gate.parameters_of(x).chunk(2, dim=1)
    draws = torch.cat([gate(x)[0] for _ in range(4000)])
    assert torch.allclose(draws.mean(0), mean[0], atol=0.12)
    assert torch.allclose(draws.std(0), (0.5 * log_variance[0]).exp(), rtol=0.12)
    assert torch.equal(gate.eval()(x)[0], mean)


def test_a_bounded_gate_adds_laplace_noise_of_its_scale_in_training_only() -> None:
    torch.manual_seed(0)
    gate, x = BoundedGate(8), torch.zeros(64, 8, 16, 16)
    noise = gate(x)[0] / 2  # the gate's range is doubled after the noise
    assert float(noise.abs().mean()) == pytest.approx(gate.SCALE, rel=0.02)  # E|Laplace(0, b)| = b
    assert float(noise.std()) == pytest.approx(math.sqrt(2) * gate.SCALE, rel=0.02)
    assert (gate.eval()(x)[0] == 0).all()


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("kind", sorted(set(GATES) - {"none"}))
def test_gradients_are_finite_and_reach_every_parameter_of_the_network(kind: str, inputs: int) -> None:
    torch.manual_seed(0)
    network = Network(Architecture(32, inputs, (8, 16), (kind, kind)))
    output = network(torch.rand(2, inputs, 32, 32))
    (output.mean.square().mean() + output.log_variance.square().mean() + output.penalty).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name
