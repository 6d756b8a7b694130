"""What training spoils and what it minimises."""

import pytest
import torch

from pacs_node.autoencoder.corruption import CORRUPTIONS, Augmentation, augment, corrupt, irregular_region
from pacs_node.autoencoder.losses import beta_nll, box_mean, multi_scale_dissimilarity, structural_similarity


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


def discs() -> torch.Tensor:
    """Slices with edges, grain and air; 2.5-D."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    inside = ((rows - 32) ** 2 + (columns - 32) ** 2) < 24**2
    level = torch.linspace(0.3, 0.8, 6)[:, None, None, None]
    return inside * (level + 0.05 * torch.randn(6, 3, 64, 64, generator=seeded(1))).clamp(0.01, 0.99)


@pytest.mark.parametrize("name", sorted(CORRUPTIONS))
def test_each_corruption_leaves_part_of_the_slice_and_touches_all_its_inputs(name: str) -> None:
    x = discs()
    change = (CORRUPTIONS[name](x, seeded()) - x).abs()
    assert change.flatten(2).amax(2).amax(0).min() > 0.02  # every one of the neighbouring slices
    if name != "coarse_noise":  # which lies over the whole slice
        assert float((change < 0.02)[x > 0].float().mean()) > 0.4  # of the body: air is easily left alone


def test_a_bent_region_keeps_black_and_white_and_the_order_of_greys() -> None:
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0])[:, None, None].expand(4, 32, 32)[None].contiguous()  # four greys at the same place, as inputs
    for seed in range(8):
        bent = CORRUPTIONS["local_gamma"](levels, seeded(seed))
        assert torch.allclose(bent[:, [0, 3]], levels[:, [0, 3]], atol=1e-6)
        assert (bent.diff(dim=1) > 0).all()
        assert (bent[:, 1] >= 0.25**2 - 1e-6).all()
        assert (bent[:, 1] <= 0.25**0.5 + 1e-6).all()


def test_a_blurred_region_loses_its_grain_and_keeps_its_mean() -> None:
    x = 0.5 + 0.1 * torch.randn(8, 1, 64, 64, generator=seeded(1))
    blurred = CORRUPTIONS["local_blur"](x, seeded())
    region = irregular_region(x, after_one_number(seeded()))
    inside, outside = region > 0.95, region < 0.001
    assert float(blurred[inside].std()) < 0.5 * float(x[inside].std())
    assert float(blurred[inside].mean()) == pytest.approx(0.5, abs=0.01)
    assert torch.allclose(blurred[outside], x[outside], atol=1e-3)


def after_one_number(generator: torch.Generator) -> torch.Generator:
    torch.rand(1, generator=generator)
    return generator


def test_a_blend_lies_between_the_slice_and_another_of_its_batch() -> None:
    x = torch.stack([torch.full((1, 32, 32), level) for level in (0.1, 0.9)])
    x[..., 0] = 0.0  # air
    seen = [CORRUPTIONS["foreign_blend"](x, seeded(seed)) for seed in range(8)]
    assert all(((one[..., 1:] >= 0.1 - 1e-6) & (one[..., 1:] <= 0.9 + 1e-6)).all() for one in seen)
    assert max(float((one - x).abs().max()) for one in seen) > 0.3


def test_an_irregular_region_covers_a_tenth_to_a_third_and_has_soft_edges() -> None:
    body = torch.zeros(64, 1, 64, 64)
    body[:, :, 16:48, 8:56] = 0.5
    region = irregular_region(body, seeded())
    share = (region > 0.5)[:, :, 16:48, 8:56].float().mean((1, 2, 3))
    assert 0.07 < float(share.min()) < 0.15
    assert 0.25 < float(share.max()) < 0.38
    assert ((region > 0.1) & (region < 0.9)).any()
    assert len(torch.unique((region > 0.5).flatten(1), dim=0)) == 64


def test_a_slice_that_shows_nothing_has_no_region() -> None:
    assert (irregular_region(torch.zeros(2, 1, 64, 64), seeded()) == 0).all()


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


@pytest.mark.parametrize("width", [1, 3, 5, 7, 9, 33])
def test_a_box_mean_is_the_average_over_a_window_whose_border_is_repeated_outwards(width: int) -> None:
    x = torch.rand(2, 3, 40, 24, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(x, (width // 2,) * 4, mode="replicate")
    assert torch.allclose(box_mean(x, width), torch.nn.functional.avg_pool2d(padded, width, 1), atol=1e-6)


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
