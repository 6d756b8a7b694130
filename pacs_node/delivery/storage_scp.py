"""A storage SCP on pynetdicom for what people run by hand: it listens, says which associations it takes, and closes what is over (PS3.4 Annex B).

The node itself receives with `reception`, which does the same much faster.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Sequence
from socketserver import BaseServer
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt, register_uid
from pynetdicom.service_class import ServiceClass, StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class
from pynetdicom.transport import ThreadedAssociationServer

from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, STORAGE_CLASSES, VERIFICATION, acceptable, accepted_classes
from pacs_node.dicom.transfer_syntaxes import TRANSFER_SYNTAXES

Rejection = tuple[int, int, int]
"""Result, source and reason of a rejected association (PS3.8 9.3.4)."""


class StorageSCP:
    """Takes objects over C-STORE; what becomes of them is said by who inherits from it.

    Parameters
    ----------
    ae_title
        its AE title
    port
        0: any free port, in `port` once started
    address
        where it listens
    """

    def __init__(self, ae_title: str, port: int = 0, address: str = "127.0.0.1") -> None:
        self.ae_title, self.port, self.address = ae_title, port, address
        self._server: Any = None
        self._connections: dict[Any, socket.socket] = {}

    def start(self) -> None:
        """Listen; raises OSError where the port is taken."""
        _teach_pynetdicom()
        entity = AE(ae_title=self.ae_title)
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = 1 << 20
        handlers = [(evt.EVT_CONN_OPEN, self._on_open), (evt.EVT_REQUESTED, self._on_request), (evt.EVT_C_STORE, self.store), *self.more_handlers()]
        contexts = [build_context(VERIFICATION)]  # replaced for each association by what it asks for
        self._server = ThreadedAssociationServer(entity, (self.address, self.port), self.ae_title, contexts, evt_handlers=handlers)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name=self.ae_title, daemon=True).start()
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        """Stop listening and abort what is open; a second call does nothing."""
        if self._server is not None:
            server, self._server = self._server, None
            for association in server.active_associations:
                if association.is_established:  # one that was just rejected ends by itself and takes no abort any more
                    association.abort()
            BaseServer.shutdown(server)
            server.server_close()
        self._close_ended(everything=True)

    # --- what others say otherwise -------------------------------------------------------------------------------------

    def store(self, event: Any) -> int | Dataset:
        """Answer C-STORE with a status."""
        raise NotImplementedError

    def rejection(self, association: Any) -> Rejection | None:
        """Say why an association is not taken, None where it is."""
        return None

    def classes(self) -> Collection[str]:
        """Return the SOP classes that are accepted."""
        return accepted_classes()

    def syntaxes(self) -> Collection[str]:
        """Return the transfer syntaxes that are accepted."""
        return frozenset(TRANSFER_SYNTAXES)

    def more_handlers(self) -> Sequence[tuple[Any, Any]]:
        """Return the handlers of further services."""
        return ()

    # --- associations --------------------------------------------------------------------------------------------------

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
        rejection = self.rejection(association)
        if rejection is not None:
            association.is_rejected = True
            association.acse.send_reject(*rejection)
            association.kill()
            return
        taken = self.syntaxes()
        proposed = association.requestor.primitive.presentation_context_definition_list
        wanted = [(str(context.abstract_syntax), [str(uid) for uid in context.transfer_syntax if uid in taken]) for context in proposed]
        chosen = acceptable(wanted, self.classes())
        association.acceptor.supported_contexts = [build_context(abstract, list(syntaxes)) for abstract, syntaxes in chosen.items()]


def _teach_pynetdicom() -> None:
    """Tell pynetdicom that the retired classes that it has forgotten are storage; it would abort the association otherwise."""
    for uid in STORAGE_CLASSES:
        if uid_to_service_class(uid) is ServiceClass:
            register_uid(uid, f"Storage_{uid.replace('.', '_')}", StorageServiceClass)
