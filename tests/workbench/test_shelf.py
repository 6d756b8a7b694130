"""Many studies in little memory, each as it was when it is asked for."""

import numpy as np
import torch

from pacs_node.autoencoder.network import with_neighbours
from pacs_node.autoencoder.normals import Example
from pacs_node.autoencoder.scoring import Stratum
from pacs_node.workbench.shelf import Shelf, shelved


def study(seed: int, slices: int) -> Example:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(slices, 16, 16, generator=generator)
    return Example(x, x > 0.5, Stratum(seed % 2, 2))


def filled() -> tuple[Shelf, list[Example]]:
    studies, shelf = [study(seed, slices) for seed, slices in enumerate((1, 4, 2))], Shelf()
    for number, one in enumerate(studies):
        shelf.add(f"S{number}", one)
    return shelf, studies


def same(one: Example, other: Example) -> bool:
    close = torch.allclose(one.x, other.x, atol=3e-4)
    return close and one.x.dtype == torch.float32 and torch.equal(one.foreground, other.foreground) and one.stratum == other.stratum


def test_studies_come_back_as_they_were_before_and_after_they_are_packed() -> None:
    shelf, studies = filled()
    for _ in range(2):
        assert len(shelf) == len(shelf.studies) == 3
        assert all(same(one, other) for one, other in zip(shelf.studies, studies, strict=True))
        assert all(torch.equal(x, one.x) for x, one in zip(shelf.pictures, shelf.studies, strict=True))
        assert all(torch.equal(foreground, one.foreground) for (_, foreground), one in zip(shelf.pairs, studies, strict=True))
        shelf.slices(1)


def test_the_training_loop_gets_every_slice_in_order_and_no_second_copy() -> None:
    shelf, studies = filled()
    slices = shelf.slices(1)
    assert slices.pixels.shape == (7, 1, 16, 16)
    assert torch.equal(slices.pixels, torch.cat([one.x for one in studies]).half()[:, None])
    assert torch.equal(slices.foreground, torch.cat([one.foreground for one in studies]))
    slices.pixels[1:5] = 0
    assert float(shelf.pictures[1].abs().max()) == 0


def test_neighbours_are_those_of_the_same_study() -> None:
    shelf, studies = filled()
    expected = torch.cat([with_neighbours(one.x, 3).half() for one in studies])
    assert torch.equal(shelf.slices(3).pixels, expected)


def test_a_part_of_the_shelf_shares_its_memory() -> None:
    shelf, studies = filled()
    part = shelf.take([2, 0])
    assert part.names == ["S2", "S0"]
    assert same(part.studies[0], studies[2])
    shelf._kept[2].x.zero_()
    assert float(part.pictures[0].abs().max()) == 0


def test_a_slice_of_the_lazy_sequences_is_lazy_too() -> None:
    shelf, studies = filled()
    assert [len(x) for x in shelf.pictures[1:]] == [4, 2]
    assert same(shelf.studies[::-1][0], studies[2])


def test_six_thousand_pictures_take_three_bytes_a_pixel() -> None:
    x = torch.rand(1, 128, 128)
    shelf = shelved(Example(x, x > 0.5) for _ in range(100))
    slices = shelf.slices(1)
    size = sum(part.element_size() * part.nelement() for part in slices)
    assert size == 100 * 128 * 128 * 3
    kept = {one.x.untyped_storage().data_ptr() for one in shelf._kept}
    assert kept == {slices.pixels.untyped_storage().data_ptr()}
    assert np.isfinite(shelf.pictures[99].numpy()).all()
