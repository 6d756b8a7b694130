"""The representation: a series as bytes from which its objects can be made again. The format is described in autoencoder/FORMAT.md.

::

    objects ─┬─ headers ── explicit VR, together deflated ──────────┐
             └─ frames of one size and type ── one stream a stack ──┴─► representation ─► objects, decoded

It holds whose images they are, and the images: it is patient data like the originals.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from pacs_node.autoencoder import codec
from pacs_node.autoencoder.codec_bytes import Reader, StreamError, Writer
from pacs_node.autoencoder.codec_pace import UNHURRIED, Pace
from pacs_node.dicom.header import DAMAGED, identity, number_of, text_of
from pacs_node.errors import InputError
from pacs_node.records import StoredImage
from pacs_node.results.lossiness import add_lossiness, is_lossy

FORMAT_VERSION = 1
_MAGIC = b"PNREP"
_TOGETHER = 1 << 24  # bytes of headers that are compressed together
_HASH = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a representation holds."""

    images: tuple[StoredImage, ...]
    near: int
    model_uid: str  # Device UID, "" without a model
    methods: tuple[str, ...]  # of each object's stack
    ratio: float  # bytes of the pixels over bytes of their streams


def pack(images: Sequence[StoredImage], near: int, model_uid: str = "", pace: Pace = UNHURRIED, note: Callable[[str], None] = lambda chosen: None) -> bytes:
    """Encode objects of one patient and study, at most ``near`` off in every pixel; every stream was decoded and compared, every header read again.

    With a ``pace``, ``note`` is told for each stack which method was chosen and why. Raises `InputError` where it cannot be done, `OutOfTime`
    where it cannot be done by then.
    """
    _refuse_strangers(images)
    writer, stacks = Writer(), _stacks(images)
    headers = [_header_bytes(_with_loss(image.header)) for image in images]
    writer.part(model_uid.encode())
    writer.number(near)
    writer.number(len(stacks))
    places: dict[int, tuple[int, int]] = {}
    sizes = [sum(images[member].values.size for member in members) for members in stacks]
    for number, members in enumerate(stacks):
        own = pace.share(sizes[number] / sum(sizes[number:]))  # so that no stack takes the time of those after it
        _add_stack(writer, [images[member] for member in members], near, own, note)
        first = 0
        for member in members:
            places[member] = number, first
            first += len(images[member].values)
    writer.number(len(images))
    for index, image in enumerate(images):
        for value in (*places[index], len(image.values)):
            writer.number(value)
        writer.part(image.photometric.encode())
    content = writer.content() + _packed_headers(headers, images)
    sealed = _MAGIC + bytes((FORMAT_VERSION,)) + len(content).to_bytes(8, "little") + content
    return sealed + hashlib.sha256(sealed).digest()


def _packed_headers(headers: Sequence[bytes], images: Sequence[StoredImage]) -> bytes:
    """Return headers deflated, some megabytes together, after they were opened again as a reader does."""
    writer, some = Writer(), Writer()
    size = 0
    for header in headers:
        if size and size + len(header) > _TOGETHER:
            writer.deflated(some.content())
            some, size = Writer(), 0
        some.part(header)
        size += len(header)
    writer.deflated(some.content())
    try:
        reader = Reader(writer.content())
        found = _read_headers(reader, len(headers))
        reader.end()
        promised = sum(map(_promised, found))
    except DAMAGED as error:
        raise InputError(f"the headers cannot be read again ({error}): leave out what is odd or very large in them") from error
    if sum(image.values.size for image in images) > promised:
        raise InputError("there are more pixels than the headers say: Rows, Columns, Number of Frames or Samples per Pixel are wrong")
    return writer.content()


def _refuse_strangers(images: Sequence[StoredImage]) -> None:
    if not images:
        raise InputError("there is no image with pixels that can be encoded")
    if len({(identity(image.header), text_of(image.header, "StudyInstanceUID")) for image in images}) > 1:
        raise InputError("the images are of several patients or studies: encode each study by itself")


def _stacks(images: Sequence[StoredImage]) -> list[list[int]]:
    """Group objects of one series whose frames fit on each other, in their order; none grows beyond what a stream may hold."""
    groups: dict[tuple[object, ...], list[list[int]]] = {}
    for index, image in enumerate(images):
        alike = groups.setdefault((text_of(image.header, "SeriesInstanceUID"), image.values.dtype.str, image.values.shape[1:]), [[]])
        if sum(images[member].values.nbytes for member in alike[-1]) + image.values.nbytes > codec.MOST_BYTES and alike[-1]:
            alike.append([])
        alike[-1].append(index)
    return [members for alike in groups.values() for members in alike]


