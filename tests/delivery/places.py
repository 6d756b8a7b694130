"""Where the tests of delivery send to."""

from __future__ import annotations

import socket

from pacs_node.config import DicomDestination


def destination_at(port: int) -> DicomDestination:
    return DicomDestination.model_validate({"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": port})


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
