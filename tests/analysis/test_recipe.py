"""The keys `network` and `recipe` of model.yaml: every classical autoencoder is a choice, and contradictions are named."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.autoencoder.fitting import Schedule
from pacs_node.autoencoder.network import SIZES
from pacs_node.autoencoder.objective import Elbo, Objective
from pacs_node.config import shipped
from pacs_node.errors import BundleError


def manifest(network: dict[str, Any] | None = None, recipe: dict[str, Any] | None = None, detector: dict[str, Any] | None = None) -> Manifest:
    content = yaml.safe_load((shipped("models") / "ct-head" / "model.yaml").read_text(encoding="utf-8"))
    content["network"] = {} if network is None else network
    content["recipe"] = {} if recipe is None else recipe
    content["detector"] = detector
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
    ("detector", "word"),
    [({"crop": 40}, "multiple of 16"), ({"crop": 256}, "128 at most"), ({"channels": [30, 40]}, "multiples of 8"), ({"gates": 1}, "gates")],
)
def test_an_impossible_detector_is_refused(detector: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        manifest(detector=detector)


def test_a_detector_is_trained_by_a_recipe_of_its_own() -> None:
    asked = manifest(recipe={"augmentation": {"rotation": 3}}, detector={"epochs": 7, "crop": 0, "seed": 4})
    assert asked.detector is not None
    assert asked.detectors is not None
    schedule = asked.detector.schedule(asked.recipe)
    assert (schedule.epochs, schedule.crop, schedule.seed, schedule.augmentation.rotation) == (7, None, 4, 3)
    assert (asked.detectors.inputs, asked.detectors.contrast, asked.detectors.norm) == (3, True, "batch")
    assert manifest().detectors is None


def test_a_map_that_nothing_makes_cannot_be_all_that_counts() -> None:
    content = yaml.safe_load((shipped("models") / "ct-head" / "model.yaml").read_text(encoding="utf-8"))
    content.pop("detector", None)
    content["scoring"]["pixel"] = [0, 0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="needs a detector"):
        Manifest.model_validate(content)
    Manifest.model_validate(content | {"detector": {}})
