"""Opening associations to other nodes: pynetdicom's application entity with a socket that sends at once and is always closed."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME


class _Socket(AssociationSocket):  # type: ignore[misc]  # pynetdicom is untyped
    """pynetdicom's own leaves the descriptor open where the peer has closed first: shutting down fails then, and closing is skipped."""

    _ever_connected = False

    @property
    def _is_connected(self) -> bool:
        """Whether a connection was made, even if it is closed by now: a quick rejection would be taken for an abort otherwise."""
        return self._ever_connected

    @_is_connected.setter
    def _is_connected(self, value: bool) -> None:
        self._ever_connected = self._ever_connected or value

    def _create_socket(self, address: AddressInformation) -> socket.socket:
        made: socket.socket = super()._create_socket(address)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def _shutdown_socket(self) -> None:
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class Checkpoint:
    """Where an association's own thread rests while somebody sends and awaits the answer; in the place of the event that pynetdicom has there.

    With an event, the thread may have passed it and not said so yet: the sender takes it for resting, and it takes the answer away from
    the sender. Here passing and saying so are one.
    """

    def __init__(self, association: Any) -> None:
        self._association, self._open, self._changed = association, True, threading.Condition()

    def set(self) -> None:
        """Let the thread go on."""
        with self._changed:
            self._open = True
            self._changed.notify_all()

    def clear(self) -> None:
        """Let the thread rest from its next round on: it does when it says so (``_is_paused``)."""
        with self._changed:
            self._open = False

    def is_set(self) -> bool:
        """Tell whether the thread may go on."""
        return self._open

    def wait(self) -> bool:
        """Rest until the thread may go on, and say at once that it does."""
        with self._changed:
            self._changed.wait_for(self.is_set)
            self._association._is_paused = False
        return True


class Requestor(AE):  # type: ignore[misc]
    """The application entity of this node where it is the one who opens associations.

    Parameters
    ----------
    ae_title
        the calling AE title
    connect, associate, response
        seconds that the peer gets for the connection, for the answer to the association request, and for every response
    """

    def __init__(self, ae_title: str, connect: float, associate: float, response: float) -> None:
        super().__init__(ae_title=ae_title)
        self.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self.connection_timeout, self.acse_timeout = connect, associate
        self.dimse_timeout = self.network_timeout = response

    def _create_socket(self, assoc: Association, address: AddressInformation, tls_args: Any) -> AssociationSocket:
        assoc._reactor_checkpoint = Checkpoint(assoc)
        made = _Socket(assoc, address=address)
        made.tls_args = tls_args
        return made
