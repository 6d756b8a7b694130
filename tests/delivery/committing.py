"""A scripted archive that stores, is asked for commitment, and reports when and how a test says."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as STUDY_ROOT

from pacs_node.delivery.requestor import Requestor
from pacs_node.dicom.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reference, Report, read_request, report_dataset

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]
STORED = ["1.2.840.10008.5.1.4.1.1.88.34", "1.2.840.10008.5.1.4.1.1.7.4", "1.2.840.10008.5.1.4.1.1.30", "1.2.840.10008.5.1.4.1.1.2"]


class Server:
    """A pynetdicom acceptor on 127.0.0.1 that leaves no socket open."""

    def __init__(self, entity: AE, port: int, handlers: list[Any], tls: ssl.SSLContext | None = None) -> None:
        self._connections: list[Any] = []
        opened = (evt.EVT_CONN_OPEN, lambda event: self._connections.append((event.assoc, event.assoc.dul.socket.socket)))
        self._server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[opened, *handlers], ssl_context=tls)
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        for association, _ in self._connections:
            association.join(2)
        self._server.shutdown()
        for _, connection in self._connections:
            connection.close()


@dataclass
class CommittingArchive:
    """What it does may be changed while it runs."""

    when: str = "after"  # the report goes: before or after the response on the same association, on a `new` one, `never`
    reasons: dict[str, int] = field(default_factory=dict)  # SOP instance or class UID → failure reason
    status: int = 0x0000  # of the response to a request
    store_status: int = 0x0000
    times: int = 1  # each report is sent
    commits: bool = True  # accepts the presentation context
    finds: bool = True
    forgets: set[str] = field(default_factory=set)  # SOP classes of what it says to have stored and has not
    silent_about: set[str] = field(default_factory=set)  # SOP classes
    port: int = 0
    reports_to: int = 0  # port of the node
    roles: bool = True  # proposes the role of the SCP on a new association
    ae_title: str = "ARCHIVE"
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
        self.sent: list[str] = []  # every C-STORE
        self.kept: dict[str, str] = {}  # SOP instance UID → class
        self.requests: list[Any] = []
        self.answers: list[int | None] = []  # status that the node gave to each report
        self.finished = threading.Event()
        self.gate: Callable[[], None] = lambda: None  # called before a report is sent
        self.hold_response: Callable[[], object] = lambda: None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> CommittingArchive:
        entity = AE(ae_title=self.ae_title)
        entity.supported_contexts = [build_context(uid, SYNTAXES) for uid in [*STORED, "1.2.840.10008.1.1"]]
        if self.commits:
            entity.add_supported_context(PUSH_MODEL, SYNTAXES)
        if self.finds:
            entity.add_supported_context(STUDY_ROOT, SYNTAXES)
        entity.network_timeout = 60
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._act), (evt.EVT_C_FIND, self._find)]
        self._server = Server(entity, self.port, handlers, self.tls)
        self.port = self._server.port
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads:
            thread.join(20)
        self._server.stop()

    def settle(self, reports: int = 1) -> None:
        """Wait until all reports on what was asked are out."""
        for thread in list(self._threads):
            thread.join(20)
        assert len(self.answers) >= reports, self.answers

    def _store(self, event: Any) -> int:
        request = event.request
        self.sent.append(str(request.AffectedSOPInstanceUID))
        if str(request.AffectedSOPClassUID) not in self.forgets:
            self.kept[str(request.AffectedSOPInstanceUID)] = str(request.AffectedSOPClassUID)
        return self.store_status

    def _find(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        if str(asked.get("SOPInstanceUID", "")) in self.kept:
            answer = Dataset()
            answer.QueryRetrieveLevel, answer.SOPInstanceUID = "IMAGE", asked.SOPInstanceUID
            yield 0xFF00, answer
        yield 0x0000, None

    def _act(self, event: Any) -> tuple[int, None]:
        request = read_request(event.action_information)
        self.requests.append(request)
        if self.status == 0x0000 and self.when != "never":
            if self.when == "before":
                self._report(event.assoc, self.verdict(request))
            else:
                self._begin(self.report_anew if self.when == "new" else self._report_after, request, event.assoc)
        self.hold_response()
        return self.status, None

    def _begin(self, action: Callable[..., None], *arguments: Any) -> None:
        self._threads.append(threading.Thread(target=action, args=arguments, daemon=True))
        self._threads[-1].start()

    def _report_after(self, request: Any, association: Any) -> None:
        self.gate()
        threading.Event().wait(0.2)  # the response goes first
        self._report(association, self.verdict(request))

    def report_anew(self, request: Any, _association: Any = None) -> None:
        """Open an association with the node and report on it."""
        self.gate()
        self.send_report(self.verdict(request))

    def send_report(self, report: Report) -> None:
        """Send any report on a new association."""
        entity = Requestor(self.ae_title, 5.0, 5.0, 10.0)
        roles = [build_role(PUSH_MODEL, scu_role=False, scp_role=True)] if self.roles else []
        association = entity.associate("127.0.0.1", self.reports_to, [build_context(PUSH_MODEL, SYNTAXES)], ae_title="PACS_NODE", ext_neg=roles)
        if not association.is_established:
            self.answers.append(None)
            return
        self._report(association, report)
        association.release()

    def _report(self, association: Any, report: Report) -> None:
        for _ in range(self.times):
            status, _reply = association.send_n_event_report(report_dataset(report), report.event_type, PUSH_MODEL, PUSH_MODEL_INSTANCE)
            self.answers.append(status.get("Status"))

    def verdict(self, request: Any) -> Report:
        """Judge what is asked: what is not here is missing, unless the script says otherwise."""
        committed, failed = [], {}
        for reference in request.references:
            reason = self.reasons.get(reference.sop_uid, self.reasons.get(reference.sop_class_uid))
            if reference.sop_class_uid in self.silent_about:
                continue
            if reason is not None:
                failed[reference] = reason
            elif self.kept.get(reference.sop_uid) == reference.sop_class_uid:
                committed.append(reference)
            else:
                failed[reference] = 0x0112
        return Report(request.transaction_uid, tuple(committed), failed)


def references(count: int = 3) -> tuple[Reference, ...]:
    return tuple(Reference("1.2.840.10008.5.1.4.1.1.2", f"1.2.3.{number}") for number in range(1, count + 1))
