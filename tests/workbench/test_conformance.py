"""The conformance statement against what the node really negotiates, answers, proposes and writes: the tables are read out of the document."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context, build_role
from pynetdicom.pdu_primitives import AsynchronousOperationsWindowNegotiation, SOPClassExtendedNegotiation, UserIdentityNegotiation
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from pacs_node import results
from pacs_node.config import Settings
from pacs_node.delivery import commitment, counting, cstore, query
from pacs_node.delivery.requestor import Requestor
from pacs_node.delivery.storage_scp import StorageSCP
from pacs_node.dicom.commitment import PUSH_MODEL, PUSH_MODEL_INSTANCE, Report, Request, request_dataset
from pacs_node.errors import PermanentRefusal, TemporaryFailure
from pacs_node.reception import admission, notes, services
from pacs_node.reception.listener import ReceiverConfig, Timeouts, open_socket, serve
from pacs_node.reception.spool import Spool
from pacs_node.records import Notice, NoticeStatus, Parcel
from pacs_node.results.modules import COPIED
from pacs_node.workbench.conformance import statement
from tests.delivery.committing import references
from tests.reception.peers import Running, make_ct, save, tool, wait_until
from tests.results.studies import Shape, request

PRIVATE = "1.3.12.2.1107.5.9.1"
ALL = {
    "node": {"ae_titles": ["PACS_NODE", "SECOND"]},
    "reception": {
        "reserve": "1B",
        "mpps": True,
        "availability": True,
        "commitment": True,
        "private_sop_classes": [PRIVATE],
        "max_pdu": 65536,
        "max_associations": 3,
    },
    "destinations": {
        "archive": {"kind": "dicom", "ae_title": "ARCHIVE", "address": "127.0.0.1", "port": 104, "accepts_research": True, "commitment": True},
        "a|b <i>": {"kind": "stow", "url": "https://pacs.example/dicom-web"},
    },
}
LITTLE = {"reception": {"reserve": "1B", "denied_sop_classes": ["EncapsulatedPDFStorage"]}}

Row = dict[str, str]


# --- reading the document ------------------------------------------------------------------------------------------------


class Document:
    """The statement for a configuration, and its tables by the number of their section and their first column."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.settings = Settings.model_validate(given)
        self.text = statement(self.settings)
        self.headings = re.findall(r"^#{2,} (.*)$", self.text, re.MULTILINE)

    def table(self, section: str, first: str) -> list[Row]:
        found = [rows for heading, columns, rows in self._tables() if heading.startswith(section) and columns[0] == first]
        assert len(found) == 1, f"{len(found)} tables {first} in {section}"
        return found[0]

    def _tables(self) -> Iterator[tuple[str, list[str], list[Row]]]:
        heading = ""
        for part in self.text.split("\n\n"):
            if part.startswith("#"):
                heading = part.lstrip("# ")
            if part.startswith("| "):
                columns, _, *rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in part.strip().split("\n")]
                assert all(len(row) == len(columns) for row in rows), part
                yield heading, columns, [dict(zip(columns, row, strict=True)) for row in rows]

    def classes(self) -> dict[str, Row]:
        return {row["SOP Class UID"]: row for row in self.table("7.2.1.4", "SOP Class")}

    def syntaxes(self) -> list[str]:
        return [row["Transfer Syntax UID"] for row in self.table("7.2.1.4", "Transfer Syntax")]


@pytest.fixture(scope="module", params=[ALL, LITTLE], ids=["everything on", "defaults"])
def document(request: pytest.FixtureRequest) -> Document:
    return Document(request.param)


@pytest.fixture(scope="module")
def whole() -> Document:
    return Document(ALL)


# --- a receiver of the configuration ---------------------------------------------------------------------------------------


@contextmanager
def receiving(settings: Settings, data: Path) -> Iterator[Running]:
    """Run a receiver as the node does with this configuration, in a thread."""
    config = ReceiverConfig(settings.node.ae_titles, data, settings.reception, 0.5, Timeouts(20.0, 20.0, 60.0), services.wanted(settings))
    with open_socket("127.0.0.1", 0) as listening:
        slots, stop = [0], threading.Event()
        thread = threading.Thread(target=serve, args=(config, listening, slots, 0, stop))
        thread.start()
        try:
            yield Running(listening.getsockname()[1], Spool(data), slots, stop, thread)
        finally:
            stop.set()
            thread.join(30)


@pytest.fixture
def receiver(whole: Document, tmp_path: Path) -> Iterator[Running]:
    with receiving(whole.settings, tmp_path / "data") as running:
        yield running


