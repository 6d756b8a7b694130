"""From scores to statements: p-values, thresholds that keep their promise, the tail of pixels."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import beta

from pacs_node.autoencoder import calibration


def test_the_p_value_counts_calibration_scores_at_or_above() -> None:
    scores = [1.0, 2.0, 3.0, 4.0]
    assert calibration.conformal_p(5.0, scores) == 1 / 5
    assert calibration.conformal_p(3.0, scores) == 3 / 5
    assert calibration.conformal_p(0.0, scores) == 1.0
    assert calibration.conformal_p(7.0, []) == 1.0


def test_the_percentile_is_the_share_of_smaller_scores() -> None:
    assert calibration.percentile(3.0, [1.0, 2.0, 3.0, 4.0]) == 50.0
    with pytest.raises(ValueError, match="at least one"):
        calibration.percentile(1.0, [])


@pytest.mark.parametrize(("n", "alpha", "rank"), [(58, 0.05, None), (59, 0.05, 59), (200, 0.05, 196), (298, 0.01, None), (299, 0.01, 299), (1, 0.05, None)])
def test_the_threshold_is_the_order_statistic_that_holds_the_promise(n: int, alpha: float, rank: int | None) -> None:
    assert calibration.threshold_rank(n, alpha) == rank


@pytest.mark.parametrize(("alpha", "needed"), [(0.05, 59), (0.01, 299), (0.1, 29)])
def test_the_number_of_studies_needed_is_where_a_threshold_first_exists(alpha: float, needed: int) -> None:
    assert calibration.studies_needed(alpha) == needed
    assert calibration.threshold_rank(needed, alpha) is not None
    assert calibration.threshold_rank(needed - 1, alpha) is None


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_for_every_number_of_studies_the_rank_is_the_least_that_holds_the_promise(alpha: float) -> None:
    for n in range(calibration.studies_needed(alpha), 1200):
        rank = calibration.threshold_rank(n, alpha)
        assert rank is not None
        assert beta.cdf(alpha, n - rank + 1, rank) >= 0.95 - 1e-9
        assert beta.cdf(alpha, n - rank + 2, rank - 1) < 0.95


@pytest.mark.parametrize("n", [59, 100, 200, 500])
def test_the_promised_rate_is_kept_in_at_least_95_of_100_recalibrations(n: int) -> None:
    rng = np.random.default_rng(n)
    rank = calibration.threshold_rank(n, 0.05)
    assert rank is not None
    true_rates = 1 - np.sort(rng.random((4000, n)), axis=1)[:, rank - 1]  # of uniform scores
    assert np.mean(true_rates <= 0.05) >= 0.94  # 0.95 by design; 4000 trials scatter by 0.003


ScoresOf = Callable[[np.random.Generator, int], NDArray[np.float64]]

DISTRIBUTIONS: dict[str, ScoresOf] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(1.5, n),
    "skewed": lambda rng, n: np.exp(2 * rng.standard_normal(n)),
    "peaks of slices": lambda rng, n: rng.gumbel(size=n),
    "ties": lambda rng, n: np.round(rng.standard_normal(n), 1),
    "five values": lambda rng, n: rng.integers(0, 5, n).astype(float),
    "one value": lambda rng, n: np.ones(n),
    "half of them equal": lambda rng, n: np.maximum(rng.standard_normal(n), 0.0),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1])
def test_whatever_the_scores_look_like_the_promise_is_kept_in_183_of_200_recalibrations(name: str, alpha: float) -> None:
    rng = np.random.default_rng(17)
    held_out = np.sort(DISTRIBUTIONS[name](rng, 400_000))
    for n in (calibration.studies_needed(alpha), 2 * calibration.studies_needed(alpha), 700):
        thresholds = [calibration.threshold(DISTRIBUTIONS[name](rng, n).tolist(), alpha) for _ in range(200)]
        rates = 1 - np.searchsorted(held_out, thresholds, side="right") / len(held_out)
        assert np.sum(rates <= alpha) >= 183, (n, np.sum(rates <= alpha))


def test_strangers_far_from_the_other_scores_are_suspect_one_or_many() -> None:
    rng = np.random.default_rng(4)
    clean = rng.gumbel(size=200)
    for count in (1, 5, 20, 40):
        mixed = [*clean[count:], *(12 + rng.gumbel(size=count))]
        found = sum(score > calibration.suspect_beyond(mixed) for score in mixed)
        assert found == pytest.approx(count, abs=max(1, 0.1 * count))


@pytest.mark.parametrize("name", ["normal", "peaks of slices"])
def test_clean_scores_are_seldom_suspect(name: str) -> None:
    rng = np.random.default_rng(5)
    sets = [DISTRIBUTIONS[name](rng, 200) for _ in range(300)]
    assert np.mean([scores.max() > calibration.suspect_beyond(scores.tolist()) for scores in sets]) <= 0.06


@pytest.mark.parametrize("scores", [[1.0, 2.0, 99.0], [1.0] * 100, [0.0] * 80 + [5.0] * 20], ids=["few", "equal", "mostly equal"])
def test_where_the_others_suggest_nothing_nothing_is_suspect(scores: list[float]) -> None:
    assert calibration.suspect_beyond(scores) == float("inf")


def test_the_threshold_is_a_score_that_was_seen() -> None:
    scores = list(np.random.default_rng(1).random(200))
    assert calibration.threshold(scores, 0.05) == sorted(scores)[195]
    assert calibration.threshold(scores[:20], 0.05) is None
    assert calibration.threshold([], 0.05) is None


def test_the_pixel_tail_reads_back_the_normal_distribution() -> None:
    counted = calibration.PixelTail()
    rng = np.random.default_rng(2)
    for _ in range(10):
        counted.add(rng.standard_normal(200_000).astype(np.float32))
    table = counted.table()
    heat = calibration.tail(np.array([0.0, 1.645, 2.326, 3.090], dtype=np.float32), table)
    assert heat == pytest.approx([0.301, 1.301, 2.0, 3.0], abs=0.05)
    assert calibration.tail(np.array([-50.0, 1e6], dtype=np.float32), table).tolist() == [0.0, 4.0]


def test_too_few_pixels_make_no_tail() -> None:
    counted = calibration.PixelTail()
    counted.add(np.zeros(1000, dtype=np.float32))
    with pytest.raises(ValueError, match="too few"):
        counted.table()


def test_the_relative_map_lies_between_zero_and_one() -> None:
    z = np.random.default_rng(3).standard_normal((3, 40, 40)).astype(np.float32)
    z[1, 5:10, 5:10] = 30
    shown = calibration.relative(z, np.ones(z.shape, dtype=bool))
    assert shown.min() == 0
    assert shown.max() == 1
    assert shown[1, 7, 7] == 1
    assert not calibration.relative(z, np.zeros(z.shape, dtype=bool)).any()


# --- drift -----------------------------------------------------------------------------------------------------------------


def drift(recent: NDArray[np.float64], old: NDArray[np.float64], unusual: float = 0.2) -> calibration.Drift:
    threshold = calibration.threshold(old.tolist(), 0.05)
    assert threshold is not None
    return calibration.drift(recent.tolist(), old.tolist(), threshold, 0.05, unusual)


@pytest.mark.parametrize("n", [50, 200])
@pytest.mark.parametrize("unusual", [0.0, 0.2])
def test_studies_like_those_of_the_calibration_and_a_share_of_ill_ones_are_no_drift(n: int, unusual: float) -> None:
    rng = np.random.default_rng(8)
    alarms = 0
    for _ in range(500):
        ill = rng.random(n) < unusual
        recent = rng.gumbel(size=n) + ill * 20.0
        alarms += drift(recent, rng.gumbel(size=200), unusual).p < 0.01
    assert alarms <= 12  # 5 by design where the bounds are tight


@pytest.mark.parametrize(
    ("change", "direction"),
    [(lambda scores: scores + 2.0, "higher"), (lambda scores: scores - 1.0, "lower"), (lambda scores: np.where(scores > 0, scores + 9, scores), "higher")],
    ids=["higher", "lower", "two in three are unusual"],
)
def test_scores_that_have_moved_are_drift_and_the_direction_is_told(change: Callable[[NDArray[np.float64]], NDArray[np.float64]], direction: str) -> None:
    rng = np.random.default_rng(9)
    found = drift(change(rng.gumbel(size=100)), rng.gumbel(size=200))
    assert found.p < 0.001
    assert (found.higher > found.lower) is (direction == "higher")


def test_drift_counts_what_lies_above_the_threshold_and_measures_both_distances() -> None:
    found = calibration.drift([1.0, 2.0, 9.0, 9.0], [1.0, 2.0, 3.0, 4.0], 8.0, 0.05, 0.2)
    assert (found.above, found.expected) == (0.5, pytest.approx(0.24))
    assert (found.higher, found.lower) == (0.5, 0.0)
    assert calibration.drift([0.0, 0.0], [1.0, 2.0], 8.0, 0.05, 0.2).lower == 1.0
    with pytest.raises(ValueError, match="both sides"):
        calibration.drift([], [1.0], 1.0, 0.05, 0.2)
