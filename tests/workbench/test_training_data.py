"""Training on what a site has: pictures, NIfTI files and DICOM studies, with a word about those that stand out."""

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.pipeline import prepare
from pacs_node.autoencoder.fitting import History
from pacs_node.cli import models
from pacs_node.config import shipped
from pacs_node.errors import BundleError, InputError
from pacs_node.phantoms import PhantomSpec, make_volume
from pacs_node.records import Population
from pacs_node.workbench import calibrating, material, training
from pacs_node.workbench.shelf import Shelf
from pacs_node.workbench.suspects import Suspect, fence, suspects_in
from tests.analysis.conftest import MODEL_YAML, make_bundle, volume
from tests.workbench.test_material import picture, table

TODAY = date(2026, 6, 1)
SMALL = {"epochs: 24": "epochs: 1", "channels: [32, 64, 96, 128]": "channels: [8, 16]", "gates: [open, open, open, open]": "gates: [open, open]"}


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 JPEGs, two of each of 16 patients, and another patient's with a lesion, listed in labels.csv."""
    folder = tmp_path_factory.mktemp("brains")
    rows = [f"{picture(folder / f'{number}.jpg', seed=number, edge=180).name},normal,P{number // 2}" for number in range(32)]
    rows.append(f"{picture(folder / 'sick.jpg', seed=99).name},tumour,P16")
    table(folder / "labels.csv", *rows, columns="file,label,patient")
    return folder


def copy_of_mr_brain(folder: Path) -> Path:
    """The shipped model.yaml with a smaller network and one epoch; nothing about its preprocessing is changed."""
    folder.mkdir()
    text = (shipped("models") / "mr-brain" / "model.yaml").read_text()
    for old, new in SMALL.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "model.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(brains: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, training.Trained]:
    folder = copy_of_mr_brain(tmp_path_factory.mktemp("models") / "mr-brain")
    return folder, training.train(folder, [brains], brains / "labels.csv", device="cpu")


@pytest.fixture
def copy(trained: tuple[Path, training.Trained], tmp_path: Path) -> Path:
    return shutil.copytree(trained[0], tmp_path / "copy")


def test_a_copy_of_a_shipped_bundle_trains_on_a_folder_of_jpegs(trained: tuple[Path, training.Trained]) -> None:
    folder, done = trained
    assert (done.studies, done.held_out, done.refused) == (26, 6, ())
    assert done.history is not None
    assert bundles.load(folder).name == "mr-brain"


