"""What all tests share: real data where it is at hand, real peers where they are installed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgresql import PostgresServer, binaries

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


DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Give a PostgreSQL server of this test session (of each xdist worker its own), or skip the test; in CI its absence is a failure."""
    programs = binaries()
    if programs is None:
        reason = "PostgreSQL is not installed: deploy/test.sh installs it when it runs as root"
        if IN_CI and os.geteuid() == 0:
            pytest.fail(reason)
        pytest.skip(reason)
    server = PostgresServer(programs)
    try:
        yield server.start()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def _template(postgres: PostgresServer) -> str:
    """Make a database with the newest schema, of which tests get copies: faster than to migrate for each."""
    from pacs_node.database.engine import Store

    postgres.execute("CREATE DATABASE template_head")
    store = Store(postgres.url("template_head"))
    store.upgrade()
    store.close()
    return "template_head"


_numbers = itertools.count()


@pytest.fixture
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., str]:
    """Give a function that makes a database of a kind (one of DATABASES) and returns its URL; ``empty``: without any schema."""

    def make(kind: str, *, empty: bool = False) -> str:
        number = next(_numbers)
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / f'test{number}.db'}"
        server: PostgresServer = request.getfixturevalue("postgres")
        template = "template0" if empty else request.getfixturevalue("_template")
        name = f"test_{number}"
        server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        request.addfinalizer(lambda: server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)") if server.process else None)
        return server.url(name)

    return make
