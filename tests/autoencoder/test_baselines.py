"""The simple detectors beside every bundle: each sees what it is made for, knows no labels, and outlives an older file."""

import numpy as np
import pytest
import torch

from pacs_node.autoencoder.baselines import BASELINES, EDGE, Baselines, fit_baselines, judge_baselines, k_means
from pacs_node.autoencoder.normals import Example

PIXELS = 64
TOP = 0.01


def study(seed: int, slices: int = 6) -> Example:
    """A disc with noise, darker towards a side that differs from study to study."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(PIXELS), torch.arange(PIXELS), indexing="ij")
    inside = (((rows - 32) ** 2 + (columns - 32) ** 2) < 24**2).expand(slices, PIXELS, PIXELS).clone()
    turn = 2 * torch.pi * torch.rand(1, generator=generator)
    shade = ((rows - 32) * torch.sin(turn) + (columns - 32) * torch.cos(turn)) / 200
    return Example((0.5 + shade + 0.03 * torch.randn(slices, PIXELS, PIXELS, generator=generator)) * inside, inside)


@pytest.fixture(scope="module")
def fitted() -> Baselines:
    return fit_baselines([(one.x, one.foreground) for one in (study(seed) for seed in range(12))])


def scores(one: Example, fitted: Baselines) -> dict[str, float]:
    return {name: score for name, (score, _) in judge_baselines(one.x, one.foreground, fitted, TOP).items()}


def test_every_baseline_finds_a_bright_half_unusual(fitted: Baselines) -> None:
    one = study(100)
    one.x[:, 32:] += 0.2 * one.foreground[:, 32:]
    unusual, usual = scores(one, fitted), scores(study(100), fitted)
    assert set(unusual) == set(BASELINES)
    assert all(unusual[name] > usual[name] for name in BASELINES)


def test_every_map_but_that_of_the_mean_is_hottest_where_the_lesion_is(fitted: Baselines) -> None:
    one = study(100)
    one.x[3, 20:28, 30:38] += 0.4
    for name, (_, heat) in judge_baselines(one.x, one.foreground, fitted, TOP).items():
        assert (heat[~one.foreground] == 0).all()
        if name == "mean":
            assert heat[one.foreground].unique().numel() == 1
        else:
            slices, rest = divmod(int(heat.argmax()), PIXELS * PIXELS)
            assert (slices, rest // PIXELS in range(19, 29), rest % PIXELS in range(29, 39)) == (3, True, True), name


def test_the_mean_counts_as_a_distance_in_both_directions(fitted: Baselines) -> None:
    assert fitted.level is not None
    distances = []
    for change in (-0.2, 0.2):
        one = study(100)
        one.x[one.foreground] += change
        distances.append(scores(one, fitted)["mean"])
        assert distances[-1] == pytest.approx(abs(float(one.x[one.foreground].mean()) - fitted.level), rel=1e-5)
    assert min(distances) > 0.1


def test_a_normal_slice_seen_in_training_is_its_own_nearest_neighbour(fitted: Baselines) -> None:
    assert scores(study(3), fitted)["neighbour"] == pytest.approx(0, abs=1e-2)
    assert scores(study(100), fitted)["neighbour"] > 0.5


def test_the_distance_to_the_nearest_normal_is_that_of_a_plain_loop(fitted: Baselines) -> None:
    assert fitted.rows is not None
    assert fitted.roots is not None
    one = study(100, slices=1)
    reduced = np.asarray(torch.nn.functional.adaptive_avg_pool2d((one.x * one.foreground)[:, None], EDGE)).reshape(-1)
    place = (reduced - fitted.mean.numpy()) @ fitted.axes.numpy().T / fitted.roots.numpy()
    nearest = min(float(np.linalg.norm(place - row)) for row in fitted.rows.numpy())
    assert scores(one, fitted)["neighbour"] == pytest.approx(nearest, rel=1e-4)


def test_k_means_finds_the_middles_of_groups_that_lie_apart() -> None:
    middles = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    rows = (middles[:, None] + 0.1 * torch.randn(3, 20, 2, generator=torch.Generator().manual_seed(0))).reshape(-1, 2)
    centres = k_means(rows, 3)
    assert torch.cdist(middles, centres).min(1).values.max() < 0.1
    assert torch.equal(centres, k_means(rows, 3))


def test_k_means_of_equal_rows_stays_finite() -> None:
    assert torch.equal(k_means(torch.ones(5, 2), 3), torch.ones(3, 2))


def test_stored_baselines_give_the_same_scores(fitted: Baselines) -> None:
    again = Baselines.from_arrays(fitted.arrays())
    assert scores(study(100), again) == scores(study(100), fitted)


def test_a_file_of_an_earlier_version_leaves_out_what_it_does_not_hold(fitted: Baselines) -> None:
    old = {name: value for name, value in fitted.arrays().items() if name in ("centre", "mean", "axes")}
    assert set(scores(study(100), Baselines.from_arrays(old))) == {"intensity", "components"}


def test_a_study_that_shows_nothing_but_air_is_judged_too(fitted: Baselines) -> None:
    one = study(100)
    empty = Example(one.x * 0, one.foreground & False)
    assert all(np.isfinite(score) for score in scores(empty, fitted).values())
