"""What training minimises, each value against a plain reference: loops over pixels, or the whole Jacobian of a tiny encoder."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.utils.flop_counter import FlopCounterMode

from pacs_node.autoencoder.losses import beta_nll, negative_elbo, training_loss, weight_of
from pacs_node.autoencoder.network import SIZES, Architecture, Network, Output
from pacs_node.autoencoder.objective import Elbo, Objective, divergence, held_out_objective, training_objective
from pacs_node.autoencoder.penalties import jacobian_norm


def value_of(scalar: torch.Tensor) -> float:
    return float(scalar.detach())


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def guess(count: int = 2, edge: int = 6) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A target, what a network said of it, and weights of 1 and 0.1."""
    generator = seeded()
    target, mean = (torch.rand(count, 1, edge, edge, generator=generator) for _ in range(2))
    log_variance = torch.randn(count, 1, edge, edge, generator=generator)
    return target, mean, log_variance, weight_of(torch.rand(count, 1, edge, edge, generator=generator) > 0.3)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_weighted_likelihood_is_that_of_a_loop_over_pixels(beta: float) -> None:
    target, mean, log_variance, weight = guess()
    total = weights = 0.0
    for t, m, v, w in zip(*(part.flatten().tolist() for part in (target, mean, log_variance, weight)), strict=True):
        total += w * math.exp(v) ** beta * 0.5 * ((t - m) ** 2 / math.exp(v) + v)
        weights += w
    assert float(beta_nll(target, mean, log_variance, weight, beta)) == pytest.approx(total / weights, rel=1e-5)


def test_the_negative_bound_is_reconstruction_and_divergence_in_nats_a_pixel() -> None:
    target, mean, log_variance, _ = guess()
    nats_an_image = torch.tensor(7.5)
    likelihood = Normal(mean, (0.5 * log_variance).exp()).log_prob(target).sum((1, 2, 3))
    expected = -(likelihood - 2.0 * nats_an_image).mean() / 36
    bound = negative_elbo(target, mean, log_variance, torch.ones_like(target), nats_an_image, beta=2.0)
    assert value_of(bound) == pytest.approx(value_of(expected), rel=1e-5)


def test_the_bound_holds_for_a_model_whose_evidence_is_known() -> None:
    """Latent z ~ N(0, 1), slice of one pixel x = z + noise: log p(x) = log N(x; 0, 1 + s²), and the true posterior reaches it."""
    noise, x = 0.5, torch.tensor(0.8)
    evidence = float(Normal(0.0, math.sqrt(1 + noise)).log_prob(x))
    spread, centre = noise / (1 + noise), float(x) / (1 + noise)  # variance and mean of the posterior
    for shift, tight in ((0.0, True), (0.4, False)):
        z = centre + shift + math.sqrt(spread) * torch.randn(200_000, generator=seeded())
        nats = torch.tensor(0.5 * ((centre + shift) ** 2 + spread - 1 - math.log(spread)))
        shape = (len(z), 1, 1, 1)
        bound = -float(negative_elbo(x.expand(shape), z.view(shape), torch.full(shape, math.log(noise)), torch.ones(shape), nats))
        assert (abs(bound - evidence) < 0.005) is tight
        assert bound < evidence + 0.005


def output_of(prices: list[float], elements: list[int]) -> Output:
    nothing = torch.zeros(2, 1, 4, 4)
    return Output(nothing, nothing, torch.zeros(2, 4), tuple(torch.zeros(2, count, 1, 1) for count in elements), tuple(map(torch.tensor, prices)))


def test_the_divergence_of_an_image_adds_up_gaussian_levels_only() -> None:
    assert float(divergence(output_of([0.5, 3.0, 0.25], [8, 100, 4]), ("gauss", "sparse", "gauss"))) == pytest.approx(0.5 * 8 + 0.25 * 4)


def test_free_bits_cost_nothing_and_have_no_gradient() -> None:
    price = torch.tensor(0.02, requires_grad=True)
    output = output_of([0.0], [10])._replace(prices=(price,))
    spared = divergence(output, ("gauss",), free_bits=0.1)
    assert value_of(spared) == pytest.approx(0.1 * 10)
    spared.backward()
    assert price.grad == 0
    assert value_of(divergence(output, ("gauss",), free_bits=0.01)) == pytest.approx(0.02 * 10)


@pytest.mark.parametrize(("done", "weight"), [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.9, 2.0)])
def test_the_divergence_warms_up_over_a_share_of_the_steps(done: float, weight: float) -> None:
    assert Elbo(beta=2.0, warm_up=0.2).weight(done) == pytest.approx(weight)
    assert Elbo(beta=2.0).weight(done) == 2.0


