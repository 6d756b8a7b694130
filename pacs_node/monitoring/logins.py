"""Failed logins to the page, counted into the spool: the core brings them into the audit trail, since this process writes into no database."""

from __future__ import annotations

from pathlib import Path

import structlog

from pacs_node.errors import SpoolFull
from pacs_node.reception.refusals import Peer, Refusals
from pacs_node.reception.spool import Spool

_LONGEST_NAME = 64  # characters that are kept of what somebody says to be called


class Logins:
    """Who said to be a user and was not: the first at once, more of a minute counted together (see `reception.refusals`)."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._refusals = Refusals(self._write)

    def failed(self, user: str, host: str) -> None:
        """Count one."""
        self._refusals.note(Peer(calling_ae=user[:_LONGEST_NAME], host=host, reason="user or password not accepted"))

    def tell(self) -> None:
        """Write down what was only counted yet, at the end of the process."""
        self._refusals.tell(everything=True)

    def _write(self, peer: Peer, count: int) -> None:
        try:
            Spool(self._data).refusal(peer.calling_ae, "", peer.host, peer.reason, count, kind="login")
        except (SpoolFull, OSError) as error:
            structlog.get_logger().warning("a failed login was not written down", address=peer.host, count=count, reason=str(error))
