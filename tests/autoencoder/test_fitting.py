"""The training loop: it learns, repeats, resumes and stops."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pacs_node.autoencoder.adversarial import Adversarial
from pacs_node.autoencoder.corruption import augment, corrupt
from pacs_node.autoencoder.fitting import Diverged, Schedule, Slices, Step, fit
from pacs_node.autoencoder.losses import training_loss, weight_of
from pacs_node.autoencoder.network import Architecture, Network
from pacs_node.autoencoder.objective import Elbo, Objective
from pacs_node.autoencoder.precision import has_bfloat16

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


def test_the_default_loop_is_adamw_on_the_likelihood_of_spoilt_slices_written_out() -> None:
    trained, expected, schedule = network(), network(), Schedule(epochs=1, batch=8, seed=3)
    train = discs(24, 1)
    fit(trained, train, discs(8, 2), schedule)
    optimiser = torch.optim.AdamW(expected.parameters(), lr=2e-3, weight_decay=1e-4)
    torch.manual_seed(3 * 100_003)
    generator = torch.Generator().manual_seed(3 * 100_003)
    expected.train()
    for number, chosen in enumerate(torch.split(torch.randperm(24, generator=generator), 8)):
        done = number / 3
        rise = 0.1 + 0.9 * done / 0.1 if done < 0.1 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        optimiser.param_groups[0]["lr"] = 2e-3 * rise
        moved = augment(torch.cat([train.pixels[chosen], train.foreground[chosen, None].float()], 1), generator, schedule.augmentation)
        clean, foreground = moved[:, :1], moved[:, 1:] > 0.5
        output = expected(corrupt(clean, generator, ("coarse_noise", "smooth_blobs", "foreign_patches")))
        loss = training_loss(clean, output.mean, output.log_variance, weight_of(foreground)) + 0.01 * output.penalty
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(expected.parameters(), 1.0)
        optimiser.step()
    assert torch.equal(weights(trained), weights(expected))


CLASSICAL = {
    "plain": (("none", "open"), Schedule(corruptions=())),
    "sparse L1": (("none", "sparse"), Schedule(corruptions=(), objective=Objective(penalties=(("sparse", 0.1),)))),
    "sparse KL": (("none", "sparse_kl"), Schedule(corruptions=(), objective=Objective(penalties=(("sparse_kl", 0.1),)))),
    "denoising": (("open", "open"), Schedule()),
    "contractive": (("none", "open"), Schedule(corruptions=(), objective=Objective(penalties=(("contractive", 0.5),)))),
    "variational": (("none", "gauss"), Schedule(corruptions=(), objective=Objective(elbo=Elbo(warm_up=0.5, free_bits=0.01)))),
    "bounded": (("bounded", "bounded"), Schedule()),
    "adversarial hinge": (("open", "open"), Schedule(adversarial=Adversarial(channels=8))),
    "adversarial squares": (("open", "open"), Schedule(adversarial=Adversarial(loss="least_squares", channels=8))),
    "quick": (("bounded", "gauss"), Schedule(precision="auto")),
}


def classical(kind: str, **changes: object) -> tuple[Network, Schedule]:
    gates, schedule = CLASSICAL[kind]
    torch.manual_seed(5)
    return Network(Architecture(32, 3, (8, 16), gates)), replace(schedule, batch=8, **changes)  # type: ignore[arg-type]


def three(slices: Slices) -> Slices:
    """The same discs between their neighbours."""
    return Slices(slices.pixels.repeat(1, 3, 1, 1), slices.foreground)


@pytest.mark.parametrize("kind", CLASSICAL)
def test_every_classical_autoencoder_learns_the_discs(kind: str) -> None:
    trained, schedule = classical(kind, epochs=5, rate=5e-3)
    history = fit(trained, three(discs(24, 1)), three(discs(8, 2)), schedule)
    assert all(math.isfinite(loss) for loss in history.held_out)
    assert history.held_out[history.best_epoch] < history.held_out[0] - 0.01
    assert torch.isfinite(weights(trained)).all()


@pytest.mark.slow
def test_free_bits_keep_a_latent_that_would_collapse_to_its_prior() -> None:
    nats = {}
    for free_bits in (0.0, 0.1):
        trained, schedule = classical("variational", epochs=6, rate=5e-3, objective=Objective(elbo=Elbo(beta=30.0, free_bits=free_bits)))
        fit(trained, three(discs(24, 1)), three(discs(8, 2)), schedule)
        with torch.no_grad():
            nats[free_bits] = float(trained(three(discs(8, 2)).pixels).prices[-1])
    assert nats[0.0] < 0.01
    assert nats[0.1] > 0.04


@pytest.mark.parametrize("kind", ["denoising", "contractive", "variational", "adversarial hinge", "quick"])
def test_an_interrupted_run_resumes_and_ends_with_the_weights_of_one_that_was_not(kind: str, tmp_path: Path) -> None:
    runs = [classical(kind, epochs=3) for _ in range(3)]
    (whole, schedule), (broken, _), (resumed, _) = runs
    train, held_out = three(discs(24, 1)), three(discs(8, 2))
    fit(whole, train, held_out, schedule)
    checkpoint = tmp_path / "part"
    with pytest.raises(Interrupted):
        fit(broken, train, held_out, schedule, checkpoint=checkpoint, progress=stop_in_epoch(1))
    epochs: list[int] = []
    fit(resumed, train, held_out, schedule, checkpoint=checkpoint, progress=lambda step: epochs.append(step.epoch))
    assert min(epochs) == 1
    assert torch.equal(weights(whole), weights(resumed))


def test_a_run_that_was_interrupted_after_its_last_epoch_ends_with_the_same_weights(tmp_path: Path) -> None:
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        trained, epochs = Network(Architecture(32, 1, (8, 16), ("bounded", "gauss"), norm="batch")), []
        fit(
            trained,
            discs(16, 1),
            discs(8, 2),
            Schedule(epochs=1, batch=8),
            checkpoint=tmp_path / "part",
            progress=lambda step, all=epochs: all.append(step.epoch),
        )
        results.append((weights(trained), epochs))
    assert [len(epochs) for _, epochs in results] == [2, 0]
    assert torch.equal(results[0][0], results[1][0])


def test_the_checkpoint_of_an_adversarial_run_holds_both_sides_and_their_optimisers(tmp_path: Path) -> None:
    trained, schedule = classical("adversarial hinge", epochs=2)
    fit(trained, three(discs(24, 1)), three(discs(8, 2)), schedule, checkpoint=tmp_path / "part")
    kept = torch.load(tmp_path / "part", weights_only=True)
    assert set(kept["adversary"]) == {"discriminator", "optimiser"}
    assert {float(state["step"]) for state in kept["adversary"]["optimiser"]["state"].values()} == {6.0}  # two epochs of three batches
    assert kept["optimiser"]["state"]


def test_a_discriminator_changes_what_is_learnt_and_not_what_epochs_are_compared_by() -> None:
    histories, results = [], []
    for weight in (None, 1e-9, 0.5):
        trained, schedule = classical("denoising", epochs=2, adversarial=weight and Adversarial(weight=weight, channels=8))
        histories.append(fit(trained, three(discs(24, 1)), three(discs(8, 2)), schedule).held_out)
        results.append(weights(trained))
    assert histories[1] == pytest.approx(histories[0], rel=1e-4)  # a verdict that hardly counts hardly changes anything, its value included
    assert not torch.allclose(results[2], results[0], atol=1e-3)


@pytest.mark.skipif(not has_bfloat16(torch.device("cpu")), reason="this processor has no bfloat16 instructions")
def test_mixed_precision_trains_as_well_and_keeps_its_weights_in_float32() -> None:
    results = []
    for precision in ("float32", "bfloat16"):
        trained = network()
        results.append(fit(trained, discs(48, 1), discs(16, 2), Schedule(epochs=4, batch=16, rate=5e-3, precision=precision)).held_out)
        assert all(value.dtype is torch.float32 for value in trained.state_dict().values())
    assert results[0] != results[1]
    assert results[1][-1] == pytest.approx(results[0][-1], abs=0.1 * (results[0][0] - results[0][-1]) + 0.005)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("kind", CLASSICAL)
def test_a_gpu_learns_what_the_processor_learns_and_repeats_itself(kind: str) -> None:
    results: list[torch.Tensor] = []
    for device in ("cpu", "cuda", "cuda"):
        trained, schedule = classical(kind, epochs=1, precision="float32")
        fit(trained, three(discs(24, 1)), three(discs(8, 2)), schedule, device=device)
        assert next(trained.parameters()).device.type == device
        results.append(weights(trained.cpu()))
    assert torch.equal(results[1], results[2])
    if kind not in ("bounded", "quick", "variational", "contractive"):  # those draw noise, of which a GPU has its own
        assert torch.allclose(results[0], results[1], atol=2e-3)


def test_a_checkpoint_of_another_run_is_ignored(tmp_path: Path) -> None:
    checkpoint = tmp_path / "part"
    fit(network(), discs(16, 1), discs(8, 2), Schedule(epochs=2, batch=8), checkpoint=checkpoint)
    epochs: list[int] = []
    fit(network(), discs(24, 1), discs(8, 2), Schedule(epochs=2, batch=8), checkpoint=checkpoint, progress=lambda step: epochs.append(step.epoch))
    assert min(epochs) == 0


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: b"no checkpoint", lambda whole: whole[: len(whole) // 2]])
def test_a_damaged_checkpoint_is_ignored(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    checkpoint, schedule, results = tmp_path / "part", Schedule(epochs=2, batch=8), []
    for _ in range(2):
        trained = network()
        fit(trained, discs(16, 1), discs(8, 2), schedule, checkpoint=checkpoint)
        results.append(weights(trained))
        checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert torch.equal(results[0], results[1])


def test_a_run_that_diverges_at_once_is_refused_and_one_that_does_so_later_keeps_its_best(tmp_path: Path) -> None:
    bad = discs(16, 1)
    bad.pixels[3] = math.nan
    with pytest.raises(Diverged, match="lower the recipe's rate"):
        fit(network(), bad, discs(8, 2), Schedule(epochs=2, batch=8), checkpoint=tmp_path / "part")
    assert not (tmp_path / "part").exists()
    train, trained = discs(16, 1), network()

    def spoil_from_the_third_epoch(step: Step) -> None:
        if step.epoch == 2:
            train.pixels.fill_(math.nan)

    history = fit(trained, train, discs(8, 2), Schedule(epochs=6, batch=8), progress=spoil_from_the_third_epoch)
    assert len(history.held_out) == 2
    assert torch.isfinite(weights(trained)).all()


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
