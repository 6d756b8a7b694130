"""The systemd unit, the certificates of a trial, and the node under the restrictions that it is deployed with."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from pacs_node.config import Settings
from pacs_node.dicom.certificates import examine_destination, examine_reception
from tests.conftest import ROOT
from tests.reception.peers import wait_until

UNIT = ROOT / "deploy" / "systemd" / "pacs-node.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Copy the unit with a program that exists here."""
    copy = tmp_path / "pacs-node.service"
    copy.write_text(UNIT.read_text().replace("/opt/pacs-node/bin/pacs-node", sys.executable))
    return copy


def test_systemd_finds_nothing_wrong_with_the_unit(tool: Callable[[str], str], unit: Path) -> None:
    verified = subprocess.run([tool("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    said = [line for line in verified.stderr.splitlines() if "pacs-node" in line]
    assert (verified.returncode, said) == (0, [])


def test_a_wrong_unit_would_be_found(tool: Callable[[str], str], unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystems=strict"))
    verified = subprocess.run([tool("systemd-analyze"), "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    assert "ProtectSystems" in verified.stderr


def test_the_unit_exposes_little(tool: Callable[[str], str], unit: Path) -> None:
    judged = subprocess.run(
        [tool("systemd-analyze"), "security", "--offline=true", "--threshold=20", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert judged.returncode == 0, judged.stdout[-300:]  # at most 2.0 of 10
    assert "OK" in judged.stdout.splitlines()[-1]


def test_the_unit_drains_before_it_is_killed() -> None:
    from pacs_node.node import STOP_SECONDS

    text = UNIT.read_text()
    assert int(re.search(r"TimeoutStopSec=(\d+)", text)[1]) > STOP_SECONDS  # type: ignore[index]
    assert "Restart=always" in text and "ExecReload=/bin/kill -HUP $MAINPID" in text


# --- certificates -------------------------------------------------------------------------------------------------------------


def test_certificates_of_a_trial_are_what_node_and_peers_take(tool: Callable[[str], str], tmp_path: Path) -> None:
    tool("openssl")
    folder = tmp_path / "certificates"
    for _ in range(2):
        names = ["node,localhost,127.0.0.1", "archive,pacs.example"]
        made = subprocess.run(["sh", str(ROOT / "deploy" / "tls.sh"), str(folder), *names], capture_output=True, text=True, timeout=120, check=False)
        assert made.returncode == 0, made.stderr
    assert "kept" in made.stdout  # the second time
    tls = {"certificate": str(folder / "node.pem"), "key": str(folder / "node.key"), "ca": str(folder / "ca.pem")}
    place = {"kind": "dicom", "ae_title": "A", "address": "pacs.example", "port": 2762, "tls": tls}
    settings = Settings.model_validate({"node": {"tls_port": 2762}, "reception": {"tls": tls}, "destinations": {"archive": place}})
    now = datetime.now(UTC)
    assert list(examine_reception(settings, now)) == []  # not even a warning: key closed to others, valid for more than a month
    assert list(examine_destination("archive", settings.destinations["archive"], now)) == []  # type: ignore[arg-type]
    line = [tool("openssl"), "verify", "-CAfile", str(folder / "ca.pem"), "-verify_hostname", "pacs.example", str(folder / "archive.pem")]
    assert subprocess.run(line, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("arguments", [[], ["folder"], ["folder", "../x"], ["folder", "ca"]])
def test_certificates_are_not_made_for_nothing(arguments: list[str], tmp_path: Path) -> None:
    line = ["sh", str(ROOT / "deploy" / "tls.sh"), *(str(tmp_path / one) if one == "folder" else one for one in arguments)]
    assert subprocess.run(line, capture_output=True, text=True, check=False).returncode == 2
    assert not list(tmp_path.rglob("*.key")) or arguments[1:] != []


# --- as it is deployed --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_node_runs_without_rights_where_nothing_but_its_data_and_tmp_can_be_written(tool: Callable[[str], str], tmp_path: Path) -> None:
    """As in the image: user 10001 (root where only root may start this Python), no capability, read-only root; SIGTERM ends it."""
    if os.geteuid() != 0:
        pytest.skip("only root can make the root read-only")
    unshare, setpriv = tool("unshare"), tool("setpriv")
    data = Path("/tmp") / f"pacs-node-test-{os.getpid()}"  # outside of pytest's own folders, which are root's
    data.mkdir(mode=0o755)
    config = data / "node.yaml"
    given = {
        "node": {"port": 0, "data": str(data / "data"), "address": "127.0.0.1"},
        "reception": {"reserve": "1MB", "processes": 1},
        "monitoring": {"port": 0},
    }
    config.write_text(yaml.safe_dump(given))
    user = 10001 if all(folder.stat().st_mode & 0o001 for folder in Path(sys.executable).resolve().parents) else 0
    for path in (data, config):
        os.chown(path, user, user)
    rights = "--clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs"
    inside = f"mount --bind {data} {data} && mount --make-private / && mount -o remount,ro,bind / && mount -o remount,rw,bind {data} && "
    inside += f"exec {setpriv} --reuid={user} --regid={user} {rights} {sys.executable} -m pacs_node.cli run --config {config}"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(data), "TMPDIR": str(data), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}
    log = tmp_path / "node.log"
    with log.open("wb") as sink:
        node = subprocess.Popen([unshare, "--mount", "sh", "-c", inside], stdout=sink, stderr=sink, cwd=data, env=environment)
    try:
        wait_until(lambda: node.poll() is not None or "core ready" in log.read_text(), 200)
        if "permitted" in log.read_text() and node.poll() is not None:
            pytest.skip("this machine lets nobody make a mount namespace")
        assert node.poll() is None, log.read_text()
        status = Path(f"/proc/{node.pid}/status").read_text()
        assert re.search(rf"^Uid:\s+{user}\s+{user}", status, re.MULTILINE) and re.search(r"^CapEff:\s+0{16}$", status, re.MULTILINE)
        node.send_signal(signal.SIGTERM)
        assert node.wait(120) == 0, log.read_text()
        assert (data / "data" / "node.db").is_file() and (data / "data" / "node.db").stat().st_uid == user
        assert "Read-only file system" not in log.read_text()
    finally:
        if node.poll() is None:
            node.kill()
        subprocess.run(["rm", "-rf", str(data)], check=False)
