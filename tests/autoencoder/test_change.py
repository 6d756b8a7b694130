"""A detector: what is blended in is as strong as it says, its target is where it can be seen, and the detector learns to find it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from pacs_node.autoencoder import change, scoring
from pacs_node.autoencoder.corruption import Augmentation
from pacs_node.autoencoder.fitting import Schedule, Slices, fit
from pacs_node.autoencoder.network import Architecture, Detector, Network, contrasts, unshuffled, with_neighbours
from pacs_node.autoencoder.normals import Example, fit_normals
from pacs_node.autoencoder.scoring import Fusion, Stratum

EDGE = 64
SEEING = Architecture(EDGE, 1, (16, 24), ("open", "open"), contrast=True, norm="batch")
STILL = Augmentation(rotation=0, shift=0, scale=0, gain=0, noise=0)


def slices(count: int, inputs: int = 1, noise: float = 0.02, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Discs of even tissue with a bright rim, under white noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(EDGE), torch.arange(EDGE), indexing="ij")
    distance = ((rows - EDGE / 2) ** 2 + (columns - EDGE / 2) ** 2).sqrt()
    inside = distance < 28
    image = 0.4 * inside + 0.6 * (inside & (distance > 25))
    x = image + noise * torch.randn(count, inputs, EDGE, EDGE, generator=generator) * inside
    return x.clamp(0, 1.2), inside.expand(count, EDGE, EDGE)


@pytest.mark.parametrize("noise", [0.01, 0.02, 0.05])
def test_the_noise_of_even_tissue_is_measured_and_edges_add_little(noise: float) -> None:
    x, inside = slices(8, noise=noise)
    even = inside & (x[:, 0] < 0.7) & torch.roll(inside, (5, 5), (1, 2)) & torch.roll(inside, (-5, -5), (1, 2))
    assert change.noise_level(x, even).tolist() == pytest.approx([noise] * 8, rel=0.1)
    assert change.noise_level(x, inside).tolist() == pytest.approx([1.25 * noise] * 8, rel=0.25)


def test_a_slice_without_foreground_has_the_least_noise() -> None:
    x, inside = slices(2)
    assert torch.isfinite(change.noise_level(x, torch.zeros_like(inside))).all()


def test_a_blended_shape_is_as_strong_as_was_drawn_and_in_the_foreground_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change, "STRENGTH", (3.0, 3.0))
    x, inside = slices(64, inputs=3)
    noise = torch.full((64,), 0.02)
    difference = change.blend(x, inside, noise, torch.Generator().manual_seed(1)) - x
    assert not difference[~inside[:, None].expand_as(difference)].any()
    shape = change.shapes(inside, torch.Generator().manual_seed(1))  # drawn first, so the same shapes
    area = (shape > 0.5).sum((1, 2)).clamp(min=4)
    strength = (difference.square().sum((1, 2, 3)) / (3 * area)).sqrt() / 0.02
    assert float(strength.max()) <= 3.001
    assert float((strength > 2.99).float().mean()) > 0.6  # the others found nothing strong enough to blend in


def test_shapes_lie_in_the_foreground_and_come_in_every_size() -> None:
    _, inside = slices(200)
    areas = (change.shapes(inside, torch.Generator().manual_seed(0)) > 0.5).sum((1, 2)).float()
    assert float(areas.quantile(0.1)) < 60
    assert float(areas.quantile(0.9)) > 400


def test_the_target_is_the_local_visibility_of_the_difference() -> None:
    clean, _ = slices(1, inputs=3)
    spoilt = clean.clone()
    spoilt[0, 1, 30:34, 30:34] += 0.03
    noise = torch.tensor([0.02])
    target = change.visibility(clean, spoilt, noise)
    padded = np.pad(((spoilt - clean)[0, 1].numpy() / 0.02) ** 2, 2, mode="edge")
    for row, column in ((31, 31), (28, 30), (35, 33), (10, 10)):
        ratio = padded[row : row + 5, column : column + 5].mean() / change.VISIBLE**2
        assert float(target[0, 0, row, column]) == pytest.approx(ratio / (1 + ratio), rel=1e-4, abs=1e-6)
    other = clean.clone()
    other[0, 0, 30:34, 30:34] += 0.03  # a neighbour's change is not this slice's
    assert not change.visibility(clean, other, noise).any()


def test_the_loss_is_the_cross_entropy_over_the_foreground() -> None:
    detector = Detector(SEEING).eval()
    x, inside = slices(4)
    with torch.no_grad():
        loss = float(change.change_loss(detector, x, inside, torch.Generator().manual_seed(3)))
        generator = torch.Generator().manual_seed(3)
        noise = change.noise_level(x, inside)
        spoilt = change.change(x, inside, noise, generator)
        target, said = change.visibility(x, spoilt, noise)[:, 0], detector(spoilt)
    probability = torch.sigmoid(said[:, 0])
    entropy = -(target * probability.log() + (1 - target) * (1 - probability).log())
    assert loss == pytest.approx(float(entropy[inside].mean()), rel=1e-4)


def test_local_contrast_is_the_distance_from_the_neighbourhood_in_its_own_spread() -> None:
    x = torch.rand(1, 2, 48, 48, generator=torch.Generator().manual_seed(0))
    seen = contrasts(x)
    assert seen.shape == (1, 6, 48, 48)
    assert torch.equal(seen[:, :2], x)
    for first, width in ((2, 9), (4, 33)):
        half = width // 2
        padded = np.pad(x[0, 1].numpy().astype(np.float64), half, mode="edge")
        for row, column in ((0, 0), (20, 31), (47, 5)):
            around = padded[row : row + width, column : column + width]
            expected = np.clip((float(x[0, 1, row, column]) - around.mean()) / (0.02 + around.std()), -4, 4) / 2
            assert float(seen[0, first + 1, row, column]) == pytest.approx(expected, abs=2e-3)


def trained(epochs: int, count: int = 32) -> Detector:
    torch.manual_seed(0)
    detector = Detector(SEEING)
    x, inside = slices(count)
    fit(detector, Slices(x, inside), Slices(*slices(16, seed=1)), Schedule(epochs, 16, 5e-3, patience=epochs, crop=32, augmentation=STILL))
    return detector


def found(detector: Detector, heights: Sequence[float]) -> list[float]:
    """Mean logit in a square of each height, less that beside it."""
    said = []
    for height in heights:
        x, _ = slices(4, seed=9)
        x[:, :, 28:36, 30:38] += height
        with torch.no_grad():
            logit = detector(x)[:, 0]
        said.append(float(logit[:, 28:36, 30:38].mean() - logit[:, 12:20, 30:38].mean()))
    return said


@pytest.mark.slow
def test_a_few_epochs_teach_a_detector_to_see_a_change() -> None:
    nothing, faint, strong = found(trained(25, 256), (0.0, 0.06, 0.2))
    assert nothing < 0.5
    assert strong > faint > nothing
    assert strong > 2.0


def test_training_a_detector_is_repeatable() -> None:
    first, second = (trained(1).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_detector_adds_one_part_to_the_evidence_and_changes_no_other() -> None:
    network = Network(Architecture(EDGE, 1, (8, 16), ("open", "open"))).eval()
    alone = scoring.look(network, slices(6)[0][:, 0])
    network.detector = trained(1)
    x, inside = slices(6)
    normals = [Example(x[:, 0], inside), Example(slices(6, seed=2)[0][:, 0], inside)]
    fusion = Fusion(pixel=(0, 0, 0, 0, 0, 1))
    measured = fit_normals(network, [one.x for one in normals], normals, fusion, bins=1)
    assert len(measured.mean) == len(scoring.PARTS)
    seen = scoring.look(network, x[:, 0])
    assert seen.change is not None
    assert alone.change is None
    assert torch.equal(alone.mean, seen.mean)
    judged = scoring.judge(x[:, 0], seen, inside, measured, fusion, Stratum())
    maps = scoring.evidence(x[:, 0], seen, inside, measured.low_mean, measured.low_axes)
    assert torch.equal(maps[-1], seen.change * inside)
    expected = scoring.standardise(maps, inside, measured, Stratum().bins(6, 1))[-1]
    assert torch.allclose(judged.z, expected, atol=1e-6)
    assert len({float(value) for value in measured.mean[-1].flatten()}) == 1  # the same everywhere


def test_a_detector_may_look_at_more_slices_than_the_autoencoder() -> None:
    network = Network(Architecture(EDGE, 1, (8, 16), ("open", "open"))).eval()
    x = slices(5)[0][:, 0]
    alone = scoring.look(network, x)
    network.detector = Detector(replace(SEEING, inputs=3)).eval()
    assert network.slices == 3
    seen = scoring.look(network, x)
    assert torch.equal(alone.mean, seen.mean)
    with torch.no_grad():
        assert torch.allclose(seen.change, network.detector(with_neighbours(x, 3))[:, 0], atol=1e-5)  # type: ignore[arg-type]


def test_crops_are_squares_around_foreground_pixels_with_the_area_of_the_slices() -> None:
    x, inside = slices(3, inputs=3)
    x[:, 0], x[:, 1] = torch.arange(EDGE)[:, None].float(), torch.arange(EDGE).float()  # so that every pixel says where it was
    inside = inside & (torch.arange(EDGE) > 40)
    some, within = change.crops(x, inside, 16, torch.Generator().manual_seed(0))
    assert some.shape == (3 * 16, 3, 16, 16)
    assert within.shape == (3 * 16, 16, 16)
    assert torch.equal(within, inside[0][some[:, 0].long(), some[:, 1].long()])
    assert bool(within.flatten(1).any(1).all())
    assert len({tuple(one[:2, 0, 0].tolist()) for one in some}) > 20


def test_crops_of_the_whole_edge_are_the_slices() -> None:
    x, inside = slices(2)
    some, within = change.crops(x, inside, EDGE, torch.Generator().manual_seed(0))
    assert torch.equal(some, x)
    assert torch.equal(within, inside)


def test_batch_normalisation_ends_with_the_statistics_of_clean_slices() -> None:
    torch.manual_seed(0)
    network = Network(SEEING)
    train = Slices(*slices(32))
    fit(network, train, Slices(*slices(8, seed=1)), Schedule(epochs=1, batch=16, augmentation=STILL))
    assert not network.training
    first = network.encoder[0][0]
    before = first[0](unshuffled(contrasts(train.pixels)))
    assert torch.allclose(first[1].running_mean, before.mean((0, 2, 3)), atol=1e-3)
