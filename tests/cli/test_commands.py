"""The command line as an administrator meets it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
import yaml
from typer.main import get_command

from pacs_node.cli import app, main
from pacs_node.delivery.archive import FolderArchive
from tests.conftest import ROOT
from tests.journey.support import ct_study

COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]


@dataclass
class Answer:
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Answer]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs a command through the console script's entry, in this process."""

    def call(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["pacs-node", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        code, root = 0, logging.getLogger()
        handlers = list(root.handlers)
        try:
            main()
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        finally:
            root.handlers = handlers  # `run` sends the log to this call's standard error
            structlog.reset_defaults()
            structlog.contextvars.clear_contextvars()
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return call


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    for index, dataset in enumerate(ct_study(4)):
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "node.yaml"
    destinations = {"research": {"kind": "folder", "path": str(tmp_path / "out")}}
    path.write_text(yaml.safe_dump({"node": {"data": str(tmp_path / "data")}, "reception": {"reserve": "1MB"}, "destinations": destinations}))
    return path


def test_every_command_of_the_design_exists() -> None:
    first = {"run", "check", "explain", "send", "status", "jobs", "job", "deliveries", "retry", "cancel", "release", "shadow"}
    assert first | {"analyse", "train", "calibrate", "evaluate", "phantom", "demo"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    text = get_command(app).commands[name].help  # type: ignore[attr-defined]
    assert re.search(rf"Examples?: pacs-node {name}", text or ""), text


def test_every_command_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"(?:`|/|^)pacs-node ([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named
    assert named <= set(COMMANDS)


def test_wrong_usage_is_exit_code_2(run: Run) -> None:
    assert run("check", "--no-such-option").returncode == 2


def test_status_before_the_first_start_says_what_to_do(run: Run, config: Path) -> None:
    answer = run("status", "--config", str(config))
    assert answer.returncode == 1
    assert "pacs-node run" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_typo_in_the_configuration_is_named_with_its_line(run: Run, config: Path) -> None:
    config.write_text("node:\n  prot: 104\n")
    answer = run("check", "--config", str(config))
    assert answer.returncode == 1
    assert f"{config}:2: node.prot" in answer.stdout
    assert "did you mean 'port'" in answer.stdout


def test_check_says_what_is_well_and_that_any_sender_may_send(run: Run, config: Path) -> None:
    answer = run("check", "--config", str(config))
    assert answer.returncode == 0, answer.stdout
    assert "ANY sender may send" in answer.stdout
    assert "bundle ct-head" in answer.stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("executor", {"kind": "ray"}),
    ],
)
def test_what_this_version_cannot_do_is_refused_and_not_ignored(run: Run, config: Path, key: str, value: dict[str, object]) -> None:
    settings = yaml.safe_load(config.read_text())
    settings[key] = {**settings.get(key, {}), **value}
    config.write_text(yaml.safe_dump(settings))
    checked, started = run("check", "--config", str(config)), run("run", "--config", str(config))
    assert (checked.returncode, started.returncode) == (1, 1)
    assert "not available in this version" in checked.stdout
    assert "not available in this version" in started.stderr


@pytest.mark.parametrize("where", ["reception", "destination"])
def test_a_missing_certificate_is_named_with_its_key_by_check_and_by_run(run: Run, config: Path, tmp_path: Path, where: str) -> None:
    settings, gone = yaml.safe_load(config.read_text()), str(tmp_path / "gone.pem")
    tls = {"certificate": gone, "key": gone, "ca": gone}
    if where == "reception":
        settings["node"]["tls_port"], settings["reception"]["tls"] = 2762, tls
    else:
        settings["destinations"]["pacs"] = {"kind": "dicom", "ae_title": "P", "address": "h", "port": 104, "accepts_research": True, "tls": tls}
    config.write_text(yaml.safe_dump(settings))
    checked = run("check", "--config", str(config))
    assert checked.returncode == 1
    key = "reception.tls.ca" if where == "reception" else "destinations.pacs.tls.ca"
    assert f"{key}: {gone} cannot be read" in checked.stdout
    if where == "reception":  # for a destination the node starts: intake need not wait for it
        started = run("run", "--config", str(config))
        assert started.returncode == 1
        assert started.stderr.strip().splitlines()[-1].startswith(f"error: configuration: {key}: {gone} cannot be read")


def test_fsck_says_what_differs_and_mends_it_when_told(run: Run, config: Path, tmp_path: Path) -> None:
    assert "there is no data folder" in run("fsck", "--config", str(config)).stderr
    half = tmp_path / "data/spool/new/00/1.dcm.part"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half")
    looked = run("fsck", "--config", str(config))
    assert looked.returncode == 1
    assert "half-written file, never acknowledged: spool/new/00/1.dcm.part: would be removed (--repair)" in looked.stdout
    assert half.exists()
    mended = run("fsck", "--repair", "--config", str(config))
    assert (mended.returncode, half.exists()) == (0, False)
    clean = run("fsck", "--deep", "--json", "--config", str(config))
    assert clean.returncode == 0
    assert json.loads(clean.stdout) == {"findings": [], "open": 0, "waiting": 0, "repaired": False, "node_runs": False}


def test_check_names_a_missing_and_a_damaged_bundle(run: Run, config: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "ct-head", models / "ct-head")
    weights = models / "ct-head" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7] + b"damaged")
    settings = yaml.safe_load(config.read_text())
    settings["node"]["models"] = str(models)
    config.write_text(yaml.safe_dump(settings))
    answer = run("check", "--config", str(config))
    assert answer.returncode == 1
    assert re.search(r"fault .*weights.safetensors", answer.stdout)
    assert re.search(r"fault .*rules.yaml.*ct-body", answer.stdout)


