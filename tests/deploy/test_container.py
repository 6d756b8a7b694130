"""The image and the compose file, by what can be checked without building them: schemas, and rules that hold for every part."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from pacs_node.config import Settings, load_settings
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
TORCH = re.search(r'"(torch==[0-9.]+)"', (ROOT / "pyproject.toml").read_text())
IGNORED = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile: word and rest."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


def of(word: str) -> list[str]:
    return [rest for name, rest in instructions() if name == word]


def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return data


SERVICES = compose()["services"]


# --- the image ---------------------------------------------------------------------------------------------------------------


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    assert of("USER") == ["10001:10001"]  # a number, so that an orchestrator can see that it is not root
    names = [name for name, _ in instructions()]
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("RUN", "COPY"))


def test_every_base_image_has_a_version() -> None:
    arguments = dict(rest.split("=", 1) for rest in of("ARG"))
    stages = {rest.split(" AS ")[1] for rest in of("FROM")}
    for rest in of("FROM"):
        base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest.split(" AS ")[0])
        assert base in stages or re.search(r":[0-9]+\.[0-9]+\.[0-9]+", base), base


def test_both_variants_install_the_torch_that_the_package_asks_for() -> None:
    assert TORCH is not None
    made = [rest for rest in of("RUN") if "install" in rest and "torch" in rest]
    assert len(made) == 2 and all(TORCH[1] in rest for rest in made)
    assert {"torch-cpu", "torch-cuda"} <= {rest.split(" AS ")[1] for rest in of("FROM")}


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    assert not of("ADD")
    sources = [source for rest in of("COPY") if not rest.startswith("--from") for source in rest.split()[:-1]]
    assert {"pacs_node", "models", "config", "pyproject.toml"} <= set(sources)
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in IGNORED
    assert IGNORED[0] == "*"  # nothing else travels: no data, no secrets, no history


def test_extras_of_the_image_are_extras_of_the_package() -> None:
    import tomllib

    known = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    (default,) = [rest.removeprefix("EXTRAS=") for rest in of("ARG") if rest.startswith("EXTRAS=")]
    given = SERVICES["node"]["build"]["args"]["EXTRAS"]
    assert set(f"{default},{given}".split(",")) <= known


def test_the_image_starts_what_the_package_installs_and_opens_the_ports_of_the_defaults() -> None:
    assert json.loads(of("ENTRYPOINT")[0]) == ["pacs-node"]
    assert json.loads(of("CMD")[0])[0] == "run"
    settings = Settings()
    assert of("EXPOSE") == [f"{settings.node.port} 2762 {settings.monitoring.port}"]
    assert of("STOPSIGNAL") == ["SIGTERM"]


def test_the_health_check_asks_a_path_that_the_node_answers() -> None:
    (check,) = of("HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command == SERVICES["node"]["healthcheck"]["test"][1:]
    assert f"http://127.0.0.1:{Settings().monitoring.port}/live" in command[-1]
    assert 'Route("/live"' in (ROOT / "pacs_node" / "monitoring" / "health.py").read_text()


# --- compose -----------------------------------------------------------------------------------------------------------------


def test_the_compose_file_keeps_to_the_schema() -> None:
    line = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec", str(DEPLOY / "compose.yaml")]
    checked = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_docker_compose_reads_it(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("docker compose is not installed")
    read = subprocess.run([docker, "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"], capture_output=True, text=True, check=False)
    assert read.returncode == 0, read.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_has_a_version_and_few_rights(name: str) -> None:
    service = SERVICES[name]
    assert re.search(r":v?[0-9]+\.[0-9]+", service["image"]), service["image"]
    assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged") and service.get("network_mode") is None
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:") or port == "11112:11112"  # only studies come in from other machines
    if name != "archive":  # Orthanc's image writes its configuration at the start
        assert service["read_only"] is True
        assert not service["user"].startswith(("0", "root"))
        assert "healthcheck" in service


def test_the_parts_that_were_asked_for_are_there_and_the_node_waits_for_its_database() -> None:
    assert set(SERVICES) == {"node", "database", "archive", "prometheus", "grafana"}
    assert SERVICES["node"]["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_what_is_mounted_exists_and_no_secret_stands_in_the_file() -> None:
    secrets = compose()["secrets"]
    for key, value in ((key, value) for service in SERVICES.values() for key, value in service.get("environment", {}).items()):
        assert not re.search("PASSWORD|TOKEN|SECRET", key) or (key.endswith("_FILE") and value.startswith("/run/secrets/"))
    used = {one if isinstance(one, str) else one["source"] for service in SERVICES.values() for one in service.get("secrets", ())}
    assert used == set(secrets)
    assert set(compose()["volumes"]) == {one.split(":")[0] for service in SERVICES.values() for one in service.get("volumes", ()) if isinstance(one, str)}
    for service in SERVICES.values():
        for mount in service.get("volumes", ()):
            if isinstance(mount, dict):
                assert (DEPLOY / mount["source"]).exists(), mount


def test_the_secrets_are_made_once_and_are_closed_to_others(tmp_path: Path) -> None:
    script = shutil.copy(DEPLOY / "secrets.sh", tmp_path)
    for _ in range(2):
        made = subprocess.run(["sh", script], capture_output=True, text=True, check=False)
        assert made.returncode == 0, made.stderr
        found = {path.name: path.read_bytes() for path in (tmp_path / "secrets").iterdir()}
        assert {Path(one["file"]).name for one in compose()["secrets"].values()} == set(found)
    assert "made" not in made.stdout  # the second time
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert len(found["database_password"]) == 48 and json.loads(found["archive_users.json"])["RegisteredUsers"]["admin"]
    assert len({found["database_password"], found["metrics_token"], found["grafana_password"]}) == 3


def test_secrets_are_never_committed() -> None:
    ignored = subprocess.run(["git", "check-ignore", "deploy/secrets/database_password"], cwd=ROOT, capture_output=True, text=True, check=False)
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.returncode == 0


def test_the_node_of_the_compose_file_is_configured_for_the_parts_beside_it() -> None:
    settings = load_settings(DEPLOY / "compose" / "node.yaml")
    archive = settings.destinations["research"]
    orthanc = json.loads((DEPLOY / "compose" / "orthanc.json").read_text())
    assert isinstance(archive, BaseModel) and (archive.address, archive.ae_title, archive.port) == ("archive", orthanc["DicomAet"], orthanc["DicomPort"])
    assert orthanc["DicomModalities"]["pacs-node"] == [settings.node.ae_titles[0], "node", settings.node.port]
    assert settings.database.url == "postgresql+psycopg://pacs_node@database/pacs_node"
    assert settings.monitoring.public and settings.monitoring.auth is not None
    assert str(settings.monitoring.auth.users_file) == "/run/secrets/page_users" and str(settings.monitoring.metrics_token_file) == "/run/secrets/metrics_token"
    (scraped,) = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())["scrape_configs"]
    assert scraped["static_configs"][0]["targets"] == [f"node:{settings.monitoring.port}"]
    assert {"source": "metrics_token", "target": scraped["authorization"]["credentials_file"]} in SERVICES["prometheus"]["secrets"]
    (dashboards,) = yaml.safe_load((DEPLOY / "compose" / "grafana" / "dashboards" / "pacs-node.yaml").read_text())["providers"]
    places = [mount["target"] for mount in SERVICES["grafana"]["volumes"] if isinstance(mount, dict)]
    assert any(place.startswith(dashboards["options"]["path"]) for place in places)
    assert os.path.dirname(str(settings.node.data)) == of("VOLUME")[0]