def propose(port: int, contexts: Sequence[tuple[str, str]], roles: Sequence[Any] = ()) -> Any:
    """Propose contexts of one abstract and one transfer syntax each; return the association, released."""
    entity = Requestor("CT1", 60, 60, 60)
    association = entity.associate("127.0.0.1", port, [build_context(uid, [syntax]) for uid, syntax in contexts], "PACS_NODE", ext_neg=list(roles))
    if association.is_established:
        association.release()
    return association


def test_exactly_the_abstract_syntaxes_of_the_statement_are_accepted(document: Document, tmp_path: Path) -> None:
    stated, syntaxes = document.classes(), document.syntaxes()
    others = [uid for uid, entry in UID_dictionary.items() if entry[1] in ("SOP Class", "Meta SOP Class") and uid not in stated]
    assert len(others) > 100  # among them query, worklist, printing and all services that are turned off
    proposals = [(uid, syntaxes[number % len(syntaxes)]) for number, uid in enumerate([*stated, *others, "1.2.3.4.5"])]
    roles = [build_role(uid, scu_role=True, scp_role=True) for uid in stated]
    accepted: dict[str, Any] = {}
    refused: set[int] = set()
    with receiving(document.settings, tmp_path / "data") as running:
        for start in range(0, len(proposals), 120):
            batch = proposals[start : start + 120]
            association = propose(running.port, batch, [role for role in roles if str(role.sop_class_uid) in dict(batch)])
            accepted |= {str(context.abstract_syntax): context for context in association.accepted_contexts}
            refused |= {context.result for context in association.rejected_contexts}
    assert set(accepted) == set(stated)
    assert {uid: str(context.transfer_syntax[0]) for uid, context in accepted.items()} == {uid: syntax for uid, syntax in proposals if uid in stated}
    assert refused == {3}
    served_by_peer = {uid for uid, context in accepted.items() if context.as_scp}
    assert served_by_peer == {row["SOP Class UID"] for row in document.table("7.2.1.4", "SOP Class") if row["Role"] == "SCU"}


def test_exactly_the_transfer_syntaxes_of_the_statement_are_accepted(document: Document, tmp_path: Path) -> None:
    stated = document.syntaxes()
    unknown = ["1.2.3.4", CTImageStorage, "1.2.840.10008.1.2.9999"]
    contexts = [(CTImageStorage, uid) for uid in [*stated, *unknown]]
    with receiving(document.settings, tmp_path / "data") as running:
        association = propose(running.port, contexts)
        assert [str(context.transfer_syntax[0]) for context in association.accepted_contexts] == stated
        only_unknown = propose(running.port, [("1.2.840.10008.1.1", "1.2.840.10008.1.2"), (CTImageStorage, "1.2.3.4")])
        assert {context.result for context in only_unknown.rejected_contexts} == {3}


