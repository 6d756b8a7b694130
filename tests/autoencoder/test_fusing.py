"""The rules that make one number of the study's parts, each against the plain formula."""

import math
from statistics import NormalDist

import pytest
import torch

from pacs_node.autoencoder.fusing import FUSIONS, largest, tail, weighted

Z, WEIGHTS = torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1.0, 2.0, 0.0])


def test_the_weighted_mean() -> None:
    assert float(weighted(Z, WEIGHTS)) == pytest.approx((2.0 - 2.0) / 3)


def test_the_tail_is_the_mean_of_minus_the_logarithm_of_p() -> None:
    p = [1 - NormalDist().cdf(z) for z in (2.0, -1.0)]
    assert float(tail(Z, WEIGHTS)) == pytest.approx(-(math.log(p[0]) + 2 * math.log(p[1])) / 3, rel=1e-5)
    assert float(tail(torch.tensor([12.0]), torch.tensor([1.0]))) > float(tail(torch.tensor([11.0]), torch.tensor([1.0])))


def test_the_largest_is_among_those_with_a_weight() -> None:
    assert float(largest(torch.tensor([1.0, 0.5, 9.0]), WEIGHTS)) == 1.0


@pytest.mark.parametrize("name", FUSIONS)
def test_every_rule_rises_with_every_part_and_ignores_one_without_a_weight(name: str) -> None:
    rule, start = FUSIONS[name], torch.tensor([0.0, 0.0, 0.0])
    up, elsewhere = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 9.0])
    assert rule(up, WEIGHTS) > rule(start, WEIGHTS)
    assert rule(elsewhere, WEIGHTS) == rule(start, WEIGHTS)


def test_a_part_below_the_usual_takes_little_from_the_tail_but_much_from_the_mean() -> None:
    both, one = torch.tensor([3.0, -3.0]), torch.tensor([3.0, 0.0])
    equal = torch.ones(2)
    assert float(weighted(both, equal)) == 0
    assert float(tail(both, equal)) > 0.9 * float(tail(one, equal)) - 0.1
