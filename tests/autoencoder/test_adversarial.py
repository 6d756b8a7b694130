"""The discriminator: its losses against a loop, what it may change, and that it learns to tell."""

import pytest
import torch

from pacs_node.autoencoder.adversarial import GAMES, Adversarial, Adversary, Discriminator

REAL, FAKE = torch.tensor([[2.0, 0.3], [-1.0, 0.9]]), torch.tensor([[-3.0, -0.2], [0.4, 1.5]])


def test_the_hinge_losses_are_those_of_a_loop() -> None:
    game = GAMES["hinge"]
    expected = sum(max(0.0, 1 - v) for v in REAL.flatten().tolist()) / 4 + sum(max(0.0, 1 + v) for v in FAKE.flatten().tolist()) / 4
    assert float(game.discriminator(REAL, FAKE)) == pytest.approx(expected)
    assert float(game.generator(FAKE)) == pytest.approx(-sum(FAKE.flatten().tolist()) / 4)


def test_the_least_squares_losses_are_those_of_a_loop() -> None:
    game = GAMES["least_squares"]
    expected = 0.5 * sum((v - 1) ** 2 for v in REAL.flatten().tolist()) / 4 + 0.5 * sum(v**2 for v in FAKE.flatten().tolist()) / 4
    assert float(game.discriminator(REAL, FAKE)) == pytest.approx(expected)
    assert float(game.generator(FAKE)) == pytest.approx(0.5 * sum((v - 1) ** 2 for v in FAKE.flatten().tolist()) / 4)


@pytest.mark.parametrize("game", sorted(GAMES))
def test_better_verdicts_cost_the_discriminator_less_and_the_generator_more(game: str) -> None:
    high, middle, low = (torch.full((4,), value) for value in (0.9, 0.5, 0.1))
    assert GAMES[game].discriminator(high, low) < GAMES[game].discriminator(middle, middle)
    assert GAMES[game].generator(low) > GAMES[game].generator(high)


def test_verdicts_are_one_a_patch_and_each_sees_46_pixels() -> None:
    discriminator = Discriminator(8).eval()
    x = torch.rand(2, 1, 128, 128, requires_grad=True)
    verdicts = discriminator(x)
    assert verdicts.shape == (2, 1, 15, 15)
    verdicts[0, 0, 7, 7].backward()
    seen = x.grad[0, 0].abs() > 0
    rows, columns = (seen.any(axis).nonzero().flatten() for axis in (1, 0))
    assert int(rows[-1] - rows[0]) + 1 == int(columns[-1] - columns[0]) + 1 == 46
    assert not x.grad[1].any()


def test_the_largest_singular_value_of_every_layers_weights_is_one() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(8)
    for _ in range(30):  # each pass in training makes the estimate of the largest singular value better
        discriminator(torch.rand(1, 1, 64, 64))
    discriminator.eval()
    norms = [float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)) for layer in discriminator.layers if isinstance(layer, torch.nn.Conv2d)]
    assert norms == pytest.approx([1] * 4, abs=0.05)


@pytest.mark.parametrize("game", sorted(GAMES))
def test_the_price_teaches_the_reconstruction_and_not_the_discriminator(game: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(Adversarial(weight=0.5, loss=game, channels=8), torch.device("cpu"))
    reconstruction = torch.rand(2, 1, 64, 64, requires_grad=True)
    adversary.price(reconstruction).backward()
    assert torch.isfinite(reconstruction.grad).all()
    assert reconstruction.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in adversary.discriminator.parameters())


@pytest.mark.parametrize("game", sorted(GAMES))
def test_a_discriminator_learns_to_tell_noise_from_smooth_slices(game: str) -> None:
    torch.manual_seed(0)
    adversary = Adversary(Adversarial(loss=game, channels=8, rate=2e-3), torch.device("cpu"))
    for _ in range(40):
        noisy, smooth = torch.rand(8, 1, 64, 64), torch.rand(8, 1, 1, 1).expand(8, 1, 64, 64)
        adversary.learn(noisy, smooth)
    adversary.discriminator.eval()
    gradients = [parameter.grad for parameter in adversary.discriminator.parameters()]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)
    with torch.no_grad():
        verdicts = adversary.discriminator(torch.cat([torch.rand(8, 1, 64, 64), torch.full((8, 1, 64, 64), 0.5)])).mean((1, 2, 3))
    assert verdicts[:8].min() > verdicts[8:].max()


def test_an_unknown_game_is_refused() -> None:
    with pytest.raises(ValueError, match="hinge, least_squares"):
        Adversarial(loss="chess")
