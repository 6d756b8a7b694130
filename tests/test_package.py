"""The package as it is installed: entry points and what has to come with it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_wheel_carries_bundles_configuration_and_migrations(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    built = subprocess.run(line, capture_output=True, text=True, timeout=280)
    assert built.returncode == 0, built.stderr
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {
        "pacs_node/_bundled/config/rules.yaml",
        "pacs_node/_bundled/models/ct-head/model.yaml",
        "pacs_node/_bundled/models/ct-head/weights.safetensors",
        "pacs_node/_bundled/models/ct-body/calibration.json",
        "pacs_node/database/migrations/script.py.mako",
        "pacs_node/py.typed",
    } <= names
    assert not [name for name in names if name.startswith("tests/")]
    target = tmp_path / "site"
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(target)
    line = "from pacs_node.config import shipped; print(shipped('models'), (shipped('config') / 'rules.yaml').is_file())"
    found = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(target), "PATH": "/usr/bin"})
    assert found.stdout.split() == [str(target / "pacs_node" / "_bundled" / "models"), "True"]


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
