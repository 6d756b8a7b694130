"""Orthanc as a real archive: started, stopped and asked by tests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.node.support import free_port, wait_until

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")  # of the package orthanc-dicomweb


class Orthanc:
    """An Orthanc on free ports of its own, which it keeps when it is stopped and started again.

    Parameters
    ----------
    folder
        where its index, its files and its log lie
    program
        path of the program
    plugins
        what it loads
    auth
        user and password where its interface asks for them; not with TLS, on which version 1.10 of Debian 12 dies
    changes
        entries of its configuration
    """

    def __init__(self, folder: Path, program: str, plugins: Sequence[Path] = (), auth: tuple[str, str] | None = None, **changes: object) -> None:
        self.folder, self._program = folder, program
        self.dicom_port, self.http_port = free_port(), free_port()
        folder.mkdir(parents=True)
        config: dict[str, object] = {
            "Name": "test", "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomAet": "ORTHANC", "DicomPort": self.dicom_port,
            "HttpPort": self.http_port, "DicomCheckCalledAet": True, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
            "Plugins": [str(plugin) for plugin in plugins], "DicomAlwaysAllowStore": True, "OverwriteInstances": False, "SaveJobs": False,
        }  # fmt: skip
        config.update(changes)
        (folder / "orthanc.json").write_text(json.dumps(config))
        self.base = f"http://127.0.0.1:{self.http_port}"
        self._client = httpx.Client(base_url=self.base, timeout=60, auth=auth, trust_env=False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def web(self) -> str:
        """The base of its DICOMweb service."""
        return f"{self.base}/dicom-web"

    @property
    def place(self) -> dict[str, object]:
        """How a node's configuration names it as a destination."""
        return {"kind": "dicom", "ae_title": "ORTHANC", "address": "127.0.0.1", "port": self.dicom_port, "accepts_research": True}

    def start(self) -> Orthanc:
        with (self.folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen([self._program, str(self.folder / "orthanc.json")], stdout=log, stderr=log)
        wait_until(self.ready, f"Orthanc answers; its log is {self.folder / 'orthanc.log'}")
        return self

    def stop(self) -> None:
        """End it; what it has acknowledged is on its disk. A second call does nothing."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        self.stop()
        self._client.close()

    def ask(self, path: str, body: Any = None) -> Any:
        answer = self._client.get(path) if body is None else self._client.post(path, content=json.dumps(body))
        answer.raise_for_status()
        return answer.json()

    def ready(self) -> bool:
        try:
            return "Version" in self.ask("/system")
        except httpx.HTTPError:
            return False

    def instances(self) -> dict[str, str]:
        """Return SOP Instance UID → its own name, of all that it has; fails where it has one twice."""
        found = [(str(row["MainDicomTags"]["SOPInstanceUID"]), str(row["ID"])) for row in self.ask("/instances?expand&limit=100000&since=0")]
        assert len(dict(found)) == len(found)
        return dict(found)

    def file(self, name: str) -> bytes:
        """Return an instance as it keeps it."""
        return self._client.get(f"/instances/{name}/file").raise_for_status().content

    def tags(self, name: str) -> dict[str, Any]:
        """Return the attributes of an instance by their names."""
        return dict(self.ask(f"/instances/{name}/simplified-tags"))

    def upload(self, content: bytes) -> str:
        """Store a file over its own interface; returns its name there."""
        return str(self._client.post("/instances", content=content).raise_for_status().json()["ID"])

    def preview(self, name: str) -> bytes:
        """Return the first frame of an instance as the PNG that it shows."""
        return self._client.get(f"/instances/{name}/preview").raise_for_status().content
