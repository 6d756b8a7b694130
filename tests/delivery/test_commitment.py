"""Asking an archive for storage commitment, and reporting it, on the network."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt

from pacs_node.config import TLS, DestinationTLS, DicomDestination
from pacs_node.delivery.association import Timeouts
from pacs_node.delivery.commitment import ask, report
from pacs_node.dicom import commitment
from pacs_node.dicom.commitment import PUSH_MODEL, Reference, Remedy, Report, Request, read_report, read_request, reason_of, report_dataset, request_dataset
from pacs_node.dicom.tls import server_context
from pacs_node.errors import PermanentRefusal, TemporaryFailure, UnreadableObject
from tests.certificates import Authority
from tests.delivery.committing import SYNTAXES, CommittingArchive, Server, references
from tests.delivery.places import destination_at, free_port

QUICK = Timeouts(connect=5.0, associate=5.0, response=3.0)
REQUEST = Request("1.2.9.1", references(3))


def put(archive: CommittingArchive, *there: Reference) -> None:
    archive.kept.update({reference.sop_uid: reference.sop_class_uid for reference in there})


def asked(archive: CommittingArchive, request: Request = REQUEST, linger: float = 3.0) -> tuple[int, list[Report]]:
    reports: list[Report] = []
    answer = ask(destination_at(archive.port), request, "PACS_NODE", reports.append, QUICK, linger)
    return answer.status, reports


@pytest.mark.parametrize(("when", "times"), [("before", 1), ("before", 2), ("after", 1)])
def test_a_report_on_the_same_association_is_heard_before_and_after_the_response(when: str, times: int) -> None:
    with CommittingArchive(when=when, times=times) as archive:
        put(archive, *REQUEST.references)
        status, reports = asked(archive)
        assert archive.requests == [REQUEST]
        assert status == 0x0000 and reports[0] == Report("1.2.9.1", REQUEST.references)
        assert archive.answers == [0x0000] * times and len(reports) == times


def test_failures_come_with_their_reasons() -> None:
    first, second, third = REQUEST.references
    with CommittingArchive(when="after", reasons={second.sop_uid: 0x0122}) as archive:
        put(archive, first, second)
        _, (found,) = asked(archive)
    assert found.event_type == 2 and found.committed == (first,) and found.failed == {second: 0x0122, third: 0x0112}


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_a_report_at_any_moment_around_the_response_steals_nothing(delay: float) -> None:
    with CommittingArchive(when="after") as archive:
        put(archive, *REQUEST.references)
        archive.gate = lambda: time.sleep(delay)
        for number in range(8):
            status, reports = asked(archive, Request(f"1.2.9.{number}", REQUEST.references))
            assert status == 0x0000 and [found.transaction_uid for found in reports] == [f"1.2.9.{number}"]


def test_without_a_report_the_association_is_released_after_a_while_and_the_request_counts_as_taken() -> None:
    with CommittingArchive(when="never") as archive:
        before = time.monotonic()
        assert asked(archive, linger=0.3) == (0x0000, [])
        assert 0.3 <= time.monotonic() - before < 3.0


def test_a_request_that_is_refused_brings_its_status_at_once() -> None:
    with CommittingArchive(status=0x0124) as archive:
        before = time.monotonic()
        assert asked(archive) == (0x0124, [])
        assert time.monotonic() - before < 2.0


def test_an_archive_that_takes_no_commitment_is_a_refusal_that_names_it() -> None:
    with CommittingArchive(commits=False) as archive, pytest.raises(PermanentRefusal, match="Storage Commitment Push Model"):
        asked(archive)


def test_an_archive_that_is_off_is_a_temporary_failure() -> None:
    with pytest.raises(TemporaryFailure, match="cannot be reached"):
        ask(destination_at(free_port()), REQUEST, "PACS_NODE", lambda found: None, QUICK)


def test_an_archive_that_does_not_answer_the_request_is_a_temporary_failure_even_if_it_reports() -> None:
    with CommittingArchive(when="before") as archive:
        put(archive, *REQUEST.references)
        release = threading.Event()
        archive.hold_response = lambda: release.wait(10)
        reports: list[Report] = []
        with pytest.raises(TemporaryFailure, match="no answer"):
            ask(destination_at(archive.port), REQUEST, "PACS_NODE", reports.append, Timeouts(5.0, 5.0, 1.0))
        release.set()
    assert reports and reports[0].committed == REQUEST.references


def test_what_could_not_be_kept_is_not_answered_with_success() -> None:
    def fail(found: Report) -> None:
        raise RuntimeError("the database is away")

    with CommittingArchive(when="after") as archive:
        put(archive, *REQUEST.references)
        with pytest.raises(RuntimeError, match="database"):
            ask(destination_at(archive.port), REQUEST, "PACS_NODE", fail, QUICK)
        archive.settle()
        assert archive.answers == [None]


# --- reporting ---------------------------------------------------------------------------------------------------------


class Asker:
    """One who asked, and listens for the report."""

    def __init__(self, status: int = 0x0000, scp: bool | None = True) -> None:
        self.heard: queue.Queue[tuple[int, Dataset, bool]] = queue.Queue()
        self.status, self.scp = status, scp

    def __enter__(self) -> DicomDestination:
        entity = AE(ae_title="CT1")
        if self.scp is None:
            entity.add_supported_context(PUSH_MODEL, SYNTAXES)
        else:
            entity.add_supported_context(PUSH_MODEL, SYNTAXES, scu_role=not self.scp, scp_role=self.scp)
        self._server = Server(entity, 0, [(evt.EVT_N_EVENT_REPORT, self._hear)])
        target = {"kind": "dicom", "ae_title": "CT1", "address": "127.0.0.1", "port": self._server.port}
        return DicomDestination.model_validate(target)

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def _hear(self, event: Any) -> tuple[int, None]:
        self.heard.put((event.event_type, event.event_information, bool(event.assoc.accepted_contexts[0].as_scu)))
        return self.status, None


@pytest.mark.parametrize("scp", [True, None], ids=["takes the role", "knows no roles"])
def test_a_report_is_sent_in_the_role_of_the_scp(scp: bool | None) -> None:
    first, second, _ = REQUEST.references
    asker = Asker(scp=scp)
    with asker as target:
        answer = report(target, Report("1.2.9.1", (first,), {second: 0x0112}), "PACS_NODE", QUICK)
    event_type, found, we_serve = asker.heard.get(timeout=5)
    assert answer.accepted and event_type == 2
    assert read_report(found) == Report("1.2.9.1", (first,), {second: 0x0112})
    assert we_serve is (scp is True)


def test_a_report_that_is_not_taken_brings_its_status() -> None:
    with Asker(status=0x0110) as target:
        answer = report(target, Report("1.2.9.1", REQUEST.references), "PACS_NODE", QUICK)
    assert not answer.accepted and answer.status == 0x0110


def test_one_who_does_not_listen_for_reports_is_a_refusal() -> None:
    entity = AE(ae_title="CT1")
    entity.supported_contexts = [build_context("1.2.840.10008.1.1", SYNTAXES)]
    server = Server(entity, 0, [])
    try:
        with pytest.raises(PermanentRefusal):
            report(destination_at(server.port), Report("1.2.9.1", REQUEST.references), "PACS_NODE", QUICK)
    finally:
        server.stop()


# --- the datasets --------------------------------------------------------------------------------------------------------


def test_requests_and_reports_are_read_as_they_were_written() -> None:
    first, second, third = REQUEST.references
    assert read_request(request_dataset(REQUEST)) == REQUEST
    whole = Report("1.2.9.1", (first,), {second: 0x0110, third: 0x0131})
    assert read_report(report_dataset(whole)) == whole
    assert "ReferencedSOPSequence" not in report_dataset(Report("1.2.9.1", (), {second: 0x0110}))
    assert "FailedSOPSequence" not in report_dataset(Report("1.2.9.1", (first,)))


def test_a_reference_that_is_named_twice_counts_once_and_a_failure_outweighs() -> None:
    first, second, _ = REQUEST.references
    assert read_request(request_dataset(Request("1.2.9.1", (first, first, second)))).references == (first, second)
    both = report_dataset(Report("1.2.9.1", (first, second), {second: 0x0110}))
    assert read_report(both) == Report("1.2.9.1", (first,), {second: 0x0110})


@pytest.mark.parametrize("transaction", ["", "none", "1.2.03", None])
def test_what_names_no_transaction_is_unreadable(transaction: str | None) -> None:
    dataset = request_dataset(REQUEST)
    if transaction is None:
        del dataset.TransactionUID
    else:
        dataset["TransactionUID"]._value = transaction
    with pytest.raises(UnreadableObject, match="Transaction UID"):
        read_request(dataset)
    with pytest.raises(UnreadableObject, match="Transaction UID"):
        read_report(dataset)


def test_a_request_that_names_no_instance_is_unreadable() -> None:
    with pytest.raises(UnreadableObject, match="no SOP instance"):
        read_request(request_dataset(Request("1.2.9.1", ())))


def test_a_failure_without_a_reason_counts_as_a_processing_failure() -> None:
    dataset = report_dataset(Report("1.2.9.1", (), {REQUEST.references[0]: 0x0110}))
    del dataset.FailedSOPSequence[0].FailureReason
    assert read_report(dataset).failed == {REQUEST.references[0]: 0x0110}


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (0x0110, Remedy.SEND_AGAIN), (0x0112, Remedy.SEND_AGAIN), (0x0213, Remedy.SEND_AGAIN), (0x0119, Remedy.REFUSED), (0x0122, Remedy.REFUSED),
        (0x0131, Remedy.ASK_AGAIN), (0xA700, Remedy.SEND_AGAIN),
    ],
)  # fmt: skip
def test_every_failure_reason_has_its_remedy(code: int, remedy: Remedy) -> None:
    assert reason_of(code).remedy is remedy and reason_of(code).meaning
    assert all(reason_of(known).remedy in Remedy for known in commitment.REASONS)


def test_an_archive_is_asked_over_tls_as_its_destination_says(tmp_path: Path, tool: Callable[[str], str]) -> None:
    authority = Authority(tmp_path, tool("openssl"))
    pair = authority.sign("archive")
    context = server_context(TLS(certificate=pair.certificate, key=pair.key, require_client=False))
    with CommittingArchive(tls=context) as archive:
        put(archive, *REQUEST.references)
        secured = destination_at(archive.port).model_copy(update={"tls": DestinationTLS(ca=authority.file)})
        reports: list[Report] = []
        assert ask(secured, REQUEST, "PACS_NODE", reports.append, QUICK, 3.0).accepted and len(reports) == 1
        stranger = secured.model_copy(update={"tls": DestinationTLS()})
        with pytest.raises(TemporaryFailure, match=r"tls\.ca"):
            ask(stranger, REQUEST, "PACS_NODE", reports.append, QUICK, 3.0)


def test_a_report_that_came_another_way_ends_the_waiting() -> None:
    with CommittingArchive(when="never") as archive:
        before = time.monotonic()
        answer = ask(destination_at(archive.port), REQUEST, "PACS_NODE", lambda found: None, QUICK, 20.0, lambda: bool(archive.requests))
        assert answer.accepted and time.monotonic() - before < 5.0
