from __future__ import annotations

import struct
from io import BytesIO

import pytest
from pydicom.uid import CTImageStorage
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu import P_DATA_TF

from pacs_node.reception.command import StoreCommand, parse_store, store_response
from tests.reception.raw_peer import NO_DATASET, c_cancel, c_echo, c_store, command_set, element, uid, us


def test_a_request_is_read() -> None:
    assert parse_store(c_store(7, "1.2.3")) == StoreCommand(7, CTImageStorage.encode() + b"\0", b"1.2.3\0", True)
    request = parse_store(bytearray(c_store(65_535, "1.2.34", dataset_type=NO_DATASET)))
    assert request == StoreCommand(65_535, CTImageStorage.encode() + b"\0", b"1.2.34", False)


def test_what_pynetdicom_writes_is_read() -> None:
    primitive = C_STORE()
    primitive.MessageID, primitive.Priority = 5, 2
    primitive.AffectedSOPClassUID, primitive.AffectedSOPInstanceUID = CTImageStorage, "1.2.3.4"
    primitive.MoveOriginatorApplicationEntityTitle, primitive.MoveOriginatorMessageID = "MOVER", 3
    primitive.DataSet = BytesIO(b"data")
    message = C_STORE_RQ()
    message.primitive_to_message(primitive)
    first = next(iter(message.encode_msg(1, 0))).presentation_data_value_list[0][1]
    assert parse_store(first[1:]) == StoreCommand(5, CTImageStorage.encode() + b"\0", b"1.2.3.4\0", True)


FIELDS = (uid(0x0002, CTImageStorage), us(0x0100, 1), us(0x0110, 1), us(0x0800, 0), uid(0x1000, "1.2"))
NOT_PLAIN = {
    "an echo": c_echo(1),
    "a cancel": c_cancel(1),
    "a response": command_set(FIELDS[0], us(0x0100, 0x8001), us(0x0120, 1), us(0x0800, 0x0101), us(0x0900, 0)),
    "nothing": b"",
    "half an element": b"\0\0\0\0\4\0",
    "a length beyond the end": c_store(1, "1.2")[:-1],
    "no class": command_set(*FIELDS[1:]),
    "no instance": command_set(*FIELDS[:-1]),
    "no message ID": command_set(FIELDS[0], FIELDS[1], *FIELDS[3:]),
    "no data set type": command_set(*FIELDS[:3], FIELDS[4]),
    "a message ID of four bytes": command_set(*FIELDS[:2], element(0x0110, bytes(4)), *FIELDS[3:]),
    "an instance that is no UID": command_set(*FIELDS[:4], uid(0x1000, "../../etc/x")),
    "an instance that is too long": command_set(*FIELDS[:4], uid(0x1000, "1." * 33)),
    "two instances": command_set(*FIELDS[:4], uid(0x1000, "1.2\\1.3")),
    "another group": command_set(*FIELDS) + struct.pack("<HHI", 8, 0x16, 0),
    "out of order": command_set(FIELDS[1], FIELDS[0], *FIELDS[2:]),
    "an element twice": command_set(*FIELDS[:2], *FIELDS[1:]),
    "noise": b"\xff" * 64,
}


@pytest.mark.parametrize("what", NOT_PLAIN)
def test_what_is_not_a_plain_request_is_left_to_pynetdicom(what: str) -> None:
    assert parse_store(NOT_PLAIN[what]) is None


@pytest.mark.parametrize("max_pdu", [0, 20, 64, 100_000])
@pytest.mark.parametrize("status", [0x0000, 0xA700, 0xC000])
def test_pynetdicom_reads_the_response(status: int, max_pdu: int) -> None:
    rest, message = store_response(5, StoreCommand(9, b"1.2.840\0", b"1.2.3", True), status, max_pdu), DIMSEMessage()
    complete = False
    while rest:
        length = struct.unpack(">L", rest[2:6])[0]
        assert max_pdu == 0 or length <= max_pdu
        pdu = P_DATA_TF()
        pdu.decode(rest[: 6 + length])
        complete = message.decode_msg(pdu.to_primitive())
        rest = rest[6 + length :]
    assert complete
    answer = message.message_to_primitive()
    assert (message.context_id, answer.MessageIDBeingRespondedTo, answer.Status) == (5, 9, status)
    assert (answer.AffectedSOPClassUID, answer.AffectedSOPInstanceUID) == ("1.2.840", "1.2.3")
