"""What all tests share: real data where it is at hand, real peers where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared" / "data"
IN_CI = os.environ.get("CI") == "true"


@pytest.fixture(scope="session")
def dataset_folder() -> Callable[[str], Path]:
    """Return a function that gives the folder of an unpacked test data set, or skips the test with the reason."""

    def find(name: str) -> Path:
        folder = ROOT / ".data"
        if not (folder / name).is_dir():
            if not (SHARED / "unpack.sh").is_file():
                pytest.skip(f"the test data set {name} is not here")
            subprocess.run(["sh", str(SHARED / "unpack.sh"), str(folder), name], check=True, capture_output=True)
        return folder / name

    return find


@pytest.fixture(scope="session")
def tool() -> Callable[[str], str]:
    """Return a function that gives the path of another maker's program, or skips the test; in CI its absence is a failure."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            reason = f"{name} is not installed: deploy/test.sh installs it when it runs as root"
            if IN_CI and os.geteuid() == 0:
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