def test_the_first_transfer_syntax_of_a_proposal_is_taken_and_the_general_parameters_are_those_of_the_statement(whole: Document, receiver: Running) -> None:
    general = {row["Name"]: row["Value"] for row in whole.table("7.1.1", "Name")}
    limits = {row["Name"]: row["Value"] for row in whole.table("7.2.1.2", "Name")}
    extended, window, user = SOPClassExtendedNegotiation(), AsynchronousOperationsWindowNegotiation(), UserIdentityNegotiation()
    extended.sop_class_uid, extended.service_class_application_information = CTImageStorage, b"\x01"
    window.maximum_number_operations_invoked = window.maximum_number_operations_performed = 5
    user.user_identity_type, user.primary_field, user.positive_response_requested = 1, b"somebody", True
    entity, last = Requestor("CT1", 20, 20, 20), whole.syntaxes()[-1]
    context = build_context(CTImageStorage, [last, ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", receiver.port, [context], "SECOND", ext_neg=[extended, window, user])
    acceptor = association.acceptor
    association.release()
    assert str(association.accepted_contexts[0].transfer_syntax[0]) == last
    assert str(acceptor.primitive.application_context_name) == general["Application Context Name"]
    assert str(acceptor.implementation_class_uid) == general["Implementation Class UID"]
    assert acceptor.implementation_version_name == general["Implementation Version Name"]
    assert str(acceptor.maximum_length) == limits["Maximum PDU length received"]
    assert acceptor.user_identity is None and not acceptor.sop_class_extended
    assert acceptor.asynchronous_operations == (1, 1)


# --- rejections and statuses -----------------------------------------------------------------------------------------------


def test_associations_are_rejected_with_the_codes_of_the_statement_and_no_others(whole: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.model_validate({
        "node": {"ae_titles": ["PACS_NODE"]},
        "reception": {"reserve": "1B", "max_associations": 1, "senders": [{"ae_title": "CT1"}, {"ae_title": "FAR", "network": "10.0.0.0/8"}]},
    })  # fmt: skip
    seen = []

    def ask(called: str = "PACS_NODE", calling: str = "CT1") -> None:
        answer = running.associate(called_ae=called, calling_ae=calling)
        assert answer.is_rejected
        primitive = answer.acceptor.primitive
        seen.append((primitive.result, primitive.result_source, primitive.diagnostic))

    with receiving(settings, tmp_path / "data") as running:
        ask(called="OTHER")
        ask(calling="STRANGER")
        ask(calling="FAR")
        held = running.associate()
        ask()
        held.release()
        wait_until(lambda: running.slots == [0])
        with monkeypatch.context() as patch:
            patch.setattr(Spool, "room", lambda self, reserve: False)
            ask()
        with monkeypatch.context() as patch:
            patch.setattr(admission, "decide", lambda *_: 1 / 0)
            ask()
    assert seen == [tuple(int(row[name]) for name in ("Result", "Source", "Reason")) for row in whole.table("7.2.1.4", "Result")]


def test_the_statuses_answered_are_those_of_the_statement(whole: Document, receiver: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stated = {(row["Operation"], int(row["Status"], 16)) for row in whole.table("7.3.2", "Operation")}
    seen: set[tuple[str, int]] = set()
    contexts = [(uid, [ExplicitVRLittleEndian]) for uid in ("1.2.840.10008.1.1", CTImageStorage, PUSH_MODEL, ModalityPerformedProcedureStep)]
    association = receiver.associate(*contexts)
    seen.add(("C-ECHO", association.send_c_echo().Status))
    seen |= {("C-STORE", status) for status in _stores(association, tmp_path, monkeypatch)}
    seen |= set(_notes(association, monkeypatch))
    association.release()
    assert seen == stated


def _stores(association: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    image = make_ct()
    yield association.send_c_store(image).Status
    other = make_ct(SOPClassUID="1.2.840.10008.5.1.4.1.1.4")
    other.file_meta.MediaStorageSOPClassUID, other.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, other.SOPInstanceUID
    yield association.send_c_store(_misnamed(save(other, tmp_path / "a.dcm"), CTImageStorage, str(other.SOPInstanceUID))).Status
    named = make_ct()
    yield association.send_c_store(_misnamed(save(named, tmp_path / "b.dcm"), CTImageStorage, "1.2.3")).Status
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "room", lambda self, reserve: False)
        yield association.send_c_store(image).Status


def _misnamed(path: Path, sop_class: str, sop_uid: str) -> Path:
    """Change what the file meta information says, which becomes the command; the dataset stays."""
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.file_meta.MediaStorageSOPClassUID, dataset.file_meta.MediaStorageSOPInstanceUID = sop_class, sop_uid
    dataset.save_as(path)  # as it is: not enforced to agree
    return path


def _notes(association: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    step, good = Dataset(), request_dataset(Request("1.2.9.1", references(1)))
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    empty = Dataset()
    empty.TransactionUID = "1.2.9.2"

    def create(uid: str | None = "1.2.3") -> tuple[str, int]:
        return "all", association.send_n_create(step, ModalityPerformedProcedureStep, uid)[0].Status

    def act(dataset: Dataset, action: int = 1, instance: str = PUSH_MODEL_INSTANCE) -> tuple[str, int]:
        return "N-ACTION", association.send_n_action(dataset, action, PUSH_MODEL, instance)[0].Status

    yield create()
    yield create(None)
    yield "all", association.send_n_delete(ModalityPerformedProcedureStep, "1.2.3").Status
    with monkeypatch.context() as patch:
        patch.setattr(notes, "MOST_CONTENT", 1)
        yield create()
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "note", lambda *_: 1 / 0)
        yield create()
    yield from (act(good, action=2), act(good, instance="1.2.3"), act(empty))
    assert act(good) == ("N-ACTION", 0x0000)


@pytest.mark.peers
def test_dcmtk_sees_what_the_statement_says(whole: Document, receiver: Running, tmp_path: Path) -> None:
    image = save(make_ct(), tmp_path / "ct.dcm")
    accepted = tool("echoscu", "-v", "-aec", "SECOND", "127.0.0.1", receiver.port)
    assert accepted.returncode == 0 and f"Max Send PDV: {whole.settings.reception.max_pdu - 12}" in accepted.stdout + accepted.stderr
    called = tool("echoscu", "-v", "-aec", "OTHER", "127.0.0.1", receiver.port)
    assert called.returncode != 0 and "Called AE Title Not Recognized" in called.stdout + called.stderr
    stored = tool("storescu", "-v", "-aec", "PACS_NODE", "127.0.0.1", receiver.port, image)
    assert stored.returncode == 0 and "Success" in stored.stdout + stored.stderr
    found = tool("findscu", "-v", "-S", "-aec", "PACS_NODE", "-k", "QueryRetrieveLevel=STUDY", "127.0.0.1", receiver.port)
    assert "1.2.840.10008.5.1.4.1.2.2.1" not in whole.classes()
    assert "No Acceptable Presentation Contexts" in found.stdout + found.stderr


# --- what we propose -------------------------------------------------------------------------------------------------------


class Listener(StorageSCP):
    """Notes what it is proposed."""

    def __init__(self) -> None:
        super().__init__("ARCHIVE")
        self.proposals: list[Any] = []

    def rejection(self, association: Any) -> None:
        self.proposals.append(association.requestor)

    def store(self, event: Any) -> int:
        return 0x0000

    def take(self) -> Any:
        return self.proposals.pop()


def _contexts(requestor: Any) -> set[tuple[str, tuple[str, ...]]]:
    return {(str(one.abstract_syntax), tuple(map(str, one.transfer_syntax))) for one in requestor.primitive.presentation_context_definition_list}


def test_what_is_proposed_is_what_the_statement_says(whole: Document, tmp_path: Path) -> None:
    stated: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for row in whole.table("7.2.2.2", "Activity"):
        stated.setdefault(row["Activity"], set()).add((row["SOP Class UID"], tuple(row["Transfer Syntax UIDs"].split(", "))))
    assert stated.pop("forward originals") == {("as received", ("as received",))}
    parcels = []
    for number, (kind, row) in enumerate({**results.BUILDERS, **results.STAND_INS}.items()):
        made = make_ct(SOPClassUID=row.sop_class_uid)
        parcels.append(Parcel(str(made.SOPInstanceUID), row.sop_class_uid, ExplicitVRLittleEndian, save(made, tmp_path / f"{number}-{kind}.dcm")))
    with listening() as archive:
        place = whole.settings.destinations["archive"].model_copy(update={"port": archive.port})
        activities: dict[str, Callable[[], object]] = {
            "send results": lambda: cstore.deliver(place, parcels, "PACS_NODE", lambda outcome: None),
            "verify": lambda: cstore.probe(place, "PACS_NODE", [*(parcel.sop_class_uid for parcel in parcels), query.STUDY_ROOT_FIND, PUSH_MODEL]),
            "query": lambda: query.find(place, "PACS_NODE", "STUDY", {"StudyInstanceUID": "1.2.3"}),
            "retrieve": lambda: counting.fetch_series(place, "PACS_NODE", "1.2.3", "1.2.4"),
            "request storage commitment": lambda: commitment.ask(place, Request("1.2.9", references(1)), "PACS_NODE", lambda report: None),
            "report storage commitment": lambda: commitment.report(place, Report("1.2.9"), "PACS_NODE"),
        }
        assert set(activities) == set(stated)
        for name, act in activities.items():
            with suppress(TemporaryFailure, PermanentRefusal):
                act()
            requestor = archive.take()
            assert _contexts(requestor) == stated[name], name
            roles = {uid: (role.scu_role, role.scp_role) for uid, role in requestor.role_selection.items()}
            assert roles == ({PUSH_MODEL: (False, True)} if name.startswith("report") else {}), name
            own = {row["Name"]: row["Value"] for row in whole.table("7.2.2.1", "Name")}
            assert requestor.ae_title == own["Calling AE title"] and str(requestor.maximum_length) == own["Maximum PDU length received"]


@contextmanager
def listening() -> Iterator[Listener]:
    archive = Listener()
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()


# --- what we create --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def objects() -> dict[str, Dataset]:
    kinds = ("notice", "sr", "sc", "pm", "ko", "seg", "denoised", "raw")
    notice = Notice(NoticeStatus.PARTIALLY_SUCCEEDED, "one of two series could not be decoded")
    made = replace(request(Shape(slices=3), kinds=kinds, notice=notice), representation=results.Representation(b"packed", 0))
    found = {one.kind: one.dataset for one in results.build(made)}
    return found | {instead: results.stand_ins(found[kind], instead, {}, None)[0] for kind, instead in (("sr", "enhanced-sr"), ("sc", "single-frame"))}


SOMETIMES = re.compile(r"copied|absent|re-run|not analysed")  # sources of values that a study need not have


def test_every_attribute_of_what_is_created_stands_in_the_statement_with_its_source(whole: Document, objects: dict[str, Dataset]) -> None:
    kinds = {row["Kind"]: row for row in whole.table("A.A.1", "Kind")}
    assert set(kinds) == set(objects)
    common = {row["Tag"]: row["Source of the value"] for row in whole.table("A.A.2", "Attribute")}
    copied = {
        tag for module in whole.headings if module.startswith("A.A.3 ") and "(" in module for tag in (row["Tag"] for row in whole.table(module, "Attribute"))
    }
    private = {row["Element"].replace("xx", "10") for row in whole.table("Annex A.C", "Element")} | {"(0091,0010)"}
    for kind, dataset in objects.items():
        (heading,) = [one for one in whole.headings if re.match(rf"A\.A\.\d+ {kind}:", one)]
        own = {row["Tag"]: row["Source of the value"] for row in whole.table(heading, "Attribute")}
        present = {str(element.tag).upper() for element in dataset}
        assert present <= set(common) | copied | set(own) | (private if kind == "raw" else set()), kind
        always = {tag for tag, source in {**common, **own}.items() if not SOMETIMES.search(source)}
        assert always <= present, kind
        assert (kinds[kind]["SOP Class UID"], kinds[kind]["Modality"]) == (dataset.SOPClassUID, "that of the source" if kind == "pm" else dataset.Modality)


def test_every_attribute_that_is_copied_is_listed(whole: Document) -> None:
    listed = [row["Attribute"] for module in whole.headings if module.startswith("A.A.3 ") and "(" in module for row in whole.table(module, "Attribute")]
    assert len(listed) == len(set(listed)) == len(COPIED)


def test_private_codes_of_reports_are_listed(whole: Document, objects: dict[str, Dataset]) -> None:
    listed = {row["Private code"] for row in whole.table("Annex A.E", "Private code")}
    used = {
        str(item.CodeValue)
        for dataset in objects.values()
        for item in _items(dataset)
        if item.get("CodingSchemeDesignator") == "99PACSNODE" and "CodeValue" in item
    }
    assert "SCORE" in used and used <= listed


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield item
                yield from _items(item)


# --- the document ------------------------------------------------------------------------------------------------------------


def test_the_sections_of_the_template_are_there_in_order(document: Document) -> None:
    chapters = [heading for heading in document.headings if re.match(r"(\d |Annex)", heading)]
    assert [chapter.split(" ")[0] for chapter in chapters[:8]] == list("12345678")
    assert [chapter.split(" ")[1] for chapter in chapters[8:]] == ["A.A", "A.B", "A.C", "A.D", "A.E"]
    for heading in document.headings:
        assert f"* {heading}" in document.text or heading.count(".") != 1  # the table of contents names them


def test_when_something_is_deleted_follows_the_configuration() -> None:
    document = Document({"retention": {"keep": "3d", "held": "40d", "high_watermark": "70%"}})
    stay = {row["Files"]: row["Stay for"] for row in document.table("5.6", "Files")}
    assert stay["originals of a finished study"] == stay["originals that no rule wanted"] == "3d"
    assert stay["originals of a held study"] == "40d"
    assert "70 % of the disk" in document.text


def test_a_heartbeat_is_stated_with_the_only_place_where_its_results_go() -> None:
    given = {"heartbeat": {"destination": "probe", "every": "2h"}, "destinations": {"probe": {"kind": "folder", "path": "./probe"}}}
    assert "every 2h a phantom (CT" in Document(given).text and "destination probe only" in Document(given).text
    assert "sends no phantoms" in Document({}).text


def test_services_that_are_off_are_neither_stated_nor_proposed() -> None:
    document = Document(LITTLE)
    overview = {(row["Service"], row["SOP Class"]): (row["SCU"], row["SCP"]) for row in document.table("1.2 ", "Service")}
    assert overview["Storage Commitment", "Storage Commitment Push Model"] == ("N", "N")
    assert PUSH_MODEL not in document.classes()
    assert "1.2.840.10008.5.1.4.1.1.104.1" not in document.classes()
    assert {row["Operation"] for row in document.table("7.3.2", "Operation")} == {"C-ECHO", "C-STORE"}


def test_names_of_the_configuration_cannot_break_a_table(whole: Document) -> None:
    (row,) = whole.table("6.3", "Destination")
    assert row["Destination"] == "a\\|b &lt;i>"
