"""The package as it is installed: entry points and what has to come with it."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the build back end that is installed here: nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    built = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("pacs_node-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into a clean environment away from the checkout; what it depends on is seen there through a path, this checkout is not."""
    home = tmp_path_factory.mktemp("elsewhere") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(home)], check=True, capture_output=True)
    line = [sys.executable, "-m", "pip", "--python", str(home / "bin" / "python"), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    site = next((home / "lib").glob("python3*/site-packages"))
    (site / "dependencies.pth").write_text(
        f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n"
    )  # its .pth files, as that of a checkout, are not read
    return home


def run_installed(home: Path, *arguments: str, cwd: Path, program: str = "pacs-node", seconds: float = 280) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{home / 'bin'}:/usr/bin:/bin", "HOME": str(cwd), "LANG": "C.UTF-8", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}
    line = [str(home / "bin" / program), *arguments]
    return subprocess.run(line, capture_output=True, text=True, cwd=cwd, env=environment, timeout=seconds, check=False)


@pytest.mark.slow
def test_a_wheel_carries_bundles_configuration_and_migrations(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "pacs_node/_bundled/config/rules.yaml",
        "pacs_node/_bundled/models/ct-head/model.yaml",
        "pacs_node/_bundled/models/ct-head/weights.safetensors",
        "pacs_node/_bundled/models/ct-body/calibration.json",
        "pacs_node/database/migrations/script.py.mako",
        "pacs_node/py.typed",
    } <= names
    shipped = [path.relative_to(ROOT / "pacs_node") for path in (ROOT / "pacs_node").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {f"pacs_node/{path}" for path in shipped} <= names  # templates, migrations and whatever else stands beside the code
    assert not [name for name in names if name.startswith("tests/")]


@pytest.mark.slow
def test_an_installed_wheel_uses_itself_and_its_own_bundles(installed: Path, tmp_path: Path) -> None:
    line = "import pacs_node, pacs_node.config as c; print(pacs_node.__file__); print(c.shipped('models')); print(c.shipped('config'))"
    found = run_installed(installed, "-c", line, cwd=tmp_path, program="python")
    places = found.stdout.split()
    assert len(places) == 3, found.stderr
    assert all(Path(place).is_relative_to(installed) and Path(place).exists() for place in places)
    assert run_installed(installed, "--version", cwd=tmp_path).stdout == f"pacs-node {importlib.metadata.version('pacs-node')}\n"


@pytest.mark.slow
def test_check_of_an_installed_wheel_finds_nothing_wrong_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    checked = run_installed(installed, "check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for bundle in ("ct-head", "ct-body", "mr-brain", "pt-body", "us-breast"):
        assert f"bundle {bundle}" in checked.stdout
    assert not list(tmp_path.iterdir())  # it only looks


@pytest.mark.slow
def test_the_demonstration_runs_from_an_installed_wheel(installed: Path, tmp_path: Path) -> None:
    shown = run_installed(installed, "demo", "--quick", "--out", "shown", cwd=tmp_path)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "ct-head-lesion" in shown.stdout
    result = json.loads((tmp_path / "shown" / "result.json").read_text())
    assert all(study["settled"] for study in result["studies"]) and len(result["studies"]) == 2
    assert list((tmp_path / "shown" / "previews").rglob("*.png"))


def test_only_the_agreed_names_stand_at_the_top() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    top = {name.split("/")[0] for name in tracked.stdout.split("\n") if name and not name.startswith(".")}
    assert top <= {"pacs_node", "models", "config", "tests", "deploy", "pyproject.toml", "README.md", "LICENSE"}


def test_the_command_line_starts_without_loading_the_models_library() -> None:
    line = "import sys, pacs_node.cli; print([name for name in ('torch', 'highdicom', 'sqlalchemy', 'pynetdicom') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_the_core_and_the_parent_load_neither_torch_nor_the_result_builders() -> None:
    line = (
        "import sys; from pacs_node import node, clock; from pacs_node.config import load_settings; node.read_rules(load_settings(None)); "
        "from pacs_node.journey import deliver, leases; print([name for name in ('torch', 'highdicom', 'scipy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() == "[]"
