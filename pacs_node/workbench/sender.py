"""A C-STORE sender for measuring: pynetdicom writes the PDUs, one thread sends them and awaits each response.

pynetdicom's own requestor has a second thread that now and then takes the response away from whoever waits for it; the quicker the answer, the
oftener.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from io import BytesIO
from types import TracebackType

from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification

from pacs_node.dicom.sop_classes import IMPLEMENTATION_CLASS_UID
from pacs_node.errors import InputError

_A_ASSOCIATE_AC, _P_DATA_TF = 0x02, 0x04
_MAX_PDU = 131_072  # bytes, of the PDUs that it sends
_SECONDS = 60.0


class Sender:
    """An association that sends images of ``sop_classes`` in explicit VR little endian; a context manager that releases it.

    Raises `InputError` where the receiver refuses the association or an instance.
    """

    def __init__(self, port: int, called_ae: str, sop_classes: Sequence[str] = (CTImageStorage,)) -> None:
        self._port = port
        self._contexts = {sop_class: 2 * number + 1 for number, sop_class in enumerate(sop_classes)}
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(_association_request(called_ae, self._contexts))
        kind, _ = self._read_pdu()
        if kind != _A_ASSOCIATE_AC:
            self._socket.close()
            raise InputError(f"the receivers on port {port} refused an association: their log says why")

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._socket:
            if error is None and self._socket.fileno() >= 0:
                self._socket.sendall(A_RELEASE_RQ().encode())
                self._read_pdu()

    def send(self, image: Dataset) -> None:
        """Send an instance and await its response."""
        self.send_encoded(image.SOPClassUID, image.SOPInstanceUID, encode(image, is_implicit_vr=False, is_little_endian=True) or b"")

    def send_encoded(self, sop_class: str, sop_instance: str, body: bytes) -> None:
        """Send an instance whose dataset is encoded already, and await its response."""
        self._socket.sendall(self._message(sop_class, sop_instance, body))
        status = self._response()
        if status != 0:
            raise InputError(f"the receivers on port {self._port} refused an instance with status 0x{status:04X}: their log says why")

    def break_off(self, sop_class: str, sop_instance: str, body: bytes) -> None:
        """Send half of an instance and close the connection, as a modality that is switched off."""
        message = self._message(sop_class, sop_instance, body)
        self._socket.sendall(message[: len(message) // 2])
        self._socket.close()

    def _message(self, sop_class: str, sop_instance: str, body: bytes) -> bytes:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UID(sop_class), UID(sop_instance)
        request.DataSet = BytesIO(body)
        message = C_STORE_RQ()
        message.primitive_to_message(request)
        return b"".join(P_DATA_TF(fragment).encode() for fragment in message.encode_msg(self._contexts[sop_class], _MAX_PDU))

    def _response(self) -> int:
        message = DIMSEMessage()
        while True:
            kind, body = self._read_pdu()
            if kind != _P_DATA_TF:
                raise InputError(f"the receivers on port {self._port} ended an association: their log says why")
            pdu = P_DATA_TF()
            pdu.decode(body)
            if message.decode_msg(pdu.to_primitive()):
                return int(message.command_set.Status)

    def _read_pdu(self) -> tuple[int, bytes]:
        """Return the type of the next PDU, and the PDU; (0, b"") where the connection ends."""
        head = self._exactly(6)
        if len(head) < 6:
            return 0, b""
        kind, length = struct.unpack(">BxL", head)
        return kind, head + self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size and (piece := self._socket.recv(size - len(found))):
            found += piece
        return found


def _association_request(called_ae: str, contexts: Mapping[str, int]) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "BENCH", called_ae
    proposed = []
    for sop_class, number in contexts.items():
        context = build_context(sop_class, [ExplicitVRLittleEndian])
        context.context_id = number
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = _MAX_PDU
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    primitive.user_information = [length, implementation]
    return bytes(A_ASSOCIATE_RQ(primitive).encode())