def test_explain_says_which_rule_fires_and_why(run: Run, study: Path, config: Path) -> None:
    answer = run("explain", str(study), "--config", str(config), "--json")
    assert answer.returncode == 0, answer.stderr
    rules = {rule["rule"]: rule["fired"] for rule in json.loads(answer.stdout)[0]["rules"]}
    assert [name for name, fired in rules.items() if fired] == ["CT head"]


def test_explain_without_a_file_or_a_time_is_wrong_usage(run: Run, config: Path) -> None:
    assert run("explain", "--config", str(config)).returncode == 2


def test_send_sends_the_dicom_files_of_a_folder_and_passes_others_over(run: Run, study: Path, tmp_path: Path) -> None:
    (study / "readme.txt").write_text("no DICOM object")
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE").start()
    try:
        answer = run("send", str(study), "--to", f"127.0.0.1:{archive.port}", "--aet", "ARCHIVE")
    finally:
        archive.stop()
    assert answer.returncode == 0, answer.stderr
    assert "4 instances sent, 1 files passed over" in answer.stdout
    assert len(archive.received) == 4


def test_send_names_what_is_wrong(run: Run, study: Path, tmp_path: Path) -> None:
    nobody = run("send", str(study), "--to", "127.0.0.1:1", "--aet", "ARCHIVE")
    assert nobody.returncode == 1
    assert "127.0.0.1:1" in nobody.stderr
    nothing = run("send", str(tmp_path / "nowhere"), "--to", "127.0.0.1:1", "--aet", "A")
    assert "does not exist" in nothing.stderr
    text = tmp_path / "text"
    text.mkdir()
    (text / "a.txt").write_text("no DICOM object")
    assert "no DICOM object was found" in run("send", str(text), "--to", "127.0.0.1:1", "--aet", "A").stderr
    assert "HOST:PORT" in run("send", str(study), "--to", "localhost", "--aet", "A").stderr
    for answer in (nobody, nothing):
        assert "Traceback" not in answer.stderr


def test_retry_of_what_does_not_exist_is_said(run: Run, config: Path, tmp_path: Path) -> None:
    from pacs_node.config import load_settings
    from pacs_node.database.engine import Store, database_url

    settings = load_settings(config)
    settings.node.data.mkdir()
    store = Store(database_url(None, settings.node.data))
    store.upgrade()
    store.close()
    for line, words in [("retry job 7", "no job 7"), ("retry delivery 9", "no delivery 9"), ("release 3", "no study 3"), ("job 5", "no job 5")]:
        answer = run(*line.split(), "--config", str(config))
        assert (answer.returncode, words in answer.stderr) == (1, True), answer.stderr
    assert run("retry", "--config", str(config)).returncode == 2
