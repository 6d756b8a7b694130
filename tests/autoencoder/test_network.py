"""The network: shapes, determinism, what each gate lets through."""

import pytest
import torch

from pacs_node.autoencoder.gates import GATES
from pacs_node.autoencoder.network import Architecture, Detector, Network, unshuffled, with_neighbours

SMALL = {"pixels": 32, "channels": (8, 16), "gates": ("open", "open")}


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("gate", sorted(GATES))
def test_every_gate_gives_a_reconstruction_of_the_middle_slice_and_an_embedding(gate: str, inputs: int) -> None:
    network = Network(Architecture(32, inputs, (8, 16), (gate, gate)))
    output = network(torch.rand(2, inputs, 32, 32))
    assert output.mean.shape == output.log_variance.shape == (2, 1, 32, 32)
    assert output.embedding.shape == (2, network.architecture.features)
    assert torch.isfinite(output.mean).all()
    assert output.penalty >= 0


@pytest.mark.parametrize("gate", sorted(GATES))
def test_evaluation_draws_no_random_numbers(gate: str) -> None:
    network = Network(Architecture(32, 1, (8, 16), (gate, gate))).eval()
    x = torch.rand(1, 1, 32, 32)
    assert torch.equal(network(x).mean, network(x).mean)


def test_a_closed_skip_hides_the_input_and_an_open_one_shows_it() -> None:
    torch.manual_seed(0)
    seen = {}
    for gate in ("none", "open"):
        network = Network(Architecture(32, 1, (8, 16), (gate, "none"))).eval()
        seen[gate] = (network(torch.zeros(1, 1, 32, 32)).mean - network(torch.ones(1, 1, 32, 32)).mean).abs().max()
    assert seen["none"] == 0
    assert seen["open"] > 0


@pytest.mark.parametrize(("gate", "priced"), [("none", False), ("open", False), ("bounded", False), ("sparse", True), ("gauss", True)])
def test_sparse_and_gaussian_gates_ask_a_price(gate: str, priced: bool) -> None:
    _, penalty = GATES[gate](8)(torch.randn(2, 8, 4, 4))
    assert bool(penalty > 0) is priced


def test_a_bounded_gate_passes_no_more_than_its_range() -> None:
    passed, _ = GATES["bounded"](8).eval()(torch.randn(2, 8, 4, 4) * 100)
    assert passed.abs().max() <= 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"gates": ("open",)}, "one entry a level"),
        ({"gates": ("open", "magic")}, "unknown gate 'magic'"),
        ({"channels": (8, 12)}, "multiples of 8"),
        ({"pixels": 36}, "multiple of 8"),
        ({"inputs": 2}, "odd"),
        ({"norm": "none"}, "unknown norm 'none'"),
    ],
)
def test_contradictory_architectures_are_refused_with_the_reason(change: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Architecture(**{**SMALL, **change})


def test_neighbours_are_the_slices_before_and_after_and_ends_repeat() -> None:
    stack = torch.arange(4.0)[:, None, None].expand(4, 2, 2)
    assert with_neighbours(stack, 3)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert with_neighbours(stack, 1)[:, :, 0, 0].tolist() == [[0], [1], [2], [3]]


def test_settled_statistics_are_folded_into_the_weights_and_say_the_same() -> None:
    detector = Detector(Architecture(32, 3, (8, 16), ("open", "open"), contrast=True, norm="batch"))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        detector(torch.rand(4, 3, 32, 32, generator=generator))  # statistics that are neither 0 nor 1
    convolution, norm, activation = block = detector.eval().encoder[0][0]
    x = torch.randn(2, convolution.in_channels, 8, 8, generator=generator)
    assert torch.allclose(block(x), activation(norm(convolution(x))), atol=1e-5)


def test_space_becomes_depth_as_in_torch_with_the_channels_last_in_memory() -> None:
    x = torch.rand(2, 3, 16, 8)
    found = unshuffled(x)
    assert torch.equal(found, torch.nn.functional.pixel_unshuffle(x, 4))
    assert found.is_contiguous(memory_format=torch.channels_last)
