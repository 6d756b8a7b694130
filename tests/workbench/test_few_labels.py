"""A site's few labels: a head beside the score, never in its place, and one sentence where there are too few."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pacs_node.analysis import bundle as bundles
from pacs_node.analysis.head_file import HEAD
from pacs_node.analysis.manifest import read_manifest
from pacs_node.analysis.pipeline import analyse_volume
from pacs_node.cli.models import register
from pacs_node.cli.options import print_why
from pacs_node.errors import BundleError, InputError
from pacs_node.journey.run_job import summary
from pacs_node.workbench import report, tuning, tuning_table
from pacs_node.workbench.few_labels import Compared, train_head
from pacs_node.workbench.grid import Grid
from tests.analysis.conftest import make_bundle, volume

TODAY = date(2026, 6, 1)


def picture(seed: int, *, bright: bool) -> Image.Image:
    """A grey disc with noise; a bright square in it, or none."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64] - 31.5
    pixels = np.where(x**2 + y**2 < 26**2, 110 + rng.normal(0, 6, (64, 64)), 0)
    if bright:
        row, column = rng.integers(18, 34, 2)
        pixels[row : row + 12, column : column + 12] += 90
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen normal and twelve other pictures, two a patient, and their table."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = ["file,label,patient"]
    for number in range(26):
        bright = number >= 14
        picture(number, bright=bright).save(folder / f"{number:02}.png")
        rows.append(f"{number:02}.png,{'square' if bright else 'normal'},P{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, Compared, dict[str, bytes]]:
    """A bundle with a head, what its training told, and the bundle's files before."""
    folder = make_bundle(tmp_path_factory.mktemp("head") / "tiny")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    return folder, train_head(folder, [pictures], pictures / "labels.csv"), before


def test_the_head_is_told_beside_the_score_on_the_same_studies(trained: tuple[Path, Compared, dict[str, bytes]]) -> None:
    compared = trained[1]
    assert (compared.normal, compared.unusual, compared.patients, compared.refused) == (14, 12, 13, ())
    for found in (compared.head, compared.score):
        assert 0 <= found.low <= found.value <= found.high <= 1
    assert compared.difference.value == pytest.approx(compared.head.value - compared.score.value)
    assert compared.head.value > 0.8  # even a network that was not trained sees a bright square


def test_nothing_of_the_bundle_changes_but_what_model_yaml_records(trained: tuple[Path, Compared, dict[str, bytes]]) -> None:
    folder, _, before = trained
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(after) == {*before, HEAD}
    assert all(after[name] == before[name] for name in before if name != "model.yaml")
    assert set(read_manifest(folder).files) == {"weights.safetensors", "baselines.npz", HEAD}


def test_a_finding_carries_the_heads_number_and_its_score_stays_the_same(trained: tuple[Path, Compared, dict[str, bytes]], tmp_path: Path) -> None:
    loaded = bundles.load(trained[0])
    plain = replace(loaded, head=None)
    finding, without = (analyse_volume(volume(5), bundle, today=TODAY) for bundle in (loaded, plain))
    assert (finding.score, finding.verdict, finding.parts) == (without.score, without.verdict, without.parts)
    assert without.head is None and "head" not in summary(without)
    assert finding.head is not None
    assert 0 < finding.head.probability < 1
    assert (finding.head.normal, finding.head.unusual) == (14, 12)
    said = summary(finding)["head"]
    assert said == {"probability": round(finding.head.probability, 4), "auroc": round(trained[1].head.value, 4), "normal": 14, "unusual": 12}
    page = report.write_report(finding, loaded, (), tmp_path).read_text()
    assert "14 normal and 12 other labelled studies" in page and "no verdict" in page


def test_the_heads_number_is_printed_with_what_it_rests_on(trained: tuple[Path, Compared, dict[str, bytes]], capsys: pytest.CaptureFixture[str]) -> None:
    print_why(summary(analyse_volume(volume(5), bundles.load(trained[0]), today=TODAY)))
    assert "AUROC" in capsys.readouterr().out


def test_a_head_of_other_weights_a_damaged_one_and_an_unrecorded_one_are_refused(trained: tuple[Path, Compared, dict[str, bytes]], tmp_path: Path) -> None:
    copy = shutil.copytree(trained[0], tmp_path / "tiny")
    files = read_manifest(copy).files
    bundles.record(copy, {name: digest for name, digest in files.items() if name != HEAD})
    with pytest.raises(BundleError, match=r"head\.npz is not the file"):
        bundles.load(copy)
    (copy / HEAD).write_bytes(b"PK no archive")
    bundles.record(copy, {**files, HEAD: bundles.sha256(copy / HEAD)})
    with pytest.raises(BundleError, match=r"head\.npz is damaged"):
        bundles.load(copy)
    with np.load(trained[0] / HEAD) as arrays:
        np.savez(copy / HEAD, **{**arrays, "weights_sha256": np.array("0" * 64)})
    bundles.record(copy, {**files, HEAD: bundles.sha256(copy / HEAD)})
    with pytest.raises(BundleError, match="other weights"):
        bundles.load(copy)


def test_training_anew_takes_the_head_away(trained: tuple[Path, Compared, dict[str, bytes]], tmp_path: Path) -> None:
    copy = shutil.copytree(trained[0], tmp_path / "tiny")
    loaded = bundles.load(copy)
    bundles.save(copy, loaded.network, loaded.normals, loaded.baselines)
    assert not (copy / HEAD).exists()
    assert bundles.load(copy).head is None


def test_a_head_of_parts_that_there_are_not_says_nothing_and_why(trained: tuple[Path, Compared, dict[str, bytes]]) -> None:
    loaded = bundles.load(trained[0])
    assert loaded.head is not None
    names = loaded.head.head.names.copy()
    names[0] = "gone"
    older = replace(loaded, head=replace(loaded.head, head=replace(loaded.head.head, names=names)))
    finding = analyse_volume(volume(5), older, today=TODAY)
    assert finding.head is None
    assert any("score part gone" in remark for remark in finding.remarks)


def test_with_nine_of_a_kind_a_head_is_refused_in_one_sentence_and_nothing_is_written(pictures: Path, tmp_path: Path) -> None:
    folder, few = make_bundle(tmp_path / "tiny"), pictures / "few.csv"
    rows = (pictures / "labels.csv").read_text().splitlines()
    few.write_text("\n".join(rows[:-3]) + "\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    app = typer.Typer()
    register(app)
    with pytest.raises(InputError, match="14 usable studies labelled 'normal' and 9 of any other label: at least 10 of each"):
        CliRunner().invoke(app, ["train", "--head", "--bundle", str(folder), "--data", str(pictures), "--labels", str(few)], catch_exceptions=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    few.unlink()
    with pytest.raises(InputError, match="--labels"):
        train_head(folder, [pictures], None)


def test_the_command_prints_both_numbers_and_their_difference(pictures: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    app = typer.Typer()
    register(app)
    answer = CliRunner().invoke(app, ["train", "--head", "--bundle", str(folder), "--data", str(pictures), "--labels", str(pictures / "labels.csv")])
    assert answer.exit_code == 0, answer.output
    assert "14 normal and 12 other studies of 13 patients" in answer.output
    assert answer.output.count("AUROC") == 3


def test_labelled_pictures_tune_a_recipe(pictures: Path, tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    done = tuning.tune(folder, [pictures], pictures / "labels.csv", Grid("g", {"recipe.rate": [0.002]}), tuning.Plan(folds=2, epochs=1))
    (line, other) = done.lines["rate 0.002"]
    for one in (line, other):
        assert sum(trial.unusual for trial in one.trials) == 12
        assert {trial.patient for trial in one.trials if not trial.unusual}
    assert not {trial.name for trial in line.trials if not trial.unusual} & {trial.name for trial in other.trials if not trial.unusual}
    result = tuning_table.table(done, "tiny", "cmd")
    assert (result["set"], result["n"], result["unusual"], result["criterion"]) == ("labelled studies", 26, 12, "auroc")
