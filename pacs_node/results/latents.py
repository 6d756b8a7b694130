"""The representation: a series as bytes from which its objects can be made again. The format is described in autoencoder/FORMAT.md.

::

    objects ─┬─ headers ── explicit VR, together deflated ──────────┐
             └─ frames of one size and type ── one stream a stack ──┴─► representation ─► objects, decoded

It holds whose images they are, and the images: it is patient data like the originals.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
from pacs_node.autoencoder.embedding import Embedding
from pacs_node.dicom.header import DAMAGED, identity, text_of
from pacs_node.errors import InputError
from pacs_node.records import StoredImage

FORMAT_VERSION = 1
_MAGIC = b"PNREP"
_HASH = hashlib.sha256().digest_size


@dataclass(frozen=True, slots=True)
class Representation:
    """What a Raw Data object carries: packed objects, by how many stored values a pixel may be off, and the embeddings where a model saw them."""

    content: bytes
    near: int
    embedding: Embedding | None = None


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What a representation holds."""

    images: tuple[StoredImage, ...]
    near: int
    model_uid: str  # Device UID, "" without a model
    methods: tuple[str, ...]  # of each object's stack
    ratio: float  # bytes of the pixels over bytes of their streams


def pack(images: Sequence[StoredImage], near: int, model_uid: str = "") -> bytes:
    """Encode objects of one patient and study, at most ``near`` off in every pixel; every stream was decoded and compared.

    Raises `InputError` where that cannot be done.
    """
    _refuse_strangers(images)
    writer, stacks = Writer(), _stacks(images)
    writer.part(model_uid.encode())
    writer.number(near)
    writer.number(len(stacks))
    places: dict[int, tuple[int, int]] = {}
    for number, members in enumerate(stacks):
        _add_stack(writer, [images[member] for member in members], near)
        first = 0
        for member in members:
            places[member] = number, first
            first += len(images[member].values)
    headers = Writer()
    writer.number(len(images))
    for index, image in enumerate(images):
        for value in (*places[index], len(image.values)):
            writer.number(value)
        writer.part(image.photometric.encode())
        headers.part(_header_bytes(image.header))
    writer.deflated(headers.content())
    content = writer.content()
    sealed = _MAGIC + bytes((FORMAT_VERSION,)) + len(content).to_bytes(8, "little") + content
    return sealed + hashlib.sha256(sealed).digest()


def _refuse_strangers(images: Sequence[StoredImage]) -> None:
    if not images:
        raise InputError("there is no image with pixels that can be encoded")
    if len({(identity(image.header), text_of(image.header, "StudyInstanceUID")) for image in images}) > 1:
        raise InputError("the images are of several patients or studies: encode each study by itself")


def _stacks(images: Sequence[StoredImage]) -> list[list[int]]:
    """Group objects whose frames fit on each other, in their order."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault((image.values.dtype.str, image.values.shape[1:]), []).append(index)
    return list(groups.values())


def _add_stack(writer: Writer, images: Sequence[StoredImage], near: int) -> None:
    try:
        stream, found = codec.encode_and_decode(np.concatenate([image.values for image in images]), near)
    except ValueError as error:
        raise InputError(f"instance {text_of(images[0].header, 'SOPInstanceUID')} and those like it cannot be encoded: {error}") from error
    writer.part(stream)
    writer.raw(_digest(found))


def _digest(values: NDArray[np.integer]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).digest()


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
    """Decode a representation; raises `StreamError` where it is damaged, cut short, or of a version that this reader does not know."""
    reader = Reader(_opened(content))
    try:
        model, near = reader.part().decode("ascii"), reader.number()
        stacks = [_stack(reader) for _ in range(reader.number())]
        places = [([reader.number() for _ in range(3)], reader.part().decode("ascii")) for _ in range(reader.number())]
        headers = Reader(reader.deflated())
        images = [_image(stacks, place, meaning, headers.part()) for place, meaning in places]
        reader.end()
        headers.end()
    except (*DAMAGED, IndexError) as error:
        raise error if isinstance(error, StreamError) else StreamError(f"it is damaged ({error})") from error
    before = sum(values.nbytes for values, _, _ in stacks)
    methods = tuple(stacks[place[0]][1] for place, _ in places)
    return Unpacked(tuple(images), near, model, methods, before / max(1, sum(size for _, _, size in stacks)))


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


def _stack(reader: Reader) -> tuple[NDArray[np.integer], str, int]:
    stream, digest = reader.part(), reader.raw(_HASH)
    values = codec.decode(stream)
    if _digest(values) != digest:
        raise StreamError("the pixels are not those that were encoded")
    return values, codec.method_of(stream), len(stream)


def _image(stacks: Sequence[tuple[NDArray[np.integer], str, int]], place: Sequence[int], meaning: str, header: bytes) -> StoredImage:
    number, first, count = place
    values = stacks[number][0][first : first + count]
    if len(values) != count or not count:
        raise StreamError("it names frames that it does not hold")
    return StoredImage(read_dataset(BytesIO(header), is_implicit_VR=False, is_little_endian=True), values, meaning)
