"""`pacs-node encode` and `decode`: a folder of images as one Raw Data object with a bounded error, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pacs_node import results
from pacs_node.analysis.originals import read_images
from pacs_node.autoencoder.codec import LARGEST_NEAR
from pacs_node.config import Settings
from pacs_node.dicom.header import read_object, text_of
from pacs_node.errors import InputError, ResultRejected
from pacs_node.records import ResultObject, Run, Sources, StoredImage
from pacs_node.results.files import encode as part10
from pacs_node.workbench.studies import files_below, studies_below


@dataclass(frozen=True)
class Encoded:
    """What `encode_folder` did: bytes of the pixels, of the files read, and of the object written."""

    out: Path
    images: int
    series: int
    near: int
    pixel_bytes: int
    file_bytes: int
    object_bytes: int
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class Decoded:
    """What `decode_files` wrote, and what archives had taken out of the objects."""

    out: Path
    images: int
    near: int
    stripped: tuple[str, ...]


def encode_folder(folder: Path, out: Path, near: int, settings: Settings) -> Encoded:
    """Encode the images of one study into ``out``; raises `InputError` for several studies, for nothing to encode, or an error out of range."""
    if not 0 <= near <= LARGEST_NEAR:
        raise InputError(f"an error of at most {near} stored values: a whole number from 0 (no loss) to {LARGEST_NEAR} is needed")
    if out.is_dir():
        raise InputError(f"{out} is a folder: name the file that is to be written")
    studies = studies_below(folder)
    if len(studies) > 1:
        raise InputError(f"{folder} holds {len(studies)} studies: encode each by itself")
    images, left_out = read_images(studies[0].files)
    if not images:
        raise InputError(f"nothing below {folder} can be encoded: {left_out[0]}")
    _refuse_repeats(images, folder)
    representation = results.Representation(results.pack(images, near), near)
    made = _object(images, representation, settings)
    content = part10(made.dataset)
    out.parent.mkdir(parents=True, exist_ok=True)
    results.save(made, out)
    series = {text_of(image.header, "SeriesInstanceUID") for image in images}
    sizes = sum(image.values.nbytes for image in images), sum(file.stat().st_size for file in studies[0].files)
    return Encoded(out, len(images), len(series), near, *sizes, len(content), tuple(left_out))


def _refuse_repeats(images: list[StoredImage], folder: Path) -> None:
    uids = [text_of(image.header, "SOPInstanceUID") for image in images]
    if twice := sorted({uid for uid in uids if uids.count(uid) > 1}):
        raise InputError(f"several files below {folder} are instance {twice[0]}: keep one of them")


def _object(images: list[StoredImage], representation: results.Representation, settings: Settings) -> ResultObject:
    sources, node = Sources(tuple(image.header for image in images)), settings.node
    run = Run(0, 1, "encode", node.name, datetime.now(UTC), f"raw-{representation.near}", "encoded from a folder", partial=False)
    request = results.BuildRequest(None, None, sources, run, node.equipment, node.uid_root, node.timezone, ("raw",), representation=representation)
    made = results.build(request)
    if faults := results.check_all(made, sources):
        raise ResultRejected("raw", faults)
    return made[0]


def decode_files(source: Path, out: Path, settings: Settings, beat: Callable[[float], None] = lambda fraction: None) -> Decoded:
    """Decode every Raw Data object in a file, or below a folder, to images in ``out``, a folder each series; raises `InputError`.

    The images carry patient and study as the Raw Data object says them now, corrected where its archive corrected them.
    """
    files, images, near, stripped = files_below(source), 0, 0, []
    for done, file in enumerate(files, start=1):
        dataset = read_object(file)
        raw, unpacked = results.open_raw(dataset, str(file))
        stripped += [f"{file.name}: {what}" for what in raw.stripped]
        near = max(near, unpacked.near)
        for number, (image, method) in enumerate(zip(unpacked.images, unpacked.methods, strict=True), start=1):
            origin = results.Origin(
                text_of(dataset, "SOPInstanceUID"), unpacked.near, method, unpacked.ratio, settings.node.name, settings.node.equipment, settings.node.uid_root
            )
            made = results.rebuilt(results.filed_with(image, dataset, str(file)), origin)
            folder = out / str(made.SeriesInstanceUID)
            folder.mkdir(parents=True, exist_ok=True)
            results.save(ResultObject("decoded", made, 1), folder / f"IM{number:05d}.dcm")
            images += 1
        beat(done / len(files))
    return Decoded(out, images, near, tuple(stripped))
