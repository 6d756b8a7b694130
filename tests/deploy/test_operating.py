"""The operating guide: what it tells people to type exists, option by option."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from typer.main import get_command

from pacs_node.cli import app
from tests.conftest import ROOT

GUIDE = (ROOT / "deploy" / "OPERATING.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def lines() -> Iterator[str]:
    """Give what stands in blocks of shell commands, and commands within the text."""
    for block in re.findall(r"^```sh\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE):
        yield from re.sub(r"\\\n *", " ", block).splitlines()
    yield from re.findall(r"`(pacs-node [^`]+)`", GUIDE)


CALLS = sorted({call.strip() for line in lines() for call in re.findall(r"(?:^|&& |exec node |bin/)(pacs-node (?:[a-z]|--)[^&|#]*)", line)})


def test_the_guide_names_commands() -> None:
    assert len(CALLS) > 8


@pytest.mark.parametrize("call", CALLS)
def test_commands_of_the_guide_exist_with_their_options(call: str) -> None:
    words = shlex.split(call)[1:]
    command = get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, call
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known, call


def test_files_that_guide_and_readme_name_exist() -> None:
    named = set(re.findall(r"(?:deploy|config)/[\w./-]*\w", GUIDE + README)) - {"deploy/secrets/page_users"}
    assert len(named) > 10
    missing = [name for name in sorted(named) if not (ROOT / name).exists() and not list((ROOT / name).parent.glob(f"{(ROOT / name).name}*"))]
    assert not missing or set(missing) <= {"config/users"}  # made by a command


def test_numbers_of_the_guide_are_those_of_the_code() -> None:
    from pacs_node.config import Settings
    from pacs_node.node import DRAIN_SECONDS

    assert f"`retention.keep` ({Settings().retention.keep.days})" in GUIDE
    assert f"open associations get {DRAIN_SECONDS:.0f} s" in GUIDE
    assert "torch==2.13.0" in GUIDE and "torch==2.13.0" in (ROOT / "pyproject.toml").read_text()
