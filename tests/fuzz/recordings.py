"""Good exchanges to begin with: what pynetdicom sends, recorded from its socket, and objects in the encodings that differ in how they are read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.dimse_primitives import C_STORE

from pacs_node.phantoms import PhantomSpec, make_study
from tests.fuzz.mutation import Order, pdus
from tests.reception.peers import make_ct
from tests.reception.raw_peer import VERIFICATION, association_request, c_cancel, c_echo, c_store

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, DEFLATED, BIG, JPEG = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.4.70",
)
SYNTAXES = (EXPLICIT, IMPLICIT, BIG, DEFLATED, JPEG)
CONTEXTS = ((CT, EXPLICIT), (VERIFICATION, IMPLICIT), (CT, IMPLICIT), (CT, BIG), (CT, DEFLATED), (CT, JPEG))


@dataclass(frozen=True, slots=True)
class Letter:
    """A dataset as it travels, and what its command says of it."""

    sop_class: str
    sop_uid: str
    syntax: str
    body: bytes

    @property
    def implicit(self) -> bool:
        """Whether value representations are left out."""
        return self.syntax == IMPLICIT

    @property
    def order(self) -> Order:
        """The order of bytes in numbers."""
        return "big" if self.syntax == BIG else "little"


@dataclass(frozen=True, slots=True)
class Said:
    """A message of an exchange: a command, and the dataset that goes with it."""

    context: int
    command: bytes
    letter: Letter | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole exchange: the association request, the messages, the release."""

    request: bytes
    messages: tuple[Said, ...]


def encoded(dataset: Dataset, syntax: str) -> Letter:
    """Return a dataset in an encoding; its pixels are put into a fragment where that asks for it, decodable or not."""
    copy = Dataset()
    copy.update(dataset)
    if syntax == JPEG:
        copy.PixelData = encapsulate([copy.PixelData])
        copy["PixelData"].VR, copy["PixelData"].is_undefined_length = "OB", True
    stream = DicomBytesIO()
    stream.is_implicit_VR, stream.is_little_endian = syntax == IMPLICIT, syntax != BIG
    write_dataset(stream, copy)
    body = stream.getvalue()
    if syntax == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        body = deflate.compress(body) + deflate.flush()
    return Letter(str(dataset.SOPClassUID), str(dataset.SOPInstanceUID), syntax, body)


def small_image(number: int, rows: int = 16) -> Dataset:
    """Return an image whose UIDs are always the same; a sequence stands before its own."""
    language = Dataset()
    language.CodeValue, language.CodingSchemeDesignator, language.CodeMeaning = "en", "RFC5646", "English"
    return make_ct(
        rows, SOPInstanceUID=f"1.2.3.{number}", StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.0", SpecificCharacterSet="ISO_IR 100",
        **({"LanguageCodeSequence": [language]} if number % 3 == 0 else {}),
    )  # fmt: skip


def by_hand() -> list[Recording]:
    """Return exchanges whose every byte is ours: each encoding alone, all of them in one, echoes and a cancel between instances."""
    letters = [encoded(small_image(number, 16 if number else 48), syntax) for number, syntax in enumerate(SYNTAXES)]
    stores = [Said(2 * index + 1 if index == 0 else 2 * index + 3, c_store(index + 1, one.sop_uid), one) for index, one in enumerate(letters)]
    echo, cancel = Said(3, c_echo(77)), Said(1, c_cancel(1))
    request = association_request(CONTEXTS)
    each = [Recording(request, (store,)) for store in stores]
    mixed = stores[0], echo, cancel, stores[2], stores[1], echo
    return [*each, Recording(request, tuple(stores)), Recording(request, mixed), Recording(request, (echo,))]


def from_pynetdicom(port: int) -> Recording:
    """Record what pynetdicom sends when it associates with a receiver, asks for an echo, stores two instances and releases."""
    sent: list[bytes] = []
    entity = AE("RECORDED")
    contexts = [build_context(CT, [EXPLICIT]), build_context(VERIFICATION), build_context(CT, [IMPLICIT])]
    handlers = [(evt.EVT_DATA_SENT, lambda event: sent.append(event.data))]
    association = entity.associate("127.0.0.1", port, contexts, ae_title="PACS_NODE", evt_handlers=handlers)
    assert association.is_established
    association.send_c_echo()
    letters = [encoded(small_image(7), EXPLICIT), encoded(small_image(8), IMPLICIT)]
    for context, letter in zip((1, 5), letters, strict=True):
        _send_raw(association, context, letter)
    association.release()
    stream = b"".join(sent)
    request, *others = (stream[where] for where in pdus(stream))
    commands = [pdu[12:] for pdu in others if pdu[0] == 0x04 and pdu[11] & 1]  # each command came in one value
    assert len(commands) == 3
    said = zip((3, 1, 5), commands, (None, *letters), strict=True)
    return Recording(request, tuple(Said(context, command, letter) for context, command, letter in said))


def _send_raw(association: object, context: int, letter: Letter) -> None:
    request = C_STORE()
    request.MessageID, request.Priority = context, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, request.DataSet = letter.sop_class, letter.sop_uid, BytesIO(letter.body)
    association._reactor_checkpoint.clear()  # type: ignore[attr-defined]
    association.dimse.send_msg(request, context)  # type: ignore[attr-defined]
    association.dimse.get_msg(block=True)  # type: ignore[attr-defined]
    association._reactor_checkpoint.set()  # type: ignore[attr-defined]


def phantoms() -> Iterator[Dataset]:
    """Yield images as scanners make them, synthetic, of every modality."""
    kinds: Sequence[dict[str, object]] = (
        {"modality": "CT"},
        {"modality": "CT", "enhanced": True},
        {"modality": "MR"},
        {"modality": "PT"},
        {"modality": "PT", "enhanced": True},
        {"modality": "US", "colour": True},
    )
    for kind in kinds:
        yield from make_study(PhantomSpec(slices=2, rows=64, seed=3, **kind))  # type: ignore[arg-type]
