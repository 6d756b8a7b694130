"""The pixels of many images: in threads, a few at a time, and with a limit to what may be damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

from pydicom.dataset import Dataset

from pacs_node.autoencoder import threads
from pacs_node.dicom.header import read_object, text_of, with_pixels
from pacs_node.errors import UndecodablePixels, UnreadableObject

_DAMAGED_SHARE = 0.1  # of the images may be undecodable and left out
_KEPT = 8  # multi-frame objects in memory: the slices of one stack may be spread over a few

Beat = Callable[[float], None]
Image = TypeVar("Image")
Decoded = TypeVar("Decoded")


class Objects:
    """Reads objects with their pixels. Multi-frame ones stay in memory while their frames are asked for, by several threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[Path, Dataset | UnreadableObject] = {}  # in the order of reading

    def get(self, path: Path, header: Dataset, *, keep: bool) -> Dataset:
        """Return the object in ``path``, whose header is known, or at least what `with_pixels` gives of it.

        Raises `UndecodablePixels` where it cannot be read any more.
        """
        if keep:
            with self._lock:
                if path not in self._kept:
                    while len(self._kept) >= _KEPT:
                        del self._kept[next(iter(self._kept))]
                    self._kept[path] = _unless_damaged(lambda: read_object(path))
                found = self._kept[path]
        else:
            found = _unless_damaged(lambda: with_pixels(header, path))
        if isinstance(found, UnreadableObject):
            raise UndecodablePixels(text_of(header, "SOPInstanceUID"), "unread", found.reason)
        return found


def _unless_damaged(read: Callable[[], Dataset]) -> Dataset | UnreadableObject:
    try:
        return read()
    except UnreadableObject as fault:
        return fault


@dataclass(frozen=True, slots=True)
class _Work(Generic[Image, Decoded]):
    decode: Callable[[Image], Decoded]

    def __call__(self, image: Image) -> Decoded | UndecodablePixels:
        try:
            return self.decode(image)
        except UndecodablePixels as fault:
            return fault


def decode_all(images: Sequence[Image], decode: Callable[[Image], Decoded], remarks: list[str], beat: Beat) -> tuple[list[Decoded], list[Image]]:
    """Decode images side by side; damaged ones are left out as long as they are few.

    Returns what ``decode`` made and the images that it is of; raises `UndecodablePixels`. ``beat`` hears the fraction done and may raise to stop.
    """
    made: list[Decoded] = []
    faults: list[UndecodablePixels] = []
    kept: list[Image] = []
    with closing(threads.in_order(_Work(decode), images)) as results:
        for done, (image, result) in enumerate(zip(images, results, strict=True), start=1):
            if isinstance(result, UndecodablePixels):
                faults.append(result)
            else:
                made.append(result)
                kept.append(image)
            beat(done / len(images))
    if faults and (len(faults) > _DAMAGED_SHARE * len(images) or not kept):
        raise faults[0]
    if faults:
        remarks.append(f"{len(faults)} of {len(images)} images were left out because their pixels cannot be decoded")
    return made, kept
