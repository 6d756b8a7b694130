"""What a detector is not taught as usual: the unusual of training studies, and little else."""

import torch

from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.normals import Example
from pacs_node.autoencoder.scoring import Fusion
from pacs_node.autoencoder.trimming import usual

EDGE = 64
FUSION = Fusion(pixel=(0.0, 0.0, 0.0, 0.0, 1.0, 8.0))  # the last weighs a detector that is yet to be trained


def study(seed: int) -> Example:
    """A soft disc with noise."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(EDGE), torch.arange(EDGE), indexing="ij")
    inside = (((rows - 32) ** 2 + (columns - 32) ** 2) < 24**2).expand(4, EDGE, EDGE).clone()
    return Example((0.5 + 0.03 * torch.randn(4, EDGE, EDGE, generator=generator)) * inside, inside)


def network() -> Network:
    """One whose mean is the disc, whatever it sees."""
    made = Network(Architecture(EDGE, 1, (8, 16), ("open", "open"))).eval()
    with torch.no_grad():
        for value in made.parameters():
            value.zero_()
        assert made.head.bias is not None
        made.head.bias[:16] = 0.5
    return made


def test_a_finding_in_a_training_study_is_left_out_and_the_rest_of_all_studies_stays() -> None:
    train, held_out = [study(seed) for seed in range(6)], [study(100 + seed) for seed in range(8)]
    train[2].x[1, 24:34, 28:38] += 0.3
    found = usual(network(), train, held_out, FUSION, 1, 0.001)
    assert not found[2][1, 24:34, 28:38].any()
    others = [inside for index, inside in enumerate(found) if index != 2]
    assert min(float(inside[one.foreground].float().mean()) for inside, one in zip(others, [*train[:2], *train[3:]], strict=True)) > 0.9
    assert all(bool((inside <= one.foreground).all()) for inside, one in zip(found, train, strict=True))


def test_the_larger_the_share_the_more_is_left_out() -> None:
    train, held_out = [study(seed) for seed in range(3)], [study(100 + seed) for seed in range(4)]
    kept = [sum(int(inside.sum()) for inside in usual(network(), train, held_out, FUSION, 1, share)) for share in (0.001, 0.01, 0.1)]
    assert kept[0] > kept[1] > kept[2]
