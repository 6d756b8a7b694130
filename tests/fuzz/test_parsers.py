"""Whatever bytes are read: readers say what they cannot read by their documented error, agree with other readers, and come to an end."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from pacs_node.assembly import grouping
from pacs_node.assembly.announcements import read_availability, read_step
from pacs_node.assembly.rejections import read_rejection
from pacs_node.dicom import header
from pacs_node.dicom.file_meta import read_meta
from pacs_node.dicom.leading import quick_uids
from pacs_node.dicom.values import parse_key, values
from pacs_node.errors import UnreadableObject
from pacs_node.reception.command import StoreCommand, parse_store, store_response
from pacs_node.reception.conversation import NoteRequest
from pacs_node.reception.notes import content_of, decode
from pacs_node.reception.part10 import Incoming, head, sender_of
from pacs_node.reception.spool import Spool
from pacs_node.records import Arrival, AssociationEnd, Note, Sender
from tests.fuzz.exploring import Explorer, peak_memory
from tests.fuzz.mutation import ODD_UIDS, Draw, damaged, damaged_dataset, elements
from tests.fuzz.recordings import BIG, DEFLATED, IMPLICIT, SYNTAXES, Letter, encoded, phantoms, small_image
from tests.journey.support import ct_study, encode_body
from tests.journey.test_announced import available, step
from tests.journey.test_rejected import rejection
from tests.reception.raw_peer import c_cancel, c_echo, c_store

T = TypeVar("T")
LONGEST = 5.0  # seconds of one call with a few ten thousand bytes
MOST_WORDS = 2000  # characters of an error
MOST_MEMORY = 200 << 20  # bytes by which one may raise what the process ever held

pytestmark = pytest.mark.filterwarnings("ignore")  # what pydicom thinks of damaged values is not the question


@pytest.fixture(scope="module")
def letters() -> list[Letter]:
    """Give images of every modality and encodings of every kind."""
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    images = [small_image(0), small_image(1), *list(phantoms())[::2]]
    return [encoded(image, SYNTAXES[index % len(SYNTAXES)]) for index, image in enumerate([*images, *images[:3]])]


def timely(call: Callable[[], T]) -> T:
    """Return what a call returns, within a bounded time of the processor and bounded memory."""
    begun, memory = time.process_time(), peak_memory()
    try:
        return call()
    finally:
        assert time.process_time() - begun < LONGEST, "it takes too long"
        assert peak_memory() - memory < MOST_MEMORY, "it fills the memory"


def readable(call: Callable[[], T]) -> T | None:
    """Return what a call returns, None where it raises the documented error, in some words; any other is a failure."""
    try:
        return timely(call)
    except UnreadableObject as error:
        assert len(str(error)) < MOST_WORDS, "an object decides how much is written about it"
        return None


# --- commands ------------------------------------------------------------------------------------------------------------------


@st.composite
def commands(draw: Draw) -> bytes:
    """Draw a command set, whole or damaged."""
    number = draw(st.integers(0, 65_535))
    uid = draw(st.sampled_from(("1.2.3", "1.2.34", "1" * 64)) | st.text("0123456789.", min_size=1, max_size=70))
    command = draw(st.sampled_from((c_store(number, uid), c_store(number, uid, dataset_type=0x0101), c_echo(number), c_cancel(number))))
    return damaged_dataset(draw, command) if draw(st.booleans()) else command


def check_command(content: bytes) -> None:
    found = timely(lambda: parse_store(content))
    if found is None:
        return
    slowly = read_dataset(BytesIO(content), is_implicit_VR=True, is_little_endian=True)
    assert (slowly.CommandField, slowly.MessageID, slowly.CommandDataSetType != 0x0101) == (0x0001, found.message_id, found.has_dataset)
    for tag, uid in ((0x00000002, found.sop_class), (0x00001000, found.sop_instance)):
        assert str(slowly[tag].value) == uid.decode().strip(" \0")


def test_a_command_is_read_as_pydicom_reads_it_or_left_to_pynetdicom(explore: Explorer) -> None:
    explore(commands() | st.binary(max_size=200), check_command, examples=500)


def check_response(given: tuple[str, str, int, int, int]) -> None:
    sop_class, instance, message_id, status, max_pdu = given
    rest = store_response(3, StoreCommand(message_id, sop_class.encode(), instance.encode(), True), status, max_pdu)
    message, complete = DIMSEMessage(), False
    while rest:
        assert not complete
        pdu, length = P_DATA_TF(), int.from_bytes(rest[2:6], "big")
        assert max_pdu == 0 or length <= max(max_pdu, 14)
        pdu.decode(rest[: 6 + length])
        complete, rest = message.decode_msg(pdu.to_primitive()), rest[6 + length :]
    answer = message.message_to_primitive()
    assert complete and isinstance(answer, C_STORE)
    assert (answer.MessageIDBeingRespondedTo, answer.Status) == (message_id, status)


def test_pynetdicom_reads_every_response(explore: Explorer) -> None:
    uid = st.from_regex(r"[1-9](\.[1-9][0-9]{0,5}){0,9}", fullmatch=True)
    short = st.integers(0, 0xFFFF)
    explore(st.tuples(uid, uid, short, st.sampled_from((0, 0xA700, 0xA900, 0xC000)), st.integers(0, 300)), check_response, examples=150)


# --- the beginnings of datasets --------------------------------------------------------------------------------------------------


Body = tuple[bytes, str]
"""The bytes of a dataset and its transfer syntax."""


@st.composite
def bodies(draw: Draw, letters: list[Letter]) -> Body:
    """Draw a dataset, most often damaged, at times in its first elements, at times read in an encoding that it does not have."""
    letter = draw(st.sampled_from(letters))
    body, syntax = letter.body, letter.syntax
    way = draw(st.sampled_from(("whole", "dataset", "dataset", "bytes", "beginning", "beginning")))
    if way == "dataset":
        body = damaged_dataset(draw, body, letter.implicit, letter.order)
    elif way == "bytes":
        body = damaged(draw, body, [])
    elif way == "beginning":
        body = damaged_dataset(draw, body[:300], letter.implicit, letter.order) + body[300:]
    if draw(st.integers(0, 9)) == 0:
        syntax = draw(st.sampled_from((*SYNTAXES, "1.2.3", "")))
    return body, syntax


def check_beginning(given: Body) -> None:
    body, syntax = given
    quick = timely(lambda: quick_uids(body, syntax))
    leading = readable(lambda: header.leading_uids(body, syntax))
    found = {quick, *(timely(lambda size=cut: quick_uids(memoryview(body)[:size], syntax)) for cut in (64, 150, 256))} - {None}
    assert len(found) <= 1, "the quick reader changes its mind"
    assert leading is None or found <= {leading}, "the two readers tell of two objects"  # pydicom may stumble over a character set
    if leading is not None and syntax in SYNTAXES and syntax != DEFLATED:
        whole = _all_of(body, syntax)
        if whole is not None and whole:
            assert [str(whole.get(keyword)).strip() for keyword in ("SOPClassUID", "SOPInstanceUID")] == list(leading)


def _all_of(body: bytes, syntax: str) -> Dataset | None:
    """Return a whole dataset as pydicom reads it; None where it cannot, or where the leading group is not in its order."""
    order = [element.tag for element in elements(body[:1000], syntax == IMPLICIT, "big" if syntax == BIG else "little")]
    top = [tag for tag in order if tag >> 16 == 0x0008]
    try:
        dataset = read_dataset(BytesIO(body), syntax == IMPLICIT, syntax != BIG)
        assert "SOPInstanceUID" in dataset
    except (*header.DAMAGED, AssertionError):
        return None
    return dataset if top == sorted(set(top)) else None


def test_the_uids_at_the_beginning_are_those_that_pydicom_finds(explore: Explorer, letters: list[Letter]) -> None:
    explore(bodies(letters), check_beginning, examples=250)


# --- files -----------------------------------------------------------------------------------------------------------------------


NAMES = ("PatientName", "SliceThickness", "ContributingEquipmentSequence.DeviceUID", "PixelSpacing", "(0029,SIEMENS CSA HEADER,10)")
KEYS = [parse_key(name) for name in NAMES]


def check_file(folder: Path, given: tuple[Body, int, int]) -> None:
    """Read a file of the spool, with its head damaged at a place or not, in all ways in which it is read later."""
    (body, syntax), at, turned = given
    sender = Sender("CT1", "PACS_NODE", "127.0.0.1:4242", "00000001")
    content = bytearray(head(Incoming(sender, "1.2.840.10008.5.1.4.1.1.2", "1.2.3", syntax), "127.0.0.1:104") + body)
    if turned:
        content[at % 600 % len(content)] ^= turned
    path = folder / "object.dcm"
    path.write_bytes(content)
    readable(lambda: read_meta(path))
    found = readable(lambda: sender_of(path))
    assert turned or found == sender or len(body) < 12  # pydicom looks at the head of the next element
    readable(lambda: grouping.ensure_readable(path))
    for read in (header.read_header, header.read_object):
        dataset = readable(lambda read=read: read(path))
        if dataset is not None:
            timely(lambda dataset=dataset: _ask_everything(dataset))


def _ask_everything(dataset: Dataset) -> None:
    for keyword in ("SOPInstanceUID", "PatientName", "Modality", "PixelSpacing", "SpecificCharacterSet"):
        text = header.text_of(dataset, keyword)
        assert "\0" not in text and text.encode().decode() == text
    header.number_of(dataset, "SeriesNumber")
    header.identity(dataset)
    header.made_by(dataset, "1.2.3")
    header.is_synthetic(dataset)
    header.nested_deeper(dataset, 64)
    header.has_pixels(dataset)
    for key in KEYS:
        values(dataset, key)


def test_a_file_is_read_or_said_to_be_unreadable(explore: Explorer, letters: list[Letter], tmp_path: Path) -> None:
    places = st.tuples(bodies(letters), st.integers(0, 600), st.just(0) | st.integers(0, 255))
    explore(places, lambda given: check_file(tmp_path, given), examples=150)


def check_repeat(folder: Path, given: tuple[Body, Body]) -> None:
    """Compare two files: an unreadable one is said to be, and the order of the two does not matter to what is the same."""
    paths = folder / "old.dcm", folder / "new.dcm"
    for path, (body, syntax) in zip(paths, given, strict=True):
        path.write_bytes(head(Incoming(Sender("CT1", "PACS_NODE", "", "1"), "1.2", "1.3", syntax)) + body)
    one, other = (readable(lambda pair=pair: grouping.compare(*pair)) for pair in (paths, paths[::-1]))
    if one is not None and other is not None:
        assert one.likeness == other.likeness


def test_two_objects_are_compared_or_one_is_said_to_be_unreadable(explore: Explorer, letters: list[Letter], tmp_path: Path) -> None:
    few = letters[:2]
    explore(st.tuples(bodies(few), bodies(few)), lambda given: check_repeat(tmp_path, given), examples=100)


# --- nesting ---------------------------------------------------------------------------------------------------------------------


Nest = tuple["Nest", ...]
nests: st.SearchStrategy[Nest] = st.recursive(st.just(()), lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=12)


def _depth(nest: Nest) -> int:
    return 1 + max(map(_depth, nest)) if nest else 0


def _as_dataset(nest: Nest) -> Dataset:
    dataset = Dataset()
    dataset.PatientID = "P"
    if nest:
        dataset.ContentSequence = [_as_dataset(inner) for inner in nest]
    return dataset


def check_depth(given: tuple[Nest, int]) -> None:
    nest, most = given
    assert header.nested_deeper(_as_dataset(nest), most) == (_depth(nest) > most)


def test_depth_is_that_of_the_deepest_sequence(explore: Explorer) -> None:
    explore(st.tuples(nests, st.integers(0, 6)), check_depth, examples=200)


# --- the spool -------------------------------------------------------------------------------------------------------------------


NAME = "01700000000000000000-0a-{:06d}"


def check_spool(folder: Path, given: tuple[bytes, ...]) -> None:
    """Read a spool of damaged files and markers: each is an entry, or lies in quarantine with a reason."""
    spool = Spool(folder)
    for number, content in enumerate(given):
        suffix = ".note" if b"service" in content[:400] else ".end" if content[:1] == b"{" or not content else ".dcm"
        (spool.new / "00" / (NAME.format(number) + suffix)).write_bytes(content)
    entries, quarantined = timely(spool.arrivals), spool.quarantined()
    assert all(isinstance(entry, Arrival | AssociationEnd | Note) for entry in entries)
    assert len(entries) + len(quarantined) == len(given)
    assert all(item.reason and not item.reason.startswith("unknown") for item in quarantined)
    spool.forget(*entries, *quarantined)
    assert not [path for path in folder.rglob("*") if path.is_file()]


@st.composite
def spooled(draw: Draw) -> tuple[bytes, ...]:
    """Draw the contents of files of the spool."""
    marker = {"sender": {"calling_ae": "A", "called_ae": "B", "address": "h:1", "association": "a"}, "released": True, "stored": 1, "refused": 0}
    uid = draw(st.sampled_from(ODD_UIDS)).decode("latin-1")
    whole = head(Incoming(Sender("CT1", "PACS_NODE", "127.0.0.1:1", "a"), "1.2", uid, "1.2.840.10008.1.2"), "h:1")
    note = content_of(Sender("CT1", association="a"), "mpps", NoteRequest("n-create", "1.2", uid, None, "1.2.840.10008.1.2", b"12"))
    files = st.sampled_from(
        (json.dumps(marker).encode(), json.dumps({"service": "", **note}).encode(), whole, whole + b"dataset", b"", b"{" * 5000, b'{"sender":' + b"[" * 100_000)
    )
    contents = draw(st.lists(files, min_size=1, max_size=4))
    return tuple(damaged(draw, content, [], 2) if draw(st.booleans()) else content for content in contents)


def test_whatever_lies_in_the_spool_is_an_entry_or_is_quarantined(explore: Explorer, tmp_path: Path) -> None:
    explore(spooled(), lambda given: check_spool(tmp_path, given), examples=100)


REQUESTS = [
    step("COMPLETED", "1.2.3", ct_study(3)),
    available(ct_study(3)),
    rejection(ct_study(3)),
]


def check_request(given: bytes) -> None:
    """Read a damaged request, and what it might say: it says something, or is unreadable with a reason of bearable length."""
    try:
        dataset = timely(lambda: decode(given, "1.2.840.10008.1.2.1"))
    except UnreadableObject as error:
        assert len(str(error)) < MOST_WORDS
        return
    for read in (read_step, read_availability, read_rejection):
        with contextlib.suppress(UnreadableObject):
            timely(lambda read=read: read(dataset))  # type: ignore[misc]


def test_a_damaged_request_is_read_or_said_to_be_unreadable(explore: Explorer) -> None:
    bodies = [encode_body(with_syntax(request)) for request in REQUESTS]

    @st.composite
    def requests(draw: Draw) -> bytes:
        return damaged_dataset(draw, draw(st.sampled_from(bodies)), implicit=False, most=4)

    explore(requests(), check_request, examples=200)


def with_syntax(dataset: Dataset) -> Dataset:
    dataset.setdefault("SOPClassUID", "1.2.3")
    dataset.setdefault("SOPInstanceUID", "1.2.3.4")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def check_sender(given: tuple[str, str, str, str]) -> None:
    sender = Sender(given[0], given[1], given[2], "0a")
    content = head(Incoming(sender, given[3], given[3], "1.2.840.10008.1.2"), "h:1")
    assert int.from_bytes(content[140:144], "little") == len(content) - 144
    found = read_dataset(BytesIO(content[132:]), is_implicit_VR=False, is_little_endian=True)
    assert bytes(found.PrivateInformation) == b"0a"
    assert str(found.get("SendingApplicationEntityTitle") or "").strip() == sender.calling_ae.encode("ascii", "replace").decode().strip()


def test_the_head_of_a_file_holds_whatever_a_peer_calls_itself(explore: Explorer) -> None:
    title = st.text(st.characters(codec="latin-1", exclude_characters="\\\0"), max_size=16)
    uid = st.sampled_from(ODD_UIDS[:-1]).map(lambda uid: uid.decode("latin-1"))
    explore(st.tuples(title, title, st.sampled_from(("127.0.0.1:1", "[::1]:104")), uid), check_sender, examples=150)
