"""The command that makes phantoms."""

from pathlib import Path

import pytest
import typer
from pydicom import dcmread
from typer.testing import CliRunner

from pacs_node.cli.phantom import register
from pacs_node.errors import InputError


def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    register(made)
    return made


def test_it_writes_one_folder_a_study(tmp_path: Path) -> None:
    arguments = ["phantom", "--lesion", "mass_effect", "--out", str(tmp_path), "--seed", "4", "--count", "2", "--slices", "3"]
    result = CliRunner().invoke(app(), arguments)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct-head-mass-effect-4", "ct-head-mass-effect-5"]
    assert sorted(path.name for path in (tmp_path / "ct-head-mass-effect-5").iterdir()) == ["IM0001.dcm", "IM0002.dcm", "IM0003.dcm"]
    assert dcmread(tmp_path / "ct-head-mass-effect-5" / "IM0002.dcm").PatientID == "PHANTOM-CT-HEAD-5"
    assert "2 studies, 6 files" in result.output


def test_its_help_shows_an_example() -> None:
    result = CliRunner().invoke(app(), ["phantom", "--help"])
    assert result.exit_code == 0
    assert "Example: pacs-node phantom --modality CT" in " ".join(result.output.split())


@pytest.mark.parametrize(("option", "value"), [("--lesion", "blob"), ("--region", "foot"), ("--modality", "XX"), ("--artefact", "ghost"), ("--slices", "9999")])
def test_a_bad_option_is_one_clear_error_and_writes_nothing(tmp_path: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(app(), ["phantom", "--out", str(tmp_path / "out"), option, value])
    assert isinstance(result.exception, InputError)
    assert value in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_it_makes_other_modalities_and_multi_frame_objects(tmp_path: Path) -> None:
    options = ["--modality", "MR", "--sequence", "FLAIR", "--plane", "coronal", "--enhanced", "--slices", "2"]
    result = CliRunner().invoke(app(), ["phantom", "--out", str(tmp_path), *options])
    assert result.exit_code == 0, result.output
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.dcm")] == ["mr-brain-flair-coronal-plain-enhanced-0/IM0001.dcm"]
    assert "1 study, 1 files" in result.output


def test_ultrasound_has_as_many_images_as_usual(tmp_path: Path) -> None:
    result = CliRunner().invoke(app(), ["phantom", "--out", str(tmp_path), "--modality", "US", "--colour"])
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "us-breast-plain-colour-0").iterdir())) == 4
