"""The training slices that a bundle keeps: few, spread, and the nearest found by the embedding."""

from __future__ import annotations

import math

import pytest
import torch

from pacs_node.autoencoder import reference, scoring
from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.reference import EDGE, Reference, keep, nearest, usual_distance


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(Architecture(64, 3, (8, 16), ("open", "open"))).eval()


def series(count: int, slices: int = 10) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.rand(slices, 64, 64, generator=generator) * (0.5 + study / 2 / count) for study in range(count)]


@pytest.mark.parametrize(("studies", "most", "kept"), [(4, 8, 8), (8, 4, 4), (3, 100, 30), (5, 7, 5), (4, 0, 0), (0, 9, 0)])
def test_no_more_slices_are_kept_than_asked_for_and_no_study_is_forgotten(network: Network, studies: int, most: int, kept: int) -> None:
    found = keep(network, series(studies), most)
    if found is None:
        assert kept == 0
        return
    assert len(found.embedding) == kept
    assert len(set(found.study.tolist())) == min(studies, most)
    assert len(set(zip(found.study.tolist(), found.position.tolist(), strict=True))) == kept
    assert (found.picture.shape[1:], found.picture.dtype, found.embedding.dtype) == ((EDGE, EDGE), torch.uint8, torch.float16)


def test_one_slice_of_many_studies_is_not_always_the_same_one(network: Network) -> None:
    found = keep(network, series(10), 10)
    assert found is not None
    assert len(set(found.position.tolist())) >= 5


def test_what_is_kept_is_what_the_network_sees_in_the_whole_series(network: Network) -> None:
    train = series(2)
    found = keep(network, train, 6)
    assert found is not None
    for row, (study, position) in enumerate(zip(found.study.tolist(), found.position.tolist(), strict=True)):
        seen = scoring.look(network, train[study])
        assert torch.allclose(found.embedding[row].float(), seen.embedding[position], atol=1e-2, rtol=1e-2)
        assert (found.picture[row].float() / 255 - train[study][position]).abs().max() < 0.01


def test_the_nearest_slices_are_of_different_studies_and_the_very_slice_is_at_no_distance() -> None:
    embedding = torch.tensor([[0.0, 0.0], [0.1, 0.0], [1.0, 0.0], [9.0, 0.0]]).half()
    kept = Reference(embedding, torch.zeros(4, EDGE, EDGE, dtype=torch.uint8), torch.tensor([0, 0, 1, 2]), torch.arange(4))
    (found,) = nearest(torch.zeros(1, 2), kept, torch.eye(2), count=2)
    assert [one.row for one in found] == [0, 2]
    assert [one.distance for one in found] == pytest.approx([0, 1 / 2**0.5], abs=1e-4)
    assert usual_distance(kept, torch.eye(2)) == pytest.approx(0.9 / 2**0.5, abs=1e-3)  # of 1.0, 0.9, 0.9 and 8.0 the lower median
    assert len(nearest(torch.zeros(1, 2), kept, torch.eye(2), count=9)[0]) == 3


def test_with_one_study_nobody_knows_what_is_near() -> None:
    kept = Reference(torch.zeros(2, 2).half(), torch.zeros(2, EDGE, EDGE, dtype=torch.uint8), torch.zeros(2), torch.arange(2))
    assert math.isnan(usual_distance(kept, torch.eye(2)))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="other shapes"):
        Reference(torch.zeros(2, 2), torch.zeros(2, 32, 32), torch.zeros(2), torch.zeros(2))
    assert reference.EDGE == 64
