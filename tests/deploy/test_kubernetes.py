"""The manifests: by the schemas of Kubernetes, by the restricted pod security standard, and by what the parts need."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pacs_node.cli.running import RoleName
from pacs_node.config import load_settings
from tests.conftest import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"


def manifests() -> list[dict[str, Any]]:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert set(listed) == {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml"}
    return [one for name in listed for one in yaml.safe_load_all((FOLDER / name).read_text())]


MANIFESTS = manifests()
DEPLOYMENTS = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == "Deployment"}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, one in DEPLOYMENTS.items():
        yield name, one["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", ["1.28", "1.31"])
@pytest.mark.parametrize("one", MANIFESTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_every_manifest_keeps_to_the_schema(one: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(one, version, strict=True)


def test_a_wrong_manifest_would_be_found() -> None:
    wrong = {**DEPLOYMENTS["core"], "spec": {**DEPLOYMENTS["core"]["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.31", strict=True)


def test_kustomize_puts_them_together() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    made = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, timeout=60, check=False)
    assert made.returncode == 0, made.stderr
    found = list(yaml.safe_load_all(made.stdout))
    assert len(found) == len(MANIFESTS)
    assert {one["metadata"].get("namespace") for one in found if one["kind"] != "Namespace"} == {"pacs-node"}


def test_receivers_core_and_workers_are_apart() -> None:
    roles = {name: pod["containers"][0]["args"][-1] for name, pod in pods()}
    assert roles == {"receiver": "receiver", "core": "core", "worker": "worker"}
    assert set(roles.values()) <= {role.value for role in RoleName}
    assert DEPLOYMENTS["core"]["spec"]["strategy"] == {"type": "Recreate"} and DEPLOYMENTS["core"]["spec"]["replicas"] == 1
    limits = {name: pod["containers"][0]["resources"]["limits"] for name, pod in pods()}
    assert [name for name in limits if "nvidia.com/gpu" in limits[name]] == ["worker"]


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=list(DEPLOYMENTS))
def test_every_pod_keeps_to_the_restricted_standard_and_its_root_is_read_only(name: str, pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001  # as in the image
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert not container["image"].endswith(":latest") and ":" in container["image"]
        assert "memory" in container["resources"]["limits"]
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim"}
    assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize(("name", "pod"), list(pods()), ids=list(DEPLOYMENTS))
def test_every_pod_is_probed(name: str, pod: dict[str, Any]) -> None:
    (container,) = pod["containers"]
    ports = {port["name"] for port in container.get("ports", ())}
    assert {"startupProbe", "livenessProbe"} <= set(container)
    for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
        for way in ("tcpSocket", "httpGet"):
            if way in container.get(kind, {}):
                assert container[kind][way]["port"] in ports
    if name != "worker":  # serves nobody
        assert "readinessProbe" in container


def test_the_probe_of_a_worker_sees_whether_the_first_process_has_children(tool: Callable[[str], str], tmp_path: Path) -> None:
    unshare, python = tool("unshare"), shutil.which("python3")
    command = DEPLOYMENTS["worker"]["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"]["command"]
    assert command[0] == "python"
    (tmp_path / "probe.py").write_text(command[2])
    for child, expected in (("sleep 5 &", 0), ("", 1)):  # the probe itself is started from outside, and is no child of process 1: here it is replaced
        script = f"{child} exec setsid --fork --wait {python} {tmp_path / 'probe.py'}" if child else f"exec {python} {tmp_path / 'probe.py'}"
        ran = subprocess.run([unshare, "--pid", "--fork", "--mount-proc", "sh", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        if "unshare failed" in ran.stderr:
            pytest.skip("this machine lets nobody make a process namespace")
        assert ran.returncode == expected, ran.stderr


def test_services_and_policies_meet_the_pods_that_they_mean() -> None:
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in DEPLOYMENTS.items()}
    for one in MANIFESTS:
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"].items() <= labels[one["metadata"]["name"]].items()
        if one["kind"] == "Service":
            (name,) = [name for name in labels if one["spec"]["selector"].items() <= labels[name].items()]
            ports = {port["name"] for port in DEPLOYMENTS[name]["spec"]["template"]["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in one["spec"]["ports"]} <= ports
    policies = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "NetworkPolicy"}
    assert policies["nothing-else"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert {"receiver", "core"} <= set(policies)
    assert "egress" not in policies["receiver"]  # it opens no connection at all


def test_the_configuration_in_the_cluster_is_one_that_the_node_takes(tmp_path: Path) -> None:
    (configuration,) = [one for one in MANIFESTS if one["kind"] == "ConfigMap"]
    file = tmp_path / "node.yaml"
    file.write_text(configuration["data"]["node.yaml"])
    settings = load_settings(file)
    pod = DEPLOYMENTS["core"]["spec"]["template"]["spec"]
    places = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert settings.monitoring.auth is not None and settings.monitoring.auth.users_file is not None
    for path in (settings.node.data, settings.monitoring.auth.users_file, settings.monitoring.metrics_token_file):
        assert str(path.parent if path else "") in places
    assert settings.database.url is not None  # several machines share it
    assert settings.reception.senders
    (claim,) = [one for one in MANIFESTS if one["kind"] == "PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for _, other in pods():
        assert claim["metadata"]["name"] in {volume["persistentVolumeClaim"]["claimName"] for volume in other["volumes"] if "persistentVolumeClaim" in volume}
