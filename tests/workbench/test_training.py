"""From studies to a bundle that loads: train, calibrate, evaluate, and what is refused in one sentence."""

import shutil
from collections.abc import Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.calibration_file import read_calibration
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import analyse_volume
from pacs_node.cli import models
from pacs_node.errors import BundleError, InputError
from pacs_node.phantoms import PhantomSpec, make_study, make_volume
from pacs_node.records import Population, Verdict
from pacs_node.workbench import calibrating, evaluation, material, training
from tests.analysis.conftest import MODEL_YAML, ct_slice

TODAY = date(2026, 6, 1)
LAX = calibrating.Promise(alpha=0.4)  # a few studies are enough for it


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL_YAML)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    (folder / "model.yaml").write_text(MODEL_YAML)
    training.train(folder)
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained, tmp_path / "copy")


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nine small synthetic studies of different patients as DICOM files."""
    folder = tmp_path_factory.mktemp("studies")
    for seed in range(9):
        (folder / str(seed)).mkdir()
        for number, dataset in enumerate(make_study(PhantomSpec(region="head", seed=seed, slices=8, rows=64))):
            dataset.save_as(folder / str(seed) / f"{number}.dcm", enforce_file_format=True)
    yield folder


@pytest.mark.slow
def test_a_detector_is_added_to_a_trained_bundle_whose_autoencoder_stays_as_it_was(copy: Path) -> None:
    before = bundles.load(copy)
    with pytest.raises(InputError, match="asks for no detector"):
        training.train_detector(copy)
    text = (copy / "model.yaml").read_text()
    (copy / "model.yaml").write_text(
        text.replace(
            "scoring: {bins: 2}", "detector: {inputs: 3, channels: [8, 16], crop: 32, epochs: 2, left_out: 0.03}\nscoring: {bins: 2, pixel: [1, 1, 1, 1, 0, 1]}"
        )
    )
    training.train_detector(copy)
    after = bundles.load(copy)
    assert after.network.detector is not None
    for name, value in before.network.state_dict().items():
        assert torch.equal(value, after.network.state_dict()[name]), name
    assert torch.equal(before.normals.mean, after.normals.mean[:-1])
    volume = make_volume(PhantomSpec(region="head", seed=77, slices=6, rows=64)).volume
    assert analyse_volume(volume, after, today=TODAY).parts.keys() == analyse_volume(volume, before, today=TODAY).parts.keys()
    assert not (copy / training.DETECTOR_CHECKPOINT).exists()
    training.measure(copy)
    assert bundles.load(copy).network.detector is not None


class Interrupted(Exception):
    pass


def test_a_bundle_trains_from_its_recipe_and_judges_afterwards(trained: Path) -> None:
    loaded = bundles.load(trained)
    finding = analyse_volume(make_volume(PhantomSpec(region="head", seed=77, slices=6, rows=64)).volume, loaded, today=TODAY)
    assert finding.verdict is Verdict.UNCALIBRATED
    assert set(loaded.manifest.files) == {"weights.safetensors", "baselines.npz"}
    assert not (trained / training.CHECKPOINT).exists()


def test_an_interrupted_training_resumes_to_the_same_bytes(trained: Path, untrained: Path) -> None:
    def stop(what: str, fraction: float) -> None:
        if what.startswith("training: epoch 2"):
            raise Interrupted

    with pytest.raises(Interrupted):
        training.train(untrained, report=stop)
    assert (untrained / training.CHECKPOINT).exists()
    training.train(untrained)
    assert (untrained / "weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


def test_a_site_trains_on_its_own_folder(untrained: Path, studies: Path) -> None:
    done = training.train(untrained, [studies])
    assert (done.studies, done.held_out, done.refused) == (7, 2, ())
    assert bundles.load(untrained).name == "tiny"


@pytest.mark.slow
def test_training_fits_the_gate_where_the_model_asks_for_it_and_the_studies_are_enough(untrained: Path) -> None:
    text = (untrained / "model.yaml").read_text()
    (untrained / "model.yaml").write_text(text.replace("scope:\n", "scope:\n  familiarity: {refused: 0.05}\n"))
    training.train(untrained)
    fitted = bundles.load(untrained).familiarity
    assert fitted is not None
    assert fitted.synthetic
    assert fitted.studies == 8 + 3 + 60  # the recipe's, and phantoms of other protocols
    assert 0 < float(fitted.limit) < 10


def test_only_what_is_labelled_normal_is_used(studies: Path, tmp_path: Path) -> None:
    labels = studies / "labels.csv"
    rows = [f"{path.relative_to(studies)},{'lesion' if path.parent.name == '0' else 'Normal'}" for path in sorted(studies.rglob("*.dcm"))]
    labels.write_text("\n".join(["file,label", *rows]) + "\n")
    found = material.series_in([studies], "CT", labels)
    assert len(found) == 8
    assert not any("/0/" in str(path) for one in found for path in one.files)
    labels.unlink()


@pytest.mark.parametrize(
    ("content", "word"),
    [("name,kind\na,b\n", "columns file and label"), ("", "columns file and label"), ("file,label\nother.dcm,normal\n", "labels no CT image")],
)
def test_labels_that_fit_nothing_are_refused(studies: Path, tmp_path: Path, content: str, word: str) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(content)
    with pytest.raises(InputError, match=word):
        material.series_in([studies], "CT", labels)


def test_an_empty_folder_no_folder_and_three_images_are_each_one_sentence(untrained: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no CT images"):
        training.train(untrained, [empty])
    with pytest.raises(InputError, match="there is no folder"):
        training.train(untrained, [tmp_path / "nowhere"])
    for index in range(3):
        ct_slice(index).save_as(empty / f"{index}.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"0 usable studies, training needs at least 8.*3 usable slices"):
        training.train(untrained, [empty])
    with pytest.raises(BundleError, match=r"model\.yaml is missing"):
        training.train(empty)


def test_no_patient_is_trained_on_and_held_out() -> None:
    patients = [f"P{number % 10}" for number in range(40)]
    aside = material.held_out_patients(patients, 1, 0.2)
    assert len(aside) == 2
    assert aside == material.held_out_patients(list(reversed(patients)), 1, 0.2)
    assert len(material.held_out_patients(["A", "B"], 1, 0.9)) == 1
    assert not material.held_out_patients(["A"], 1, 0.5)


def test_the_seeds_of_the_four_uses_do_not_meet() -> None:
    starts = sorted(material.SEEDS.values())
    assert min(b - a for a, b in pairwise(starts)) >= 1_000_000
    seeds = [case.seed for case in evaluation.cases(40, 3)]
    assert len(set(seeds)) == len(seeds) == 40 + 3 * 36


def test_a_synthetic_calibration_gives_verdicts_on_phantoms_only_with_enough_studies(copy: Path) -> None:
    done = calibrating.calibrate(copy, [], Population.SYNTHETIC, today=TODAY)
    assert (done.studies, done.threshold, done.needed) == (7, None, 59)
    done = calibrating.calibrate(copy, [], Population.SYNTHETIC, today=TODAY, promise=LAX)
    assert done.threshold is not None
    loaded = bundles.load(copy)
    finding = analyse_volume(make_volume(PhantomSpec(region="head", seed=78, slices=6, rows=64)).volume, loaded, today=TODAY)
    assert finding.verdict in (Verdict.ABOVE, Verdict.NOT_ABOVE)
    assert finding.heat_calibrated


def test_a_calibration_on_a_folder_keeps_the_populations_apart(copy: Path, studies: Path) -> None:
    done = calibrating.calibrate(copy, [studies], Population.SYNTHETIC, today=TODAY)
    assert done.studies == 9
    with pytest.raises(InputError, match="is synthetic and cannot be part of a site calibration"):
        calibrating.calibrate(copy, [studies], Population.SITE, today=TODAY)
    with pytest.raises(InputError, match="needs --data"):
        calibrating.calibrate(copy, [], Population.SITE, today=TODAY)


@pytest.mark.slow
def test_training_anew_removes_a_calibration_that_no_longer_belongs(copy: Path) -> None:
    calibrating.calibrate(copy, [], Population.SYNTHETIC, today=TODAY)
    text = (copy / "model.yaml").read_text()
    (copy / "model.yaml").write_text(text.replace("epochs: 2", "epochs: 1"))
    training.train(copy)
    assert not (copy / "calibration.json").exists()
    assert bundles.load(copy).calibration is None


def test_a_damaged_calibration_does_not_keep_a_bundle_from_being_calibrated(copy: Path) -> None:
    (copy / "calibration.json").write_text("damaged")
    calibrating.calibrate(copy, [], Population.SYNTHETIC, today=TODAY)
    assert read_calibration(copy, read_manifest(copy).files["weights.safetensors"]) is not None


@pytest.mark.parametrize(("command", "options"), [("train", "--labels"), ("calibrate", "--population"), ("evaluate", "--json")])
def test_each_command_helps_with_an_example(command: str, options: str) -> None:
    app = typer.Typer()
    models.register(app)
    shown = CliRunner().invoke(app, [command, "--help"], terminal_width=200, env={"NO_COLOR": "1", "TERM": "dumb"})
    assert shown.exit_code == 0
    assert f"Example: pacs-node {command} --bundle" in shown.output
    assert options in shown.output


def test_the_command_prints_what_a_calibration_gave(copy: Path) -> None:
    app = typer.Typer()
    models.register(app)
    done = CliRunner().invoke(app, ["calibrate", "--bundle", str(copy), "--population", "synthetic"])
    assert done.exit_code == 0, done.output
    assert "7 studies are too few for a threshold, at least 59 are needed" in done.output
