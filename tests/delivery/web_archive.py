"""A DICOMweb server in a thread: takes everything and says so in JSON, unless a test tells it to answer otherwise."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

from pacs_node.config import StowDestination

CT = "1.2.840.10008.5.1.4.1.1.2"


@dataclass(frozen=True)
class Request:
    """One STOW-RS request as it came: the objects by SOP Instance UID, in order."""

    headers: Mapping[str, str]
    objects: Mapping[str, bytes]


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


OnStore = Callable[[Request], Reply | bytes | Iterator[bytes]]  # bytes go out as they are, HTTP or not


class Reset(Exception):
    """Raised by a script: the connection is torn down without an answer."""


def item(uid: str, **more: object) -> dict[str, Any]:
    found: dict[str, Any] = {"00081150": {"vr": "UI", "Value": [more.get("sop_class", CT)]}, "00081155": {"vr": "UI", "Value": [uid]}}
    if "warning" in more:
        found["00081196"] = {"vr": "US", "Value": [more["warning"]]}
    if "reason" in more:
        found["00081197"] = {"vr": "US", "Value": [more["reason"]]}
    return found


def said(stored: Sequence[dict[str, Any]] = (), failed: Sequence[dict[str, Any]] = (), other: Sequence[int] = ()) -> bytes:
    """Return a Store Instances Response Module in JSON."""
    model: dict[str, Any] = {"00081190": {"vr": "UR", "Value": ["http://127.0.0.1/studies/1"]}}
    if stored:
        model["00081199"] = {"vr": "SQ", "Value": list(stored)}
    if failed:
        model["00081198"] = {"vr": "SQ", "Value": list(failed)}
    if other:
        model["0008119A"] = {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}} for reason in other]}
    return json.dumps(model).encode()


def as_xml(model: Mapping[str, Any]) -> str:
    """Write what `said` gives, parsed, as the Native DICOM Model."""
    rows = []
    for tag, attribute in model.items():
        values = [
            f'<Item number="{number}">{as_xml(value)}</Item>' if isinstance(value, dict) else f'<Value number="{number}">{value}</Value>'
            for number, value in enumerate(attribute["Value"], 1)
        ]
        rows.append(f'<DicomAttribute tag="{tag}" vr="{attribute["vr"]}">{"".join(values)}</DicomAttribute>')
    return "".join(rows)


def xml_document(body: bytes) -> bytes:
    head = '<?xml version="1.0" encoding="utf-8"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">'
    return f"{head}{as_xml(json.loads(body))}</NativeDicomModel>".encode()


class WebArchive:
    """``on_store`` answers STOW requests, ``on_query`` queries; `kept` is what a query finds (SOP Instance UID → object)."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.kept: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.queries: list[str] = []
        self.authorised: Callable[[str], bool] = lambda header: True
        self.on_store: OnStore = self.keep
        self.on_query: Callable[[str, Mapping[str, str]], Reply] = self.find
        self.stopped = threading.Event()
        archive = self

        class Handler(_Handler):
            owner = archive

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                return  # peers that go away are what some tests are about

        self._server = Server(("127.0.0.1", 0), Handler)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def place(self, **values: object) -> StowDestination:
        return StowDestination.model_validate({"kind": "stow", "url": f"http://127.0.0.1:{self.port}/dicom-web", **values})

    def keep(self, request: Request) -> Reply:
        """Keep everything: what a server does that has nothing against it."""
        self.kept.update(request.objects)
        classes = {uid: str(dcmread(BytesIO(content)).SOPClassUID) for uid, content in request.objects.items()}
        return Reply(200, said([item(uid, sop_class=sop_class) for uid, sop_class in classes.items()]))

    def find(self, path: str, query: Mapping[str, str]) -> Reply:
        """Answer an instance query within a series from what is kept."""
        found = []
        for content in self.kept.values():
            dataset = dcmread(BytesIO(content))
            if path.endswith(f"/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances"):
                model = {"00080018": {"vr": "UI", "Value": [str(dataset.SOPInstanceUID)]}, "00100020": {"vr": "LO", "Value": [str(dataset.PatientID)]}}
                found += [model] if query.get("SOPInstanceUID") == dataset.SOPInstanceUID else []
        return Reply(200, json.dumps(found).encode()) if found else Reply(204)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: WebArchive

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        self.owner.queries.append(self.path)
        if not self.owner.authorised(self.headers.get("Authorization", "")):
            return self._answer(Reply(401))
        parts = urlsplit(self.path)
        return self._answer(self.owner.on_query(parts.path, {key: values[0] for key, values in parse_qs(parts.query).items()}))

    def do_POST(self) -> None:
        assert self.path == "/dicom-web/studies"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        objects = split(body, self.headers["Content-Type"])
        self.owner.requests.append(Request(dict(self.headers), objects))
        if not self.owner.authorised(self.headers.get("Authorization", "")):
            return self._answer(Reply(401))
        try:
            self._answer(self.owner.on_store(self.owner.requests[-1]))
        except Reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True

    def _answer(self, reply: Reply | bytes | Iterator[bytes]) -> None:
        if not isinstance(reply, Reply):
            for piece in [reply] if isinstance(reply, bytes) else reply:
                self.wfile.write(piece)
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body)


def split(body: bytes, content_type: str) -> dict[str, bytes]:
    """Take a multipart/related body apart as PS3.18 wants it made."""
    kind, *parameters = [part.strip() for part in content_type.split(";")]
    values = dict(part.split("=", 1) for part in parameters)
    assert kind == "multipart/related" and values["type"] == '"application/dicom"'
    boundary = f"--{values['boundary']}".encode()
    assert body.startswith(boundary + b"\r\n") and body.endswith(b"\r\n" + boundary + b"--\r\n")
    found = {}
    for part in body[: -len(boundary) - 4].split(boundary + b"\r\n")[1:]:
        head, _, content = part.partition(b"\r\n\r\n")
        assert head == b"Content-Type: application/dicom" and content.endswith(b"\r\n")
        found[str(dcmread(BytesIO(content[:-2]), stop_before_pixels=True).SOPInstanceUID)] = content[:-2]
    return found
