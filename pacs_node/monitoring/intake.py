"""What receivers count (`reception.tally`)."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from pacs_node.dicom.statuses import OUT_OF_RESOURCES, SUCCESS
from pacs_node.monitoring.counting import Counts
from pacs_node.reception.admission import Rejection

REASONS: Mapping[tuple[int, int], str] = {
    (1, 7): "called AE title",
    (1, 3): "calling AE title",
    (1, 1): "address",
    (3, 2): "too many associations",
    (3, 1): "disk",
    (2, 1): "a fault of this node",
}
"""(source, reason) of an A-ASSOCIATE-RJ (PS3.8 Table 9-21), as `reception.admission` gives them → label."""


class ReceptionTally:
    """Counts for one receiver process; called from the threads of its associations."""

    def __init__(self, counts: Counts) -> None:
        self._counts, self._open, self._lock = counts, 0, threading.Lock()
        counts.set("pacs_node_associations_open", counts.process, value=0.0)
        for name in ("pacs_node_associations_accepted", "pacs_node_received_bytes"):
            counts.add(name, amount=0.0)  # a rate needs the zero before the first
        for reason in (*REASONS.values(), "other"):
            counts.add("pacs_node_associations_rejected", reason, amount=0.0)
        for answer in ("stored", "refused", "quarantined"):
            counts.add("pacs_node_instances_answered", answer, amount=0.0)

    def accepted(self) -> None:
        """An association was accepted."""
        self._counts.add("pacs_node_associations_accepted")
        self._now_open(1)

    def rejected(self, rejection: Rejection) -> None:
        """An association was rejected."""
        self._counts.add("pacs_node_associations_rejected", REASONS.get((rejection.source, rejection.reason), "other"))

    def ended(self, released: bool) -> None:
        """An accepted association is over."""
        self._counts.add("pacs_node_associations_ended", "released" if released else "aborted")
        self._now_open(-1)

    def answered(self, status: int, size: int, seconds: float | None) -> None:
        """A C-STORE request with ``size`` bytes was answered; ``seconds``: how long it took to make it durable, None where it was not kept."""
        answer = "stored" if status == SUCCESS else "refused" if status == OUT_OF_RESOURCES else "quarantined"
        self._counts.add("pacs_node_instances_answered", answer)
        self._counts.add("pacs_node_received_bytes", amount=size)
        if seconds is not None:
            self._counts.observe("pacs_node_spool_sync_seconds", value=seconds)

    def turned(self) -> None:
        """The server's loop went round."""
        self._counts.beat()

    def _now_open(self, more: int) -> None:
        with self._lock:
            self._open += more
            self._counts.set("pacs_node_associations_open", self._counts.process, value=self._open)