def test_no_patient_has_pictures_on_both_sides(brains: Path, copy: Path) -> None:
    manifest = bundles.load(copy).manifest
    studies = training.studies_of(copy, manifest, [brains], brains / "labels.csv", lambda what, fraction: None)
    learnt, aside = ({int(Path(name).stem) // 2 for name in shelf.names} for shelf in (studies.train_on, studies.held_out))
    assert (len(learnt), len(aside)) == (13, 3)
    assert not learnt & aside


def test_measuring_anew_keeps_the_network_and_says_again_what_is_usual(brains: Path, copy: Path) -> None:
    before = load_file(copy / "weights.safetensors")
    text = (copy / "model.yaml").read_text()
    (copy / "model.yaml").write_text(text.replace("bins: 8", "bins: 2"))
    done = training.measure(copy, [brains], brains / "labels.csv", device="cpu")
    after = load_file(copy / "weights.safetensors")
    assert done.history is None
    assert (done.studies, done.held_out) == (26, 6)
    names = [name for name in before if name.startswith("network.")]
    assert names and all(torch.equal(before[name], after[name]) for name in names)
    assert before["normals.mean"].shape[1] == 4 * after["normals.mean"].shape[1]
    assert bundles.load(copy).manifest.scoring.bins == 2


def test_measuring_anew_on_the_same_studies_with_the_same_scoring_changes_no_number(brains: Path, copy: Path) -> None:
    before = load_file(copy / "weights.safetensors")
    training.measure(copy, [brains], brains / "labels.csv", device="cpu")
    after = load_file(copy / "weights.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_was_never_trained_cannot_be_measured(brains: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"weights\.safetensors is missing"):
        training.measure(copy_of_mr_brain(tmp_path / "new"), [brains], brains / "labels.csv")


def test_the_command_measures_only_when_it_is_asked_to(brains: Path, copy: Path) -> None:
    app = typer.Typer()
    models.register(app)
    options = ["train", "--bundle", str(copy), "--data", str(brains), "--labels", str(brains / "labels.csv"), "--measure-only", "--device", "cpu"]
    done = CliRunner().invoke(app, options)
    assert done.exit_code == 0, done.output
    assert "the autoencoder is as it was; measured what is usual on 26 studies and 6 held out" in done.output


def test_a_bundle_is_calibrated_on_the_normal_pictures_of_a_table(brains: Path, copy: Path) -> None:
    done = calibrating.calibrate(copy, [brains], Population.FOREIGN, labels=brains / "labels.csv", today=TODAY)
    assert done.studies == 16  # patients
    with pytest.raises(InputError, match="no DICOM object and cannot be part of a site calibration"):
        calibrating.calibrate(copy, [brains], Population.SITE, labels=brains / "labels.csv", today=TODAY)
    with pytest.raises(InputError, match="need --data"):
        calibrating.calibrate(copy, [], Population.SYNTHETIC, labels=brains / "labels.csv", today=TODAY)


def test_a_folder_with_three_images_is_one_sentence(tmp_path: Path) -> None:
    for number in range(3):
        picture(tmp_path / "few" / f"{number}.png", seed=number)
    with pytest.raises(InputError, match="gives 3 usable studies, training needs at least 8, of three patients or more"):
        training.train(copy_of_mr_brain(tmp_path / "new"), [tmp_path / "few"])


def test_damaged_pictures_are_named_and_the_others_used(brains: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(brains, tmp_path / "brains")
    (folder / "labels.csv").unlink()
    (folder / "3.jpg").write_bytes((folder / "3.jpg").read_bytes()[:500])
    Image.new("L", (1, 1), 9).save(folder / "4.jpg")
    Image.new("L", (300, 200), 77).save(folder / "5.jpg")
    bundle = copy_of_mr_brain(tmp_path / "new")
    manifest = bundles.read_manifest(bundle)
    studies = training.studies_of(bundle, manifest, [folder], None, lambda what, fraction: None)
    assert len(studies.train_on) + len(studies.held_out) == 30
    reasons = {Path(line.split(": ")[0]).name: line.split(": ", 1)[1] for line in studies.refused}
    assert reasons["3.jpg"].startswith("the picture cannot be read")
    assert "blank" in reasons["4.jpg"] and "blank" in reasons["5.jpg"]


def test_a_site_trains_on_nifti_files(tmp_path: Path) -> None:
    nibabel = pytest.importorskip("nibabel")
    for seed in range(9):
        made = make_volume(PhantomSpec(region="head", seed=seed, slices=8, rows=64)).volume
        plane = made.frames[0].plane
        assert plane is not None
        affine = np.diag([-plane.spacing[1], -plane.spacing[0], 5.0, 1.0])
        affine[:3, 3] = np.multiply(plane.position, (-1, -1, 1))
        (tmp_path / "data").mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(made.pixels[:].transpose(2, 1, 0), affine), tmp_path / "data" / f"sub-{seed}_ct.nii.gz")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.yaml").write_text(MODEL_YAML)
    done = training.train(tmp_path / "tiny", [tmp_path / "data"], device="cpu")
    assert (done.studies, done.held_out, done.refused) == (7, 2, ())


def test_labels_without_data_are_refused(brains: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="need --data"):
        training.train(copy_of_mr_brain(tmp_path / "new"), labels=brains / "labels.csv")


def test_a_study_that_is_unlike_the_others_is_named(tmp_path: Path) -> None:
    bundle, shelf = bundles.load(make_bundle(tmp_path / "tiny")), Shelf()
    for number in range(24):
        source = volume(100 + number)
        if number == 17:
            source.pixels[3, 40:56, 40:56] = 90.0
        shelf.add(f"study {number}", material.example(prepare(source, bundle.manifest)))
    assert [one.name for one in suspects_in(bundle, [shelf], lambda what, fraction: None)] == ["study 17"]
    others = shelf.take(index for index in range(24) if index != 17)
    assert suspects_in(bundle, [others], lambda what, fraction: None) == ()
    assert suspects_in(bundle, [shelf.take(range(14, 20))], lambda what, fraction: None) == ()  # too few to say


def test_the_fence_does_not_move_with_what_stands_out() -> None:
    usual = [float(number) for number in range(11)]
    assert fence(usual) == 5 + 6 * 3
    assert fence([*usual, 1000.0]) == fence([*usual, 100.0])
    assert fence([1.0] * 7) == float("inf")


def test_the_command_names_what_stands_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = training.Trained(20, 4, (), History((0.5,), 0), (Suspect("1.2.3", 9.0, 4.0),))
    monkeypatch.setattr(training, "train", lambda *args, **options: done)
    app = typer.Typer()
    models.register(app)
    shown = CliRunner().invoke(app, ["train", "--bundle", str(tmp_path)])
    assert "stands out: 1.2.3 (score 9.00, the others suggest at most 4.00): look whether it is normal" in shown.output