class Encoder(nn.Module):
    """Two smooth levels over 16 numbers: few enough for the whole Jacobian."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 6), nn.Linear(6, 3)

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = torch.tanh(self.first(x))
        return first, torch.tanh(self.second(first))


def test_the_contractive_penalty_is_on_average_the_squared_norm_of_the_whole_jacobian() -> None:
    torch.manual_seed(2)
    encoder, x = Encoder(), torch.randn(4, 16).requires_grad_()
    exact = sum(torch.autograd.functional.jacobian(lambda row: torch.cat(encoder.codes(row)), one.detach()).square().sum() for one in x)
    draws = torch.stack([jacobian_norm(encoder.codes(x), x).detach() for _ in range(4000)])
    error = float(draws.std()) / math.sqrt(len(draws))
    assert abs(float(draws.mean()) - value_of(exact) / (4 * 9)) < 4 * error
    assert error < 0.01 * value_of(exact) / (4 * 9)  # the mean is known to a percent, so the test can fail


def test_the_contractive_penalty_of_one_sigmoid_layer_is_rifais_formula() -> None:
    torch.manual_seed(2)
    layer, x = nn.Linear(16, 1), torch.randn(1, 16).requires_grad_()
    h = torch.sigmoid(layer(x))
    expected = (h * (1 - h)).square() * layer.weight.square().sum()  # Σ (h (1 - h))² Σ W², exact for one unit whatever its sign
    assert value_of(jacobian_norm((h,), x)) == pytest.approx(value_of(expected), rel=1e-5)


def test_the_contractive_penalty_does_not_grow_with_the_image_and_can_be_minimised() -> None:
    torch.manual_seed(2)
    level = nn.Conv2d(1, 8, 3, padding=1)
    small, large = (torch.rand(16, 1, edge, edge).requires_grad_() for edge in (16, 64))
    values = [jacobian_norm((torch.tanh(level(x)),), x) for x in (small, large)]
    assert value_of(values[1]) == pytest.approx(value_of(values[0]), rel=0.15)
    values[1].backward()
    assert level.weight.grad is not None
    assert level.weight.grad.abs().max() > 0


def test_a_code_that_ignores_the_input_costs_nothing() -> None:
    assert jacobian_norm((torch.zeros(2, 8, 4, 4),), torch.rand(2, 1, 16, 16).requires_grad_()) == 0


def case(gates: tuple[str, ...]) -> tuple[Network, Tensor, Tensor, Tensor]:
    torch.manual_seed(4)
    return Network(Architecture(32, 1, (8, 16), gates)), torch.rand(2, 1, 32, 32), weight_of(torch.rand(2, 1, 32, 32) > 0.5), torch.rand(2, 1, 32, 32)


def test_the_default_objective_is_the_reconstruction_and_a_hundredth_of_the_prices() -> None:
    network, target, weight, spoilt = case(("sparse", "gauss"))
    torch.manual_seed(0)
    loss, output = training_objective(network, Objective(), target, weight, spoilt, 0.5)
    expected = training_loss(target, output.mean, output.log_variance, weight) + 0.01 * (output.prices[0] + output.prices[1])
    assert value_of(loss) == pytest.approx(value_of(expected), rel=1e-6)


def test_each_named_penalty_has_a_weight_of_its_own() -> None:
    network, target, weight, spoilt = case(("sparse", "gauss"))
    torch.manual_seed(0)
    loss, output = training_objective(network, Objective(0.5, (("sparse", 3.0),)), target, weight, spoilt, 0.5)
    expected = training_loss(target, output.mean, output.log_variance, weight) + 3.0 * output.prices[0] + 0.5 * output.prices[1]
    assert value_of(loss) == pytest.approx(value_of(expected), rel=1e-6)


def test_the_variational_objective_is_the_bound_and_other_prices_beside_it() -> None:
    network, target, weight, spoilt = case(("sparse", "gauss"))
    objective = Objective(0.5, elbo=Elbo(beta=2.0, warm_up=1.0))
    torch.manual_seed(0)
    loss, output = training_objective(network, objective, target, weight, spoilt, 0.25)
    nats = output.prices[1] * 16 * 4 * 4
    expected = negative_elbo(target, output.mean, output.log_variance, weight, nats, beta=0.5) + 0.5 * output.prices[0]
    assert value_of(loss) == pytest.approx(value_of(expected), rel=1e-6)


def test_epochs_are_compared_by_the_whole_bound_whatever_training_spares() -> None:
    network, target, weight, spoilt = case(("none", "gauss"))
    network.eval()
    losses = [
        value_of(held_out_objective(network, Objective(elbo=elbo), target, weight, spoilt))
        for elbo in (Elbo(), Elbo(warm_up=1.0), Elbo(free_bits=9.0), Elbo(beta=4.0))
    ]
    assert losses[0] == losses[1] == losses[2] < losses[3]


@pytest.mark.parametrize("gates", [("none", "open"), ("open", "open"), ("sparse", "gauss")])
def test_the_contractive_part_is_added_where_it_has_a_weight_and_only_in_training(gates: tuple[str, ...]) -> None:
    network, target, weight, spoilt = case(gates)
    values = []
    for penalties in ((), (("contractive", 5.0),)):
        torch.manual_seed(0)
        loss, output = training_objective(network, Objective(0.01, penalties), target, weight, spoilt, 0.5)
        values.append(value_of(loss))
        kept = held_out_objective(network.eval(), Objective(0.01, penalties), target, weight, spoilt)
        network.train()
        assert torch.isfinite(kept)
    assert values[1] > values[0] + 1e-6
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)
    assert all(encoder.grad is not None and encoder.grad.abs().max() > 0 for encoder in network.encoder.parameters())
    assert not spoilt.requires_grad
    assert output.mean.shape == target.shape


@pytest.mark.parametrize(
    ("arguments", "word"), [({"penalties": (("magic", 1.0),)}, "unknown penalty 'magic'"), ({"penalties": (("gauss", 1.0),), "elbo": Elbo()}, "not both")]
)
def test_contradictory_objectives_are_refused_with_the_reason(arguments: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Objective(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("size", "gflop"), [("small", 0.43), ("large", 5.02)])
def test_the_sizes_cost_what_the_network_says(size: str, gflop: float) -> None:
    channels = SIZES[size]
    network = Network(Architecture(128, 1, channels, ("open",) * len(channels))).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 1, 128, 128))
    assert counter.get_total_flops() / 1e9 == pytest.approx(gflop, abs=0.005)