def _add_stack(writer: Writer, images: Sequence[StoredImage], near: int, pace: Pace, note: Callable[[str], None]) -> None:
    values = [image.values for image in images]
    try:
        if pace == UNHURRIED:
            stream, found = codec.encode_and_decode(values, near)
        else:
            coded = codec.encode_within(values, near, pace)
            stream, found = coded.stream, coded.values
            note(coded.chosen)
    except ValueError as error:
        raise InputError(f"instance {text_of(images[0].header, 'SOPInstanceUID')} and those like it cannot be encoded: {error}") from error
    writer.part(stream)
    writer.raw(_digest(found))


def _digest(values: NDArray[np.integer]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


def _with_loss(header: Dataset) -> Dataset:
    """Return a header that says by itself what its encoding said of loss: the file meta information is not kept."""
    if not is_lossy(header):
        return header
    said = copy.deepcopy(header)
    add_lossiness(said, [header])
    return said


def _header_bytes(header: Dataset) -> bytes:
    buffer = BytesIO()
    file = DicomIO(buffer)
    file.is_little_endian, file.is_implicit_VR = True, False
    try:
        write_dataset(file, header)
    except DAMAGED as error:
        raise InputError(f"instance {text_of(header, 'SOPInstanceUID')}: its header cannot be written again ({error}): leave it out") from error
    return buffer.getvalue()


def unpack(content: bytes) -> Unpacked:
    """Decode a representation; raises `StreamError` where it is damaged, cut short, or of a version that this reader does not know.

    No stream is decoded before the headers: they bound what streams may claim.
    """
    reader = Reader(_opened(content))
    try:
        model, near = reader.part().decode("ascii"), reader.number()
        streams = [(reader.part(), reader.raw(_HASH)) for _ in range(reader.number())]
        places = [([reader.number() for _ in range(3)], reader.part().decode("ascii")) for _ in range(reader.number())]
        headers = _read_headers(reader, len(places))
        reader.end()
        _refuse_claims([stream for stream, _ in streams], headers, near)
        stacks = [_stack(stream, digest) for stream, digest in streams]
        images = [_image(stacks, place, meaning, header) for (place, meaning), header in zip(places, headers, strict=True)]
    except (*DAMAGED, IndexError) as error:
        raise error if isinstance(error, StreamError) else StreamError(f"it is damaged ({error})") from error
    before = sum(values.nbytes for values in stacks)
    methods = tuple(codec.method_of(streams[place[0]][0]) for place, _ in places)
    return Unpacked(tuple(images), near, model, methods, before / max(1, sum(len(stream) for stream, _ in streams)))


def _read_headers(reader: Reader, count: int) -> list[Dataset]:
    """Read the headers of so many objects, from as many compressed parts as they take."""
    headers: list[Dataset] = []
    while len(headers) < count:
        some = Reader(reader.deflated())
        before = len(headers)
        while some.left:
            headers.append(read_dataset(BytesIO(some.part()), is_implicit_VR=False, is_little_endian=True))
        if len(headers) == before:
            raise StreamError("headers are missing")
    if len(headers) > count:
        raise StreamError("it holds more headers than objects")
    return headers


def _promised(header: Dataset) -> int:
    """Return how many values a header says that its object has."""
    rows, columns, frames, planes = (number_of(header, keyword) for keyword in ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"))
    return max(0, rows or 0) * max(0, columns or 0) * max(1, frames or 1) * max(1, planes or 1)


def _refuse_claims(streams: Sequence[bytes], headers: Sequence[Dataset], near: int) -> None:
    claims = [codec.claim_of(stream) for stream in streams]
    if sum(claim.values for claim in claims) > sum(map(_promised, headers)):
        raise StreamError("its streams claim more pixels than its headers say")
    if wrong := [claim.near for claim in claims if claim.near != near]:
        raise StreamError(f"it says that pixels are at most {near} off, and holds a stream of {wrong[0]}")


def _opened(content: bytes) -> bytes:
    start = len(_MAGIC) + 9
    if not content.startswith(_MAGIC) or len(content) < start:
        raise StreamError("it is no representation of a series")
    if content[len(_MAGIC)] != FORMAT_VERSION:
        raise StreamError(f"it is of format {content[len(_MAGIC)]}, this reader knows {FORMAT_VERSION}: use the pacs-node that made it, or a newer one")
    end = start + int.from_bytes(content[start - 8 : start], "little")
    if content[end : end + _HASH] != hashlib.sha256(content[:end]).digest():
        raise StreamError("its checksum is wrong: it was damaged or cut short")
    return content[start:end]


def _stack(stream: bytes, digest: bytes) -> NDArray[np.integer]:
    values = codec.decode(stream)
    if _digest(values) != digest:
        raise StreamError("the pixels are not those that were encoded")
    return values


def _image(stacks: Sequence[NDArray[np.integer]], place: Sequence[int], meaning: str, header: Dataset) -> StoredImage:
    number, first, count = place
    values = stacks[number][first : first + count]
    if len(values) != count or not count:
        raise StreamError("it names frames that it does not hold")
    return StoredImage(header, values, meaning)
