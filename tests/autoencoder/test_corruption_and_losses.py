"""What training spoils and what it minimises."""

import pytest
import torch

from pacs_node.autoencoder.corruption import CORRUPTIONS, Augmentation, augment, corrupt
from pacs_node.autoencoder.losses import beta_nll, multi_scale_dissimilarity, structural_similarity


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_each_corruption_changes_the_slice_and_repeats_with_its_seed(name: str) -> None:
    x = torch.rand(6, 1, 64, 64, generator=seeded(1))
    spoilt = CORRUPTIONS[name](x, seeded())
    assert spoilt.shape == x.shape
    assert (spoilt - x).abs().max() > 0.1
    assert torch.equal(spoilt, CORRUPTIONS[name](x, seeded()))


def test_coarse_noise_has_the_standard_deviation_asked_for() -> None:
    x = torch.zeros(200, 1, 64, 64)
    spread = float(torch.stack([CORRUPTIONS["coarse_noise"](x, seeded(seed)).std() for seed in range(12)]).mean())
    assert 0.1 < spread < 0.2  # interpolating a coarse grid of deviation 0.2 smooths it


def test_some_slices_of_a_batch_stay_clean() -> None:
    x = torch.rand(64, 1, 32, 32, generator=seeded(1))
    changed = (corrupt(x, seeded(), ("coarse_noise",), 0.5) != x).flatten(1).any(1)
    assert 10 < int(changed.sum()) < 54


def test_augmentation_moves_slices_and_leaves_air_alone() -> None:
    x = torch.zeros(4, 1, 64, 64)
    x[:, :, 20:44, 20:44] = 0.5
    moved = augment(x, seeded(), Augmentation(noise=0.0))
    assert (moved - x).abs().max() > 0.1
    assert moved[:, :, :4, :4].abs().max() == 0
    assert float(moved.mean()) == pytest.approx(float(x.mean()), rel=0.25)


def test_no_augmentation_is_the_identity() -> None:
    x = torch.rand(2, 1, 32, 32, generator=seeded(1))
    assert torch.allclose(augment(x, seeded(), Augmentation(0, 0, 0, 0, 0)), x, atol=1e-5)


def test_structural_similarity_is_one_for_equal_images_and_falls_with_difference() -> None:
    x = torch.rand(1, 1, 32, 32, generator=seeded(1))
    assert torch.allclose(structural_similarity(x, x), torch.ones_like(x), atol=1e-4)
    weight = torch.ones_like(x)
    near, far = (multi_scale_dissimilarity(x, x + noise * torch.randn(x.shape, generator=seeded()), weight) for noise in (0.05, 0.3))
    assert 0 < near < far


def test_the_likelihood_is_best_at_the_true_variance() -> None:
    target, weight = 0.1 * torch.randn(20, 1, 32, 32, generator=seeded()), torch.ones(20, 1, 32, 32)
    losses = [float(beta_nll(target, torch.zeros_like(target), torch.full_like(target, 2 * log_sigma), weight, beta=0.0)) for log_sigma in (-3.3, -2.3, -1.3)]
    assert losses[1] == min(losses)


def test_pixels_of_no_weight_do_not_count() -> None:
    target, weight = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    target[..., 0, 0], weight[..., 0, 0] = 100.0, 0.0
    assert float(beta_nll(target, torch.zeros_like(target), torch.zeros_like(target), weight)) == 0
