"""The training loop: it learns, repeats, resumes and stops."""

from pathlib import Path

import pytest
import torch

from pacs_node.autoencoder.fitting import Schedule, Slices, Step, fit
from pacs_node.autoencoder.network import Architecture, Network

ARCHITECTURE = Architecture(32, 1, (8, 16), ("open", "gauss"))


def discs(count: int, seed: int) -> Slices:
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    radius = 8 + 4 * torch.rand(count, 1, 1, generator=generator)
    inside = ((rows - 16) ** 2 + (columns - 16) ** 2)[None] < radius**2
    return Slices(0.6 * inside.float()[:, None], inside)


def network() -> Network:
    torch.manual_seed(5)
    return Network(ARCHITECTURE)


def weights(trained: Network) -> torch.Tensor:
    return torch.cat([value.flatten() for value in trained.state_dict().values()])


class Interrupted(Exception):
    pass


def stop_in_epoch(epoch: int):
    def progress(step: Step) -> None:
        if step.epoch == epoch:
            raise Interrupted

    return progress


def test_training_lowers_the_held_out_loss_and_leaves_the_network_ready_to_use() -> None:
    trained = network()
    history = fit(trained, discs(48, 1), discs(16, 2), Schedule(epochs=6, batch=16, rate=5e-3))
    assert history.held_out[history.best_epoch] == min(history.held_out) < history.held_out[0]
    assert not trained.training


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    results = []
    for seed in (1, 1, 2):
        trained = network()
        fit(trained, discs(24, 1), discs(8, 2), Schedule(epochs=2, batch=8, seed=seed))
        results.append(weights(trained))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_an_interrupted_run_resumes_and_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    schedule = Schedule(epochs=4, batch=8)
    whole, broken, resumed = network(), network(), network()
    fit(whole, discs(24, 1), discs(8, 2), schedule)
    checkpoint = tmp_path / "part"
    with pytest.raises(Interrupted):
        fit(broken, discs(24, 1), discs(8, 2), schedule, checkpoint=checkpoint, progress=stop_in_epoch(2))
    epochs: list[int] = []
    fit(resumed, discs(24, 1), discs(8, 2), schedule, checkpoint=checkpoint, progress=lambda step: epochs.append(step.epoch))
    assert min(epochs) == 2
    assert torch.equal(weights(whole), weights(resumed))


def test_a_checkpoint_of_another_run_is_ignored(tmp_path: Path) -> None:
    checkpoint = tmp_path / "part"
    fit(network(), discs(16, 1), discs(8, 2), Schedule(epochs=2, batch=8), checkpoint=checkpoint)
    epochs: list[int] = []
    fit(network(), discs(24, 1), discs(8, 2), Schedule(epochs=2, batch=8), checkpoint=checkpoint, progress=lambda step: epochs.append(step.epoch))
    assert min(epochs) == 0


def test_training_stops_when_held_out_normals_get_no_better() -> None:
    history = fit(network(), discs(16, 1), discs(8, 2), Schedule(epochs=40, batch=8, rate=1e-9, patience=2))
    assert len(history.held_out) < 40


def test_training_leaves_the_global_random_numbers_as_they_were() -> None:
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    fit(network_without_seed(), discs(8, 1), discs(8, 2), Schedule(epochs=1, batch=8))
    assert torch.equal(torch.rand(3), expected)


def network_without_seed() -> Network:
    with torch.random.fork_rng():
        return Network(ARCHITECTURE)


def test_training_without_slices_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        fit(network(), Slices(torch.zeros(0, 1, 32, 32), torch.zeros(0, 32, 32, dtype=torch.bool)), discs(1, 1), Schedule())
