"""Raw Data Storage with a representation and embeddings in a private block (PS3.3 A.37, C.19.1; PS3.5 7.8), and reading it back from an archive.

====================  ==  ========================================================================
(0091,xx01)           LO  version of the format
(0091,xx02)           UI  the model's Device UID, absent without a model
(0091,xx03)           IS  by how many stored values a pixel may be off; 0: none
(0091,xx04)           LO  which of 10, 11, 12 there are
(0091,xx05)           LT  why there is no representation, only where there is none: then there is no (0091,xx03) either
(0091,xx10)           OB  the representation: headers and pixels, see `latents`
(0091,xx11)           OB  embedding of each slice, 128 float16 each, little-endian
(0091,xx12)           OB  their mean and their spread, 128 float16 each
====================  ==  ========================================================================

The block is reserved by (0091,0010…00FF) with the creator PACS-NODE REPRESENTATION. An archive that stores in Implicit VR gives it back as UN: what is
read here does not depend on the VR.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import RawDataStorage

from pacs_node.autoencoder.codec_bytes import StreamError
from pacs_node.autoencoder.embedding import WIDTH, Embedding
from pacs_node.dicom.header import text_of
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError, ResultRejected
from pacs_node.results import codes as ours
from pacs_node.results.files import even
from pacs_node.results.identity import Label, finish
from pacs_node.results.latents import FORMAT_VERSION, Unpacked, unpack
from pacs_node.results.references import image_items, references_to
from pacs_node.results.request import BuildRequest

GROUP = 0x0091
CREATOR = "PACS-NODE REPRESENTATION"
FORMAT_UID = derive_uid("representation format", FORMAT_VERSION)
"""Creator-Version UID (0008,9123) of what this version writes."""

_VERSION, _MODEL, _NEAR, _LIST, _WHY, _CONTENT, _SLICES, _SERIES = 0x01, 0x02, 0x03, 0x04, 0x05, 0x10, 0x11, 0x12
_NAMES: Mapping[int, str] = {_CONTENT: "the representation", _SLICES: "the embeddings", _SERIES: "the embeddings' mean and spread"}
_MOST_BYTES = (1 << 32) - 2  # of one value (PS3.5 7.1.2)


@dataclass(frozen=True, slots=True)
class Raw:
    """What a Raw Data object of ours still holds, and ``stripped``: what an archive has taken out of it, in words.

    ``content`` is empty where it was written without a representation, for the reason that ``lacking`` gives.
    """

    content: bytes
    embedding: Embedding | None
    model_uid: str
    stripped: tuple[str, ...]
    lacking: str = ""


def build_raw(request: BuildRequest, made: Mapping[str, Dataset]) -> Dataset:
    """Build the Raw Data object of a request's representation; raises `ResultRejected` where there is none or it is too large for DICOM."""
    part = request.representation
    if part is None:
        raise ResultRejected("raw", ("there is no representation to carry",))
    if not part.content and part.embedding is None:
        raise ResultRejected("raw", ("there is neither a representation nor an embedding to carry",))
    if len(part.content) > _MOST_BYTES:
        raise ResultRejected("raw", (f"the representation has {len(part.content)} bytes, a DICOM value takes {_MOST_BYTES}: encode fewer series at a time",))
    dataset = Dataset()
    dataset.CreatorVersionUID = FORMAT_UID
    dataset.Laterality = None  # Type 2C of the series: the images say it
    dataset.AcquisitionContextSequence = []  # Type 2 (PS3.3 C.7.6.14)
    dataset.ReferencedInstanceSequence = []
    for item in image_items(references_to(request.sources.analysed), {}):
        item.PurposeOfReferenceCodeSequence = [ours.item_of(ours.SOURCE_FOR_PROCESSING)]
        dataset.ReferencedInstanceSequence.append(item)
    _add_block(dataset, request)
    name = f"{request.algorithm.name} {request.algorithm.version} " if request.algorithm else ""
    what = f"compressed representation, error <= {part.near}" if part.content else "embedding only"
    return finish(dataset, request, Label("raw", str(RawDataStorage), "OT", 10, f"{name}{what}, research use"))


def _add_block(dataset: Dataset, request: BuildRequest) -> None:
    part = request.representation
    assert part is not None
    block = dataset.private_block(GROUP, CREATOR, create=True)
    block.add_new(_VERSION, "LO", str(FORMAT_VERSION))
    if request.algorithm is not None:
        block.add_new(_MODEL, "UI", request.algorithm.device_uid)
    if part.content:
        block.add_new(_NEAR, "IS", str(part.near))
    else:
        block.add_new(_WHY, "LT", part.lacking)
    parts = {_CONTENT: _even(part.content)} if part.content else {}
    if part.embedding is not None:
        parts[_SLICES] = _halves(part.embedding.slices)
        parts[_SERIES] = _halves(np.stack([part.embedding.mean, part.embedding.spread]))
    block.add_new(_LIST, "LO", [f"{element:02X}" for element in parts])
    for element, value in parts.items():
        block.add_new(element, "OB", value)


