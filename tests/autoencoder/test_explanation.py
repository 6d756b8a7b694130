"""What the parts add to a score: the shares add up, and are those that game theory asks for."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch

from pacs_node.autoencoder import explanation, scoring
from pacs_node.autoencoder.explanation import BASE, contributions, shapley
from pacs_node.autoencoder.network import Network
from pacs_node.autoencoder.scoring import Fusion
from tests.autoencoder.test_scoring import fitted, study

__all__ = ["fitted"]

SCORES: dict[str, Callable[[torch.Tensor], float]] = {
    "weighted": lambda v: float(v @ torch.tensor([0.5, 0.3, 0.2])),
    "largest": lambda v: float(v.max()),
    "product": lambda v: float(v.prod() + v[0]),
    "with a base": lambda v: float(v.square().sum() + 7),
}


def by_every_order(score: Callable[[torch.Tensor], float], values: torch.Tensor, usual: torch.Tensor) -> list[float]:
    """The plain definition: what a part adds when it joins, averaged over all orders of joining."""
    orders, shares = list(permutations(range(len(values)))), [0.0] * len(values)
    for order in orders:
        present = usual.clone()
        for part in order:
            before = score(present)
            present[part] = values[part]
            shares[part] += (score(present) - before) / len(orders)
    return shares


@pytest.mark.parametrize("name", SCORES)
def test_the_shares_are_the_average_over_all_orders_of_joining_and_add_up(name: str) -> None:
    values, usual = torch.tensor([2.0, -1.0, 3.5]), torch.tensor([0.5, 0.0, 1.0])
    shares = shapley(SCORES[name], values, usual)
    assert shares == pytest.approx(by_every_order(SCORES[name], values, usual), abs=1e-6)
    named = contributions(SCORES[name], dict(zip("abc", values.tolist(), strict=True)), usual)
    assert sum(named.values()) == pytest.approx(SCORES[name](values), abs=1e-9)
    assert (BASE in named) == (SCORES[name](usual) != 0)


def test_a_part_without_influence_adds_nothing() -> None:
    assert shapley(lambda v: float(v[0].exp()), torch.tensor([1.0, 9.0]), torch.zeros(2))[1] == 0


def test_of_many_parts_the_shares_still_add_up_and_are_exact_where_each_part_counts_for_itself() -> None:
    count = explanation.MOST_PARTS + 3
    values, usual, weights = torch.arange(count).double(), torch.ones(count).double(), torch.linspace(-1, 2, count).double()
    shares = shapley(lambda v: float(v @ weights), values, usual)
    assert shares == pytest.approx(((values - usual) * weights).tolist(), abs=1e-9)
    mixed = shapley(lambda v: float(v.max() + v[0] * v[1]), values, usual)
    assert sum(mixed) == pytest.approx(float(values.max()) - 2.0)
    assert mixed == shapley(lambda v: float(v.max() + v[0] * v[1]), values, usual)
    assert values.tolist() == list(range(count))


def test_a_studys_contributions_add_up_to_its_score(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    one = study(100)
    one.x[2:5, 20:32, 20:32] += 0.3
    for weights in ((1.0, 1.0, 1.0), (1.0, 0.0, 0.5)):
        fusion = Fusion(study=weights)
        scores = scoring.judge(one.x, scoring.look(network, one.x), one.foreground, normals, fusion, one.stratum)
        shares = explanation.study_contributions(scores, normals, fusion)
        assert list(shares) == list(scores.parts)
        assert sum(shares.values()) == pytest.approx(scores.study, abs=1e-5)
        assert (shares["extent"] == 0) == (weights[1] == 0)


def test_the_hottest_place_is_the_lesion_and_its_maps_add_up_to_the_fused_one(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    one, fusion = study(100), Fusion((1.0, 2.0, 0.0, 1.0, 0.5))
    one.x[3, 20:28, 30:38] += 0.5
    seen = scoring.look(network, one.x)
    scores = scoring.judge(one.x, seen, one.foreground, normals, fusion, one.stratum)
    first, other = explanation.hottest(one.x, seen, one.foreground, scores, normals, fusion, one.stratum, [3, 0])
    assert (first.index, other.index) == (3, 0)
    assert first.row in range(18, 31)
    assert first.column in range(28, 41)
    for hot in (first, other):
        assert hot.z == pytest.approx(float(scores.z[hot.index, hot.row, hot.column]))
        assert sum(hot.parts.values()) == pytest.approx(hot.z, abs=1e-4)
        assert hot.parts["structure"] == 0


def test_a_slice_of_air_has_no_hot_place(fitted: tuple[Network, scoring.Normals]) -> None:
    network, normals = fitted
    one = study(100)
    one.foreground[5] = False
    seen = scoring.look(network, one.x)
    scores = scoring.judge(one.x, seen, one.foreground, normals, Fusion(), one.stratum)
    (hot,) = explanation.hottest(one.x, seen, one.foreground, scores, normals, Fusion(), one.stratum, [5])
    assert (hot.z, set(hot.parts.values())) == (0, {0})
