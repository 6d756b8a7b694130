"""Measures of scores against scikit-learn and plain loops; intervals that draw patients, not images."""

from itertools import product

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pacs_node.workbench import map_metrics, metrics


def study_scores(seed: int, n: int = 60, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    scores = rng.normal(size=n) + truth
    return (np.round(scores, 1) if ties else scores), truth


@pytest.mark.parametrize(("seed", "ties"), list(product(range(3), (False, True))))
def test_weighted_auroc_and_average_precision_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    scores, truth = study_scores(seed, ties=ties)
    weights = metrics.draws([str(index // 2) for index in range(60)], truth, rounds=5, seed=seed)
    for name, reference in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        found = metrics.MEASURES[name](scores, truth, weights)
        np.testing.assert_allclose(found, [reference(truth, scores, sample_weight=row) for row in weights], rtol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_at_95_percent_specificity_agrees_with_trying_every_threshold(seed: int) -> None:
    scores, truth = study_scores(seed, ties=True)
    allowed = [cut for cut in scores[~truth] if np.mean(scores[~truth] > cut) <= 0.05 + 1e-9]
    wanted = np.mean(scores[truth] > min(allowed))
    assert metrics.measure("sensitivity", scores, truth, np.ones((1, 60))).value == pytest.approx(wanted)


def test_all_images_of_a_drawn_patient_come_together_and_both_groups_keep_their_size() -> None:
    patients = ["a", "a", "a", "b", "c", "c", "d"]
    truth = [True, True, False, True, False, False, False]
    weights = metrics.draws(patients, truth, rounds=200)
    assert (weights[:, 0] == weights[:, 1]).all() and (weights[:, 0] == weights[:, 2]).all() and (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, 0] + weights[:, 3] == 2).all()
    assert (weights[:, 4] + weights[:, 6] == 2).all()
    assert len(np.unique(weights[:, 0])) == 3


def test_an_interval_by_patient_is_wider_than_one_that_takes_every_image_for_a_patient() -> None:
    rng = np.random.default_rng(1)
    truth = np.repeat([False, True], 20)
    scores = np.repeat(rng.normal(size=40) + truth, 10)
    owner = [str(index // 10) for index in range(400)]
    narrow = metrics.auroc_interval(scores, np.repeat(truth, 10))
    wide = metrics.auroc_interval(scores, np.repeat(truth, 10), owner)
    assert wide[1] - wide[0] > 2 * (narrow[1] - narrow[0])


def test_the_interval_holds_the_true_value_about_as_often_as_it_promises() -> None:
    true, held = 0.7602, 0  # of two normal distributions one standard deviation apart
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores, truth = np.r_[rng.normal(size=60), rng.normal(size=60) + 1], np.repeat([False, True], 60)
        low, high = metrics.auroc_interval(scores, truth, seed=seed)
        held += low <= true <= high
    assert 52 <= held <= 60


def test_a_paired_difference_sees_what_two_separate_intervals_hide() -> None:
    scores, truth = study_scores(3, n=200)
    worse = scores - 0.3 * truth
    weights = metrics.draws([str(index) for index in range(200)], truth)
    found = metrics.difference("auroc", scores, worse, truth, weights)
    assert found.value == pytest.approx(metrics.auroc(scores, truth) - metrics.auroc(worse, truth))
    assert 0 < found.low < found.value < found.high
    assert metrics.auroc_interval(worse, truth)[1] > metrics.auroc_interval(scores, truth)[0]
    same = metrics.difference("ap", scores, scores, truth, weights)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_what_cannot_be_told_is_no_number_and_a_missing_value_takes_no_part() -> None:
    weights = metrics.draws(["a", "b", "c"], [False] * 3)
    assert np.isnan(metrics.measure("auroc", [1.0, 2.0, 3.0], [False] * 3, weights).value)
    found = metrics.mean([1.0, float("nan"), 3.0], weights)
    assert found.value == 2.0 and found.low == 1.0 and found.high == 3.0
    assert np.isnan(metrics.mean([float("nan")] * 3, weights).low)
    alone = metrics.measure("auroc", [1.0, 2.0, 3.0], [False, False, True], metrics.draws(["a", "b", "c"], [False, False, True]))
    assert alone.value == 1.0 and np.isnan(alone.low)
    with pytest.raises(ValueError, match="both groups"):
        metrics.auroc([1.0, 2.0], [True, True])


@pytest.mark.parametrize("seed", range(4))
def test_matching_pairs_each_anomaly_with_a_normal_study_of_the_same_brightness(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(80) < 0.5
    values = rng.normal(size=80) + truth
    kept = metrics.matched(values, truth, 0.2)
    high, low = (np.sort(values[[index for index in kept if truth[index] == group]]) for group in (True, False))
    assert len(high) == len(low) > 10
    assert (np.abs(high - low) <= 0.2).all()
    assert abs(high.mean() - low.mean()) < 0.1 < abs(values[truth].mean() - values[~truth].mean())
    assert metrics.matched([0.0, 1.0], [True, False], 0.5) == []


def test_dice_counts_every_marked_pixel_of_the_body() -> None:
    heat, lesion, body = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), bool), np.ones((2, 4, 4), bool)
    lesion[0, :2, :2] = True
    heat[0, :2, :2], heat[1, 0, 0], heat[1, 3, 3], body[1, 3, 3] = 5.0, 9.0, 50.0, False
    curve = map_metrics.dice_curve(heat, lesion, body)
    for cut, value in zip(map_metrics.THRESHOLDS, curve, strict=True):
        assert value == pytest.approx(map_metrics.dice((heat > cut) & body, lesion))
    assert map_metrics.dice((heat > 1) & body, lesion) == pytest.approx(8 / 9)
    assert map_metrics.best_threshold(np.stack([curve, curve])) == int(curve.argmax())
    assert map_metrics.dice(lesion & False, lesion & False) == 1.0


def test_the_hottest_place_counts_where_it_is_in_the_lesion_or_just_beside_it() -> None:
    lesion = np.zeros((2, 32, 32), bool)
    lesion[1, 10:14, 10:14] = True
    for row, wanted in ((11, True), (15, True), (25, False)):
        heat = np.zeros((2, 32, 32), np.float32)
        heat[1, row - 1 : row + 2, 10:13] = 1.0
        assert map_metrics.is_hit(heat, lesion) is wanted


def test_a_reconstruction_is_judged_within_the_body_only() -> None:
    x, body = np.random.default_rng(0).random((2, 32, 32), dtype=np.float32), np.zeros((2, 32, 32), bool)
    body[:, 8:24, 8:24] = True
    other = np.where(body, x + np.float32(0.1), np.float32(9))
    error = map_metrics.root_mean_square(x, other, body)
    assert error == pytest.approx(0.1, rel=1e-4)
    assert map_metrics.peak_signal_to_noise(error) == pytest.approx(20.0, rel=1e-4)
    assert map_metrics.similarity(x, x, body) == pytest.approx(1.0)
    assert map_metrics.similarity(x, x[::-1].copy(), body) < 0.3
