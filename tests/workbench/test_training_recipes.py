"""Recipes and devices end to end: what model.yaml asks for is trained, repeated after an interruption, and loads."""

from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.cli import models
from pacs_node.errors import InputError
from pacs_node.workbench import training
from tests.analysis.conftest import MODEL_YAML

SMALL = MODEL_YAML.replace("train: 8, held_out: 3, calibrate: 7, slices: 16,", "train: 6, held_out: 2, calibrate: 1, slices: 5,")
EVERYTHING = SMALL.replace("gates: [open, open]}", "gates: [bounded, gauss], inputs: 3}").replace(
    "  epochs: 2\n",
    """\
  epochs: 2
  corruptions: [coarse_noise]
  penalties: {contractive: 0.01}
  elbo: {beta: 0.5, free_bits: 0.01, warm_up: 0.5}
  adversarial: {loss: least_squares, channels: 8}
  precision: auto
""",
)


def bundle(tmp_path: Path, text: str) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(text)
    return folder


class Interrupted(Exception):
    pass


def stop_in_the_second_epoch(what: str, fraction: float) -> None:
    if what.startswith("training: epoch 2"):
        raise Interrupted


@pytest.mark.slow
def test_a_recipe_of_everything_trains_resumes_to_the_same_bytes_and_loads(tmp_path: Path) -> None:
    whole, broken = (bundle(tmp_path / name, EVERYTHING) for name in ("whole", "broken"))
    training.train(whole, device="cpu")
    with pytest.raises(Interrupted):
        training.train(broken, report=stop_in_the_second_epoch, device="cpu")
    training.train(broken, device="cpu")
    assert (whole / "weights.safetensors").read_bytes() == (broken / "weights.safetensors").read_bytes()
    loaded = bundles.load(whole)
    assert loaded.manifest.architecture.gates == ("bounded", "gauss")
    assert not [name for name in loaded.network.state_dict() if "discriminator" in name]


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="choose cpu or auto"):
        training.train(bundle(tmp_path, MODEL_YAML), [tmp_path / "nowhere"], device="cuda")


def test_the_command_passes_the_device_on(tmp_path: Path) -> None:
    app = typer.Typer()
    models.register(app)
    result = CliRunner().invoke(app, ["train", "--bundle", str(bundle(tmp_path, MODEL_YAML)), "--device", "abacus"])
    assert result.exit_code != 0
    assert "abacus" in str(result.exception)
    assert "auto, cpu, cuda" in str(result.exception)


def test_a_rate_beyond_all_bounds_is_refused_in_one_sentence_that_names_the_bundle(tmp_path: Path) -> None:
    folder = bundle(tmp_path, SMALL.replace("  epochs: 2\n", "  epochs: 1\n  rate: 1.0e+30\n"))
    with pytest.raises(InputError, match=r"tiny: the loss is no finite number after the first epoch: lower the recipe's rate"):
        training.train(folder, device="cpu")
    assert not (folder / "weights.safetensors").exists()
