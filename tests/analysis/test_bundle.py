"""A bundle is what its model.yaml says, byte for byte, or it is refused with the file at fault and the remedy."""

import re
import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis import installed
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import analyse_volume, prepare
from pacs_node.autoencoder.normals import with_whole
from pacs_node.autoencoder.reference import Reference
from pacs_node.config import shipped
from pacs_node.dicom.uids import is_valid_uid
from pacs_node.errors import BundleError
from pacs_node.workbench import material
from tests.analysis.conftest import volume


def test_a_saved_bundle_loads_with_the_same_weights(tiny: Path) -> None:
    loaded = bundles.load(tiny)
    again = bundles.load(tiny)
    assert loaded.name == "tiny"
    assert not loaded.network.training
    for one, other in zip(loaded.network.state_dict().values(), again.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    assert loaded.algorithm == again.algorithm
    assert loaded.calibration is None


def test_saving_keeps_the_comments_of_model_yaml(tiny: Path) -> None:
    text = (tiny / "model.yaml").read_text()
    assert "# a comment that must survive training" in text
    assert "# another comment" in text
    assert text.count("weights.safetensors:") == 1
    before = read_manifest(tiny)
    bundles.record(tiny, before.files)
    assert (tiny / "model.yaml").read_text() == text


def test_the_files_block_is_replaced_wherever_it_stands(tiny: Path) -> None:
    text = (tiny / "model.yaml").read_text()
    (tiny / "model.yaml").write_text("files:\n  old: 1\n  # note\n\n" + text[: text.index("files:")])
    bundles.record(tiny, {"weights.safetensors": "x"})
    assert read_manifest(tiny).files == {"weights.safetensors": "x"}


def test_available_lists_folders_with_a_model_yaml(tiny: Path) -> None:
    (tiny.parent / "notes").mkdir()
    assert installed.available(tiny.parent) == {"tiny": tiny}
    assert installed.available(tiny.parent / "nowhere") == {}


def test_the_algorithm_changes_with_the_models_bytes_and_not_with_its_folder(tiny: Path, tmp_path: Path) -> None:
    first = bundles.load(tiny).algorithm
    moved = shutil.copytree(tiny, tmp_path / "elsewhere")
    assert bundles.load(moved).algorithm == first
    with (moved / "model.yaml").open("a") as handle:
        handle.write("# changed\n")
    changed = bundles.load(moved).algorithm
    assert changed.device_uid != first.device_uid
    assert changed.bundle_hash != first.bundle_hash
    assert is_valid_uid(first.device_uid)
    assert first.calibration_hash == ""


@pytest.mark.parametrize("name", ["weights.safetensors", "baselines.npz"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(BundleError, match=rf"{name} is missing: train the bundle with `pacs-node train"):
        bundles.load(tiny)


@pytest.mark.parametrize("name", ["weights.safetensors", "baselines.npz"])
def test_a_changed_byte_is_noticed(tiny: Path, name: str) -> None:
    content = bytearray((tiny / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tiny / name).write_bytes(bytes(content))
    with pytest.raises(BundleError, match=rf"{name} is not the file that model.yaml records"):
        bundles.load(tiny)


@pytest.mark.parametrize(("name", "word"), [("weights.safetensors", "does not fit"), ("baselines.npz", "damaged")])
def test_bytes_of_another_kind_are_refused_even_with_the_right_sum(tiny: Path, name: str, word: str) -> None:
    (tiny / name).write_bytes(b"something else")
    bundles.record(tiny, {one: bundles.sha256(tiny / one) for one in ("weights.safetensors", "baselines.npz")})
    with pytest.raises(BundleError, match=word):
        bundles.load(tiny)


def test_statistics_of_another_version_are_refused(tiny: Path) -> None:
    path = tiny / "weights.safetensors"
    tensors = load_file(path)
    tensors |= {name: value[:-1].clone() for name, value in tensors.items() if name.endswith(("normals.mean", "normals.spread"))}
    save_file(tensors, path)
    bundles.record(tiny, {one: bundles.sha256(tiny / one) for one in ("weights.safetensors", "baselines.npz")})
    with pytest.raises(BundleError, match="does not fit"):
        bundles.load(tiny)


def with_whole_learnt(folder: Path, study: str, fusion: str = "weighted") -> bundles.Bundle:
    """Add what slices look like as a whole to a bundle, and weigh the study parts so."""
    found = bundles.load(folder)
    examples = [material.example(prepare(volume(seed), found.manifest)) for seed in range(6)]
    bundles.save(folder, found.network, with_whole(found.normals, examples), found.baselines)
    return weighing(folder, study, fusion)


def weighing(folder: Path, study: str, fusion: str = "weighted") -> bundles.Bundle:
    text = (folder / "model.yaml").read_text()
    (folder / "model.yaml").write_text(re.sub(r"scoring: \{bins: 2.*\}", f"scoring: {{bins: 2, study: {study}, fusion: {fusion}}}", text))
    return bundles.load(folder)


def test_a_bundle_that_learnt_slices_as_a_whole_judges_by_two_further_parts(tiny: Path) -> None:
    before = analyse_volume(volume(9), bundles.load(tiny), today=date(2026, 6, 1))
    same = analyse_volume(volume(9), with_whole_learnt(tiny, "[1, 1, 1]"), today=date(2026, 6, 1))
    assert set(same.parts) - set(before.parts) == {"outline", "shape"}
    assert same.score == pytest.approx(before.score)  # what has no weight counts nothing
    other = analyse_volume(volume(9), weighing(tiny, "[0, 0, 0, 1, 1]"), today=date(2026, 6, 1))
    assert other.score != pytest.approx(before.score)


@pytest.mark.parametrize("fusion", ["weighted", "tail", "largest"])
def test_the_contributions_of_every_fusion_add_up_to_the_score(tiny: Path, fusion: str) -> None:
    found = analyse_volume(volume(9), with_whole_learnt(tiny, "[2, 0, 1, 1, 1]", fusion), today=date(2026, 6, 1))
    assert sum(found.contributions.values()) == pytest.approx(found.score, abs=1e-4)
    assert found.contributions["extent"] == pytest.approx(0, abs=1e-6)


def test_weights_for_parts_that_were_not_learnt_only_are_refused(tiny: Path) -> None:
    with pytest.raises(BundleError, match=r"does not fit .*train the bundle again"):
        weighing(tiny, "[0, 0, 0, 1, 1]")


def test_weights_of_another_architecture_are_refused(tiny: Path) -> None:
    text = (tiny / "model.yaml").read_text()
    (tiny / "model.yaml").write_text(text.replace("channels: [8, 16]", "channels: [8, 24]"))
    with pytest.raises(BundleError, match="does not fit the network"):
        bundles.load(tiny)


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("format: 1", "format: 2", "format 2, this version reads 1"),
        ("name: tiny", "name: Tiny Bundle!", "name"),
        ("min_slices: 5", "min_slices: none", "scope.min_slices"),
        ("licence: Apache-2.0", "license: Apache-2.0", "licence|license"),
        ("gates: [open, open]", "gates: [open, magic]", "unknown gate 'magic'"),
        ("value: [0.0, 0.3, 0.8, 1.0]", "value: [0.0, 0.3, 0.3, 1.0]", "must rise"),
        ("bins: 2", "fusion: magic", "scoring.fusion"),
        ("bins: 2", "study: [1, 1]", "study weights"),
        ("format: 1", "format: [1", "not readable YAML"),
    ],
)
def test_a_mistake_in_model_yaml_is_named(tiny: Path, old: str, new: str, word: str) -> None:
    text = (tiny / "model.yaml").read_text()
    assert old in text
    (tiny / "model.yaml").write_text(text.replace(old, new))
    with pytest.raises(BundleError, match=word):
        bundles.load(tiny)


def test_no_folder_and_no_model_yaml_are_different_mistakes(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such folder"):
        bundles.load(tmp_path / "nothing")
    with pytest.raises(BundleError, match=r"model\.yaml is missing"):
        bundles.load(tmp_path)


def test_intensities_go_to_the_model_and_back(tiny: Path) -> None:
    line = read_manifest(tiny).preprocessing.intensity
    values = np.array([-1000, -20, 35, 90, 1500], dtype=np.float32)
    assert line.to_physical(line.to_model(values)) == pytest.approx(values, abs=0.05)
    assert line.to_model(np.array([np.nan, -4000, 9000], dtype=np.float32)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["ct-body", "ct-head"])
def test_the_shipped_bundles_load_and_are_small(name: str) -> None:
    loaded = bundles.load(shipped("models") / name)
    assert loaded.calibration is not None
    assert loaded.calibration.studies >= 100
    assert (loaded.folder / "weights.safetensors").stat().st_size < 10_000_000
    assert "research use" in (loaded.folder / "CARD.md").read_text().lower()


def with_reference(folder: Path, studies: int = 3) -> Reference:
    """Save the bundle again with kept slices, and return them."""
    loaded = bundles.load(folder)
    kept = Reference(
        torch.rand(studies, 32).half(), torch.randint(0, 256, (studies, 64, 64), dtype=torch.uint8), torch.arange(studies).int(), torch.zeros(studies).int()
    )
    bundles.save(folder, loaded.network, loaded.normals, loaded.baselines, kept)
    return kept


def test_kept_training_slices_are_saved_with_the_weights_and_are_optional(tiny: Path) -> None:
    assert bundles.load(tiny).reference is None
    kept = with_reference(tiny)
    found = bundles.load(tiny).reference
    assert found is not None
    assert all(torch.equal(getattr(found, name), getattr(kept, name)) for name in Reference.FIELDS)


def test_kept_slices_of_which_a_part_is_missing_are_refused(tiny: Path) -> None:
    with_reference(tiny)
    tensors = load_file(tiny / "weights.safetensors")
    del tensors["reference.picture"]
    save_file(tensors, tiny / "weights.safetensors")
    bundles.record(tiny, {name: bundles.sha256(tiny / name) for name in ("weights.safetensors", "baselines.npz")})
    with pytest.raises(BundleError, match="does not fit the network"):
        bundles.load(tiny)
