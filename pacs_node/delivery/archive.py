"""A small storage SCP that writes what it gets into a folder: the archive of the demonstration, and the fake archive of tests."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import BaseServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt, register_uid
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from pacs_node.delivery.query import STUDY_ROOT_FIND
from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, STORAGE_CLASSES, VERIFICATION, acceptable, accepted_classes
from pacs_node.dicom.statuses import SUCCESS
from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from pacs_node.dicom.uids import derive_uid, is_valid_uid


@dataclass(frozen=True)
class Script:
    """How the archive behaves where it is not to take everything."""

    statuses: Mapping[str, int | Dataset] = field(default_factory=dict)  # SOP class or instance UID → status; a warning is stored, a failure is not
    refused_classes: frozenset[str] = frozenset()  # no presentation context
    transfer_syntaxes: frozenset[str] = frozenset(TRANSFER_SYNTAXES)  # others get no presentation context
    hang: frozenset[str] = frozenset()  # instance UIDs that are answered only after the archive stops
    abort: frozenset[str] = frozenset()  # instance UIDs at which the association is aborted
    rejection: tuple[int, int, int] | None = None  # result, source, reason of every association request (PS3.8 9.3.4)
    find: Callable[[Dataset], Iterable[tuple[int, Dataset | None]]] | None = None  # identifier → statuses and answers to C-FIND; None: not accepted


class FolderArchive:
    """A storage SCP on 127.0.0.1 that keeps each object as ``folder/<SOP Instance UID>.dcm``; a later one of the same UID replaces it.

    Parameters
    ----------
    folder
        where the objects go; made where it is missing
    ae_title
        its AE title; any called AE title is taken
    port
        0: any free port, in `port` once started
    script
        answers other than success, for tests
    """

    def __init__(self, folder: Path, ae_title: str, port: int = 0, script: Script = Script()) -> None:
        self.folder, self.ae_title, self.port, self.script = folder, ae_title, port, script
        self.received: list[str] = []  # SOP Instance UIDs in the order in which they were stored
        self._stopped = threading.Event()
        self._server: Any = None
        self._connections: dict[Any, socket.socket] = {}

    def start(self) -> FolderArchive:
        """Listen; raises OSError where the port is taken."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _teach_pynetdicom()
        self._stopped.clear()
        entity = AE(ae_title=self.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = 1 << 20
        asked = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_C_FIND, self._on_find)]
        handlers = [(evt.EVT_CONN_OPEN, self._on_open), (evt.EVT_REQUESTED, self._on_request), *asked]
        contexts = [build_context(VERIFICATION)]  # replaced for each association by what it asks for
        self._server = ThreadedAssociationServer(entity, ("127.0.0.1", self.port), self.ae_title, contexts, evt_handlers=handlers)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="archive", daemon=True).start()
        self.port = self._server.server_address[1]
        return self

    def stop(self) -> None:
        """Stop listening and abort what is open; a second call does nothing."""
        self._stopped.set()
        if self._server is not None:
            server, self._server = self._server, None
            for association in server.active_associations:
                if association.is_established:  # one that was just rejected ends by itself and takes no abort any more
                    association.abort()
            BaseServer.shutdown(server)
            server.server_close()
        self._close_ended(everything=True)

    def __enter__(self) -> FolderArchive:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def path_of(self, sop_uid: str) -> Path:
        """Return where an object lies; a UID that is none becomes a name made from it."""
        return self.folder / f"{sop_uid if is_valid_uid(sop_uid) else derive_uid('file name', sop_uid)}.dcm"

    def _on_open(self, event: Any) -> None:
        self._close_ended()
        self._connections[event.assoc] = event.assoc.dul.socket.socket

    def _close_ended(self, *, everything: bool = False) -> None:
        """Close the sockets of associations that are over: pynetdicom leaves them open where the peer has closed first."""
        for association, connection in list(self._connections.items()):
            if everything or not association.is_alive():
                del self._connections[association]
                connection.close()

    def _on_request(self, event: Any) -> None:
        association = event.assoc
        if self.script.rejection is not None:
            association.is_rejected = True
            association.acse.send_reject(*self.script.rejection)
            association.kill()
            return
        proposed = association.requestor.primitive.presentation_context_definition_list
        wanted = [(str(context.abstract_syntax), [str(uid) for uid in context.transfer_syntax if uid in self.script.transfer_syntaxes]) for context in proposed]
        classes = accepted_classes() | ({STUDY_ROOT_FIND} if self.script.find is not None else set())
        chosen = acceptable(wanted, classes - self.script.refused_classes)
        association.acceptor.supported_contexts = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in chosen.items()]

    def _on_find(self, event: Any) -> Iterable[tuple[int, Dataset | None]]:
        assert self.script.find is not None
        yield from self.script.find(event.identifier)

    def _on_store(self, event: Any) -> int | Dataset:
        sop_uid, sop_class = str(event.request.AffectedSOPInstanceUID), str(event.request.AffectedSOPClassUID)
        if sop_uid in self.script.hang:
            self._stopped.wait()
        if sop_uid in self.script.abort:
            event.assoc.abort()
            return SUCCESS
        status = self.script.statuses.get(sop_uid, self.script.statuses.get(sop_class, SUCCESS))
        code = int(status.Status) if isinstance(status, Dataset) else status
        if code == SUCCESS or code >> 12 == 0xB:
            self._keep(event, sop_uid)
        return status

    def _keep(self, event: Any, sop_uid: str) -> None:
        target = self.path_of(sop_uid)
        part = target.with_name(f"{target.name}.{threading.get_ident()}-{time.monotonic_ns()}.part")
        part.write_bytes(event.encoded_dataset())
        part.replace(target)
        self.received.append(sop_uid)


def _teach_pynetdicom() -> None:
    """Tell pynetdicom that the retired classes that it has forgotten are storage; it would abort the association otherwise."""
    for uid in STORAGE_CLASSES:
        if uid_to_service_class(uid) is ServiceClass:
            register_uid(uid, f"Storage_{uid.replace('.', '_')}", StorageServiceClass)