def _even(content: bytes) -> bytes:
    return even(content)


def _halves(values: NDArray[np.float16]) -> bytes:
    return values.astype("<f2").tobytes()


# --- reading -------------------------------------------------------------------------------------------------------------


def read_raw(dataset: Dataset, name: str) -> Raw:
    """Take the private block out of an object, whatever its VRs became; ``name`` is used in errors.

    Raises `InputError` where it is no such object, of a format that this version does not know, or stripped of its representation.
    """
    if text_of(dataset, "SOPClassUID") != RawDataStorage:
        raise InputError(f"{name} is no Raw Data object but {text_of(dataset, 'SOPClassUID')}: name what `pacs-node encode` or the result kind `raw` has made")
    version = text_of(dataset, "CreatorVersionUID")
    if version != FORMAT_UID:
        raise InputError(f"{name}: its Creator-Version UID {version or '(none)'} is not {FORMAT_UID}: another program or version made it; use that one")
    values = _block(dataset)
    listed = _listed(values) | _unless_said(values)
    stripped = tuple(f"{what} ({GROUP:04X},xx{element:02X})" for element, what in _NAMES.items() if element in listed - set(values))
    if _LIST not in values:
        stripped += (f"the list of its contents ({GROUP:04X},xx{_LIST:02X})",)
    if _CONTENT in listed - set(values):
        raise InputError(f"{name}: an archive has taken out {', '.join(stripped)}: have it keep the private elements of creator {CREATOR}, and encode again")
    embedding = _embedding(values) if _SLICES in values and _SERIES in values else None
    model, lacking = (values.get(element, b"").decode("ascii", "replace").strip("\0 ") for element in (_MODEL, _WHY))
    return Raw(values.get(_CONTENT, b""), embedding, model, stripped, lacking)


def lacking(dataset: Dataset) -> tuple[str, ...]:
    """Return the elements that a Raw Data object of ours must have, or says that it has, and has not."""
    values = _block(dataset)
    needed = {_VERSION, _LIST} | _listed(values) | ({_NEAR, _CONTENT} if _unless_said(values) else {_SLICES, _SERIES})
    return tuple(f"({GROUP:04X},xx{element:02X})" for element in sorted(needed) if not values.get(element))


def _unless_said(values: Mapping[int, bytes]) -> set[int]:
    """Return the element of the representation, nothing where the object says that it was written without one."""
    return set() if values.get(_WHY) and _CONTENT not in _listed(values) else {_CONTENT}


def _listed(values: Mapping[int, bytes]) -> set[int]:
    return {int(text, 16) for text in values.get(_LIST, b"").decode("ascii", "replace").replace("\\", " ").split() if text in ("10", "11", "12")}


def _block(dataset: Dataset) -> dict[int, bytes]:
    """Return the values of our private block as bytes, by the last byte of their tags."""
    reserved = [tag.element for tag in dataset.keys() if tag.group == GROUP and 0x10 <= tag.element <= 0xFF and _bytes(dataset[tag].value) == CREATOR.encode()]  # noqa: SIM118
    found: dict[int, bytes] = {}
    for tag in dataset.keys():  # noqa: SIM118 - iterating a dataset converts every value
        if tag.group == GROUP and tag.element >> 8 in reserved:
            found[tag.element & 0xFF] = _bytes(dataset[tag].value, strip=tag.element & 0xFF < _CONTENT)
    return found


def _bytes(value: object, *, strip: bool = True) -> bytes:
    texts = value if isinstance(value, list | tuple | MultiValue) else [value]
    content = value if isinstance(value, bytes) else "\\".join(str(text) for text in texts).encode("ascii", "replace")
    return content.strip(b"\0 ") if strip else content


def _embedding(values: Mapping[int, bytes]) -> Embedding | None:
    slices, series = (np.frombuffer(values[element], "<f2") for element in (_SLICES, _SERIES))
    if slices.size % WIDTH or series.size != 2 * WIDTH:
        return None
    mean, spread = series.reshape(2, WIDTH).astype(np.float16)
    return Embedding(slices.reshape(-1, WIDTH).astype(np.float16), mean, spread)


def open_raw(dataset: Dataset, name: str) -> tuple[Raw, Unpacked]:
    """Read an object and decode its representation; raises `InputError` naming it where it is damaged or of a version that is not known."""
    raw = read_raw(dataset, name)
    if not raw.content and raw.lacking:
        raise InputError(f"{name} holds embeddings only ({raw.lacking}): encode the images themselves with `pacs-node encode`")
    try:
        return raw, unpack(raw.content)
    except StreamError as error:
        raise InputError(f"{name} cannot be decoded: {error}") from error
