"""A head learns from few labels, is judged on patients that it has not seen, and says no more than it knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pacs_node.autoencoder.head import Head, Labels, cross_validated, fit_head
from pacs_node.workbench.metrics import auroc

FEATURES = 12


def labels(*, patients: int = 40, each: int = 1, told: float = 3.0, seed: int = 0) -> Labels:
    """Half of the patients unusual; their embedding differs along one direction by ``told``, each patient has near copies."""
    rng = np.random.default_rng(seed)
    owner = np.repeat(np.arange(patients), each)
    unusual = owner % 2 == 1
    person = rng.normal(0, 1, (patients, FEATURES))[owner]
    embedding = person + 0.01 * rng.normal(0, 1, person.shape)
    embedding[:, 3] += told * unusual
    parts = rng.normal(0, 1, (len(owner), 2))
    return Labels(("peak", "extent"), parts, embedding, unusual, tuple(f"P{number}" for number in owner))


def test_what_can_be_told_is_found_on_patients_that_were_not_seen() -> None:
    known = labels()
    found = cross_validated(known)
    assert np.isfinite(found).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert auroc(found.tolist(), known.unusual.tolist()) > 0.85


def test_near_copies_of_a_patient_do_not_make_chance_look_like_knowledge() -> None:
    values = []
    for seed in range(3):
        known = labels(patients=24, each=4, told=0.0, seed=seed)
        values.append(auroc(cross_validated(known).tolist(), known.unusual.tolist()))
    assert 0.25 < np.mean(values) < 0.7  # split at random, each study would find its copies: nearly 1


def test_a_head_of_hand_made_numbers_says_what_the_formula_says() -> None:
    head = Head(
        np.array(["peak"]), np.array([1.0]), np.array([2.0]), np.zeros(2), np.array([[0.0, 1.0]]), np.array([0.5]), np.array([1.0, -0.5]), np.array([0.25])
    )
    embedding = np.array([[9.0, 1.0], [7.0, 3.0]], dtype=np.float16)
    logit = 1.0 * (5 - 1) / 2 - 0.5 * (2.0 / 0.5) + 0.25
    assert head.probability({"peak": 5.0, "other": 3.0}, embedding) == pytest.approx(1 / (1 + np.exp(-logit)))
    with pytest.raises(KeyError):
        head.probability({"other": 1.0}, embedding)


def test_one_study_is_judged_as_it_was_among_many() -> None:
    known = labels()
    head = fit_head(known)
    together = head.probabilities(known)
    alone = head.probability(dict(zip(known.names, known.parts[7], strict=True)), known.embedding[7:8])
    assert alone == pytest.approx(together[7])
    assert head.probabilities(known)[known.unusual].mean() > 0.7


def test_the_same_labels_give_the_same_head() -> None:
    one, other = fit_head(labels()), fit_head(labels())
    assert np.array_equal(one.weights, other.weights)


def test_both_kinds_count_alike_whatever_their_numbers() -> None:
    known = labels(patients=60)
    few = known.of(np.flatnonzero(~known.unusual | (np.arange(60) < 24)))
    assert few.unusual.mean() < 0.35
    probability = fit_head(few).probabilities(few)
    assert probability[few.unusual].mean() > 0.6


@pytest.mark.parametrize(("unusual", "patients"), [(9, 40), (12, 1)])
def test_too_few_studies_or_patients_of_a_kind_are_refused(unusual: int, patients: int) -> None:
    known = labels()
    chosen = np.concatenate([np.flatnonzero(~known.unusual), np.flatnonzero(known.unusual)[:unusual]])
    few = known.of(chosen)
    if patients == 1:
        few = replace(few, patients=tuple("one" if odd else name for name, odd in zip(few.patients, few.unusual, strict=True)))
    with pytest.raises(ValueError, match="at least 10"):
        fit_head(few)


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    head = fit_head(labels())
    with pytest.raises(ValueError, match="belong together"):
        replace(head, weights=head.weights[:-1])
