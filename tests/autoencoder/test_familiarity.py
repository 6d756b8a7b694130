"""The learnt gate's arithmetic: what is usual, how far something is from it, and how few usual studies it costs."""

import math
from dataclasses import replace

import pytest
import torch

from pacs_node.autoencoder.familiarity import (
    LEAST_STUDIES,
    Familiarity,
    Portrait,
    contributions,
    distance,
    fit_familiarity,
    refusal_limit,
    standard,
)

SIZE = 12
LEAST = torch.full((SIZE,), 1e-3)


def portraits(count: int, *, seed: int = 0, synthetic: bool = True, strata: int = 1) -> list[Portrait]:
    """Correlated Gaussian numbers; a focal finding moves the last of them only."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(SIZE) + 0.3 * torch.randn(SIZE, SIZE, generator=torch.Generator().manual_seed(99))
    made = []
    for index in range(count):
        numbers = mixing @ torch.randn(SIZE, generator=generator) + 10.0 * (index % strata)
        change = torch.zeros(2, SIZE)
        change[:, -1] = 20 * torch.randn(2, generator=generator)
        made.append(Portrait(numbers, numbers + change, index % strata, strata, synthetic))
    return made


@pytest.fixture(scope="module")
def fitted() -> Familiarity:
    return fit_familiarity(portraits(300), LEAST)


def test_at_most_about_one_percent_of_further_usual_studies_lie_beyond_the_limit(fitted: Familiarity) -> None:
    further = [distance(one.numbers, 0, fitted) for one in portraits(2000, seed=7)]
    beyond = sum(value > float(fitted.limit) for value in further)
    assert beyond <= 0.02 * len(further)
    assert 0.3 < sorted(further)[1000] < 1.5


def test_what_is_foreign_lies_beyond_the_limit(fitted: Familiarity) -> None:
    foreign = portraits(1, seed=8)[0].numbers + torch.tensor([0.0] * 3 + [12.0] + [0.0] * 8)
    assert distance(foreign, 0, fitted) > float(fitted.limit)


def test_a_combination_that_never_occurs_is_foreign_although_each_number_alone_is_usual() -> None:
    generator = torch.Generator().manual_seed(1)
    studies = []
    for _ in range(200):
        one = torch.randn(1, generator=generator)
        numbers = torch.cat([one, one + 0.05 * torch.randn(1, generator=generator)])
        studies.append(Portrait(numbers, numbers[None]))
    fitted = fit_familiarity(studies, torch.full((2,), 1e-3))
    assert distance(torch.tensor([1.5, 1.5]), 0, fitted) < float(fitted.limit) < distance(torch.tensor([1.5, -1.5]), 0, fitted)


def test_what_a_focal_finding_changes_is_not_held_against_a_study(fitted: Familiarity) -> None:
    with_findings = [row for one in portraits(200, seed=9) for row in one.spoilt]
    refused = sum(distance(row, 0, fitted) > float(fitted.limit) for row in with_findings)
    assert refused <= 0.08 * len(with_findings)
    insensitive = fit_familiarity([replace(one, spoilt=one.numbers[None]) for one in portraits(300)], LEAST)
    assert sum(distance(row, 0, insensitive) > float(insensitive.limit) for row in with_findings) > 0.5 * len(with_findings)


def test_each_stratum_has_a_centre_of_its_own_and_a_rare_one_that_of_all() -> None:
    apart = fit_familiarity(portraits(120, strata=3), LEAST)
    assert distance(torch.full((SIZE,), 20.0), 2, apart) < float(apart.limit) < distance(torch.full((SIZE,), 20.0), 0, apart)
    rare = [replace(one, stratum=0 if index else 2) for index, one in enumerate(portraits(60, strata=1))]
    fitted = fit_familiarity([replace(one, strata=3) for one in rare], LEAST)
    assert torch.equal(fitted.centre[2], fitted.centre[1])


def test_patients_decide_where_there_are_enough_of_them_and_phantoms_where_not() -> None:
    patients, phantoms = portraits(LEAST_STUDIES, synthetic=False), portraits(60)
    assert fit_familiarity([*patients, *phantoms], LEAST).synthetic is False
    assert fit_familiarity([*patients[1:], *phantoms], LEAST).synthetic is True
    assert fit_familiarity([*patients[1:], *phantoms], LEAST).studies == 60
    with pytest.raises(ValueError, match="too few to say what is usual"):
        fit_familiarity(portraits(LEAST_STUDIES - 1), LEAST)


def test_what_could_not_be_measured_counts_as_usual(fitted: Familiarity) -> None:
    unknown = torch.full((SIZE,), torch.nan)
    assert distance(unknown, 0, fitted) == 0
    assert standard(torch.full((SIZE,), torch.inf), 0, fitted).abs().max() == 30


@pytest.mark.parametrize(("count", "rank"), [(99, 99), (199, 198), (299, 297)])
def test_the_limit_is_the_order_statistic_of_conformal_prediction(count: int, rank: int) -> None:
    distances = [float(value) for value in range(1, count + 1)]
    assert refusal_limit(distances, 0.01) == rank == math.ceil((count + 1) * 0.99)


def test_with_fewer_studies_than_the_order_statistic_needs_the_limit_is_wider_than_all_of_them() -> None:
    distances = [0.8 + 0.01 * value for value in range(40)]
    assert refusal_limit(distances, 0.01) > 1.2 * max(distances)


def test_contributions_add_up_to_the_squared_distance(fitted: Familiarity) -> None:
    numbers = portraits(1, seed=3)[0].numbers + 2.0
    names = [f"group {index // 4}" for index in range(SIZE)]
    found = contributions(numbers, 0, fitted, names)
    assert list(found) == ["group 0", "group 1", "group 2"]
    assert sum(share for share, _ in found.values()) == pytest.approx(distance(numbers, 0, fitted) ** 2, rel=1e-4)


def test_tensors_that_do_not_fit_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit each other"):
        Familiarity(torch.zeros(1, 3), torch.ones(1, 3), torch.eye(4), torch.ones(1), torch.ones(2))
