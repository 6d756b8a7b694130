"""Short and the same every time in the usual tests; as long as one likes, and never the same, by a command.

::

    python -m pytest tests/fuzz                                  a fixed set of inputs
    python -m pytest tests/fuzz --fuzz-minutes 15 -s             other inputs, for 15 minutes over all properties
    python -m pytest tests/fuzz --fuzz-replay FILE               an input that was saved when it failed
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.exploring import Explorer

_reports = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fuzzing")
    group.addoption("--fuzz-minutes", type=float, metavar="N", help="try random inputs for N minutes, in place of a fixed set")
    group.addoption("--fuzz-replay", type=Path, metavar="FILE", help="try one saved input")


def _option(config: pytest.Config, name: str) -> object:
    """Return an option; None where this file was found too late for options, as when all tests run."""
    return config.getoption(name, default=None)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The time for all is shared out evenly; a test may take longer where it fails, to find a small input."""
    fuzzed = [item for item in items if "explore" in getattr(item, "fixturenames", ())]
    minutes = _option(config, "--fuzz-minutes")
    for item in fuzzed if isinstance(minutes, float) else ():
        seconds = minutes * 60 / len(fuzzed)
        item.user_properties.append(("fuzz seconds", seconds))
        item.add_marker(pytest.mark.timeout(seconds + 900))


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Explorer:
    """Give what tries a property on many inputs (see `tests.fuzz.exploring`)."""
    seconds = dict(request.node.user_properties).get("fuzz seconds")
    replay = _option(request.config, "--fuzz-replay")
    reports = request.config.stash.setdefault(_reports, [])
    found = request.config.cache.mkdir("fuzz") if request.config.cache is not None else Path(".pytest_cache")
    return Explorer(request.node.name, found, seconds, replay if isinstance(replay, Path) else None, reports)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(_reports, []) if _option(config, "--fuzz-minutes") else ():
        terminalreporter.write_line(line)
