"""The keys `network` and `recipe` of model.yaml: every classical autoencoder is a choice, and contradictions are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.autoencoder.change import Change
from pacs_node.autoencoder.fitting import Schedule
from pacs_node.autoencoder.network import SIZES
from pacs_node.autoencoder.objective import Elbo, Objective
from pacs_node.config import shipped
from pacs_node.errors import BundleError


def manifest(network: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None) -> Manifest:
    content = yaml.safe_load((shipped("models") / "ct-head" / "model.yaml").read_text(encoding="utf-8"))
    content["network"] = {} if network is None else network
    content["recipe"] = {} if recipe is None else recipe
    return Manifest.model_validate(content)


def test_a_recipe_that_names_nothing_new_trains_as_it_did() -> None:
    assert manifest().recipe.schedule == Schedule()
    assert manifest().recipe.schedule.corruptions == ("coarse_noise", "smooth_blobs", "foreign_patches")
    assert Schedule().objective == Objective(penalty=0.01)
    assert (Schedule().precision, Schedule().adversarial) == ("float32", None)


@pytest.mark.parametrize("name", ["ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"])
def test_the_shipped_bundles_are_denoising_autoencoders(name: str) -> None:
    shown = read_manifest(shipped("models") / name)
    assert set(shown.architecture.gates) == {"open"}
    assert shown.recipe.schedule.objective == Objective()


CLASSICAL = {
    "plain": ({"gates": ["none", "none", "open"]}, {"corruptions": []}),
    "sparse L1": ({"gates": ["none", "none", "sparse"]}, {"corruptions": [], "penalties": {"sparse": 0.1}}),
    "sparse KL": ({"gates": ["none", "none", "sparse_kl"]}, {"corruptions": [], "penalties": {"sparse_kl": 0.1}}),
    "denoising": ({}, {}),
    "contractive": ({"gates": ["none", "none", "open"]}, {"corruptions": [], "penalties": {"contractive": 0.1}}),
    "variational": ({"gates": ["none", "none", "gauss"]}, {"corruptions": [], "elbo": {"beta": 1.0, "warm_up": 0.3}}),
    "bounded": ({"gates": ["bounded", "bounded", "bounded"]}, {}),
    "adversarial": ({}, {"adversarial": {"loss": "least_squares"}}),
    "2.5-D": ({"inputs": 3, "size": "small"}, {"precision": "auto"}),
}


@pytest.mark.parametrize("kind", CLASSICAL)
def test_every_classical_autoencoder_is_a_choice_of_model_yaml(kind: str) -> None:
    network, recipe = CLASSICAL[kind]
    shown = manifest(network, recipe)
    assert shown.architecture.gates == tuple(network.get("gates", ["open"] * 3))
    assert shown.recipe.schedule.corruptions == tuple(recipe.get("corruptions", Schedule().corruptions))
    for name, weight in recipe.get("penalties", {}).items():
        assert shown.recipe.objective.weight(name) == weight
    assert (shown.recipe.objective.elbo == Elbo(1.0, 0.0, 0.3)) is (kind == "variational")
    assert (shown.recipe.schedule.adversarial is not None) is (kind == "adversarial")


@pytest.mark.parametrize("size", sorted(SIZES))
def test_a_size_stands_for_its_channels_and_open_gates(size: str) -> None:
    architecture = manifest({"size": size}).architecture
    assert architecture.channels == SIZES[size]
    assert set(architecture.gates) == {"open"}
    gates = ["none"] * (len(SIZES[size]) - 1) + ["gauss"]
    assert manifest({"size": size, "gates": gates}).architecture.gates == tuple(gates)


@pytest.mark.parametrize(
    ("network", "recipe", "word"),
    [
        ({"size": "small", "channels": [8, 16]}, {}, "size stands for channels"),
        ({"size": "huge"}, {}, "'small' or 'large'"),
        ({"size": "large", "gates": ["open", "open"]}, {}, "one entry a level"),
        ({}, {"penalties": {"magic": 1}}, "unknown penalty 'magic': allowed are sparse, sparse_kl, gauss, contractive"),
        ({}, {"penalties": {"sparse": 1}}, "holds no sparse gate"),
        ({}, {"elbo": {}}, "holds no gauss gate"),
        ({"gates": ["none", "none", "gauss"]}, {"elbo": {}, "penalties": {"gauss": 1}}, "not both"),
        ({}, {"penalties": {"contractive": -1}}, "greater than or equal to 0"),
        ({}, {"adversarial": {"loss": "chess"}}, "'hinge' or 'least_squares'"),
        ({}, {"precision": "half"}, "'float32', 'bfloat16' or 'auto'"),
        ({}, {"corruptions": ["rain"]}, "unknown 'rain'"),
    ],
)
def test_contradictions_are_named(network: dict[str, Any], recipe: dict[str, Any], word: str, tmp_path: Path) -> None:
    content = yaml.safe_load((shipped("models") / "ct-head" / "model.yaml").read_text(encoding="utf-8"))
    (tmp_path / "model.yaml").write_text(yaml.safe_dump({**content, "network": network, "recipe": recipe}), encoding="utf-8")
    with pytest.raises(BundleError, match=word) as raised:
        read_manifest(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("network", "recipe", "word"),
    [
        ({"change": True}, {}, "belong together"),
        ({}, {"change": {}}, "belong together"),
        ({"change": True}, {"change": {"crop": 40}}, "multiple of 16"),
    ],
)
def test_a_change_output_needs_a_recipe_that_trains_it(network: dict[str, Any], recipe: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        manifest(network, recipe)


def test_a_recipe_trains_the_change_output_on_crops() -> None:
    asked = manifest({"change": True, "contrast": True, "norm": "batch"}, {"change": {"weight": 1.5, "share": 0.25, "crop": 64}})
    assert asked.recipe.schedule.change == Change(1.5, 0.25, 64)
    assert (asked.architecture.change, asked.architecture.contrast, asked.architecture.norm) == (True, True, "batch")
