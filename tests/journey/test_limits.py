"""What is kept but goes no further: objects nested too deeply, and our own results on their way round."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from sqlalchemy import select

from pacs_node.database.tables import AsideRow, InstanceRow, JobRow, StudyRow
from pacs_node.dicom.header import nested_deeper
from pacs_node.records import Sender
from pacs_node.workbench.tables import status_tables
from tests.journey.support import Town, ct_slice, ct_study, encode_body

Make = Callable[..., Town]


def nested(depth: int) -> Sequence:
    """Return a sequence that holds a sequence, and so on: ``depth`` of them."""
    item = Dataset()
    item.CodeMeaning = "the innermost"
    sequence = Sequence([item])
    for _ in range(depth - 1):
        outer = Dataset()
        outer.ConceptNameCodeSequence = sequence
        sequence = Sequence([outer])
    return sequence


def with_nested(body: bytes, depth: int, *, defined: bool) -> bytes:
    """Put ``depth`` nested sequences before the pixels of an encoded dataset; pydicom itself cannot write many."""
    content = b""
    for level in range(depth):
        tag = struct.pack("<HH", 0x0040, 0x0275 if level == depth - 1 else 0xA043)
        ends = (b"", b"") if defined else (struct.pack("<HHL", 0xFFFE, 0xE00D, 0), struct.pack("<HHL", 0xFFFE, 0xE0DD, 0))
        item = struct.pack("<HHL", 0xFFFE, 0xE000, len(content) if defined else 0xFFFFFFFF) + content + ends[0]
        content = tag + b"SQ\0\0" + struct.pack("<L", len(item) if defined else 0xFFFFFFFF) + item + ends[1]
    at = body.index(struct.pack("<HH", 0x7FE0, 0x0010) + b"OW")
    return body[:at] + content + body[at:]


@pytest.mark.parametrize("depth", [0, 1, 5])
def test_depth_counts_sequences_within_sequences(depth: int) -> None:
    dataset = Dataset()
    dataset.PatientID = "P"
    if depth:
        dataset.RequestAttributesSequence = nested(depth)
    assert not nested_deeper(dataset, depth)
    assert depth == 0 or nested_deeper(dataset, depth - 1)


@pytest.mark.parametrize("defined", [True, False], ids=["defined length", "undefined length"])
@pytest.mark.parametrize("depth", [65, 300, 2000, 20_000])
def test_an_object_nested_too_deeply_is_quarantined_and_its_neighbours_go_on(town: Town, depth: int, defined: bool) -> None:
    deep = ct_slice(9)
    content = with_nested(encode_body(deep), depth, defined=defined)
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "00000001")
    town.house.spool.store(sender, str(deep.SOPClassUID), str(deep.SOPInstanceUID), str(deep.file_meta.TransferSyntaxUID), [content])
    town.send(ct_study(6))
    town.settle()
    with town.house.store.read() as session:
        (aside,) = session.scalars(select(AsideRow))
        assert len(session.scalars(select(InstanceRow).where(~InstanceRow.own)).all()) == 6
    assert aside.kind == "quarantine"
    assert (town.house.data / aside.path).read_bytes().endswith(content)
    assert "nested more than 64 deep (reception.max_nesting)" in aside.reason or "RecursionError" in aside.reason
    assert town.results()


def test_an_object_nested_as_deeply_as_is_allowed_is_taken(make_town: Make) -> None:
    town = make_town(reception={"max_nesting": 20})
    fine = ct_slice(9)
    fine.RequestAttributesSequence = nested(20)
    town.send([*ct_study(6), fine])
    town.settle()
    with town.house.store.read() as session:
        assert not session.scalars(select(AsideRow)).all()


def test_results_that_come_back_are_counted_on_the_status_and_start_nothing(town: Town) -> None:
    town.send(ct_study(6))
    town.settle()
    assert status_tables(town.settings)["came_back"] == []
    results = town.results()
    for _ in range(3):
        town.send(results, calling="ARCHIVE")
        town.settle()
    assert status_tables(town.settings)["came_back"] == [{"instances": len(results), "studies": 1}]
    with town.house.store.read() as session:
        assert len(session.scalars(select(JobRow)).all()) == 1


def test_results_of_a_study_that_was_never_here_start_nothing_and_leave_nothing_waiting(tmp_path_factory: pytest.TempPathFactory) -> None:
    there, here = Town(tmp_path_factory.mktemp("there")), Town(tmp_path_factory.mktemp("here"))
    there.send(ct_study(6))
    there.settle()
    here.send(there.results(), calling="ARCHIVE")
    here.settle()
    with here.house.store.read() as session:
        assert not session.scalars(select(JobRow)).all()
        (study,) = session.scalars(select(StudyRow))
    assert study.state.value == "complete"
    assert here.results() == []
    for town in (there, here):
        town.house.store.close()
