"""Many images to one array: in threads, a few at a time, and with a limit to what may be damaged."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_node.dicom.header import read_object, text_of
from pacs_node.errors import UndecodablePixels, UnreadableObject

_DAMAGED_SHARE = 0.1  # of the images may be undecodable and left out
_KEPT = 8  # multi-frame objects in memory: the slices of one stack may be spread over a few
_THREADS = max(1, min(4, os.cpu_count() or 1))

Beat = Callable[[float], None]
Image = TypeVar("Image")


class Objects:
    """Reads objects with their pixels. Multi-frame ones stay in memory while their frames are asked for, by several threads at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: dict[Path, Dataset | UnreadableObject] = {}  # in the order of reading

    def get(self, path: Path, header: Dataset, *, keep: bool) -> Dataset:
        """Return the object in ``path``, whose header is known; raises `UndecodablePixels` where it cannot be read any more."""
        if keep:
            with self._lock:
                if path not in self._kept:
                    while len(self._kept) >= _KEPT:
                        del self._kept[next(iter(self._kept))]
                    self._kept[path] = _read(path)
                found = self._kept[path]
        else:
            found = _read(path)
        if isinstance(found, UnreadableObject):
            raise UndecodablePixels(text_of(header, "SOPInstanceUID"), "unread", found.reason)
        return found


def _read(path: Path) -> Dataset | UnreadableObject:
    try:
        return read_object(path)
    except UnreadableObject as fault:
        return fault


@dataclass(frozen=True, slots=True)
class _Work(Generic[Image]):
    decode: Callable[[Image], NDArray[np.float32]]

    def __call__(self, image: Image) -> NDArray[np.float32] | UndecodablePixels:
        try:
            return self.decode(image)
        except UndecodablePixels as fault:
            return fault


def decode_all(
    images: Sequence[Image], decode: Callable[[Image], NDArray[np.float32]], shape: tuple[int, int], remarks: list[str], beat: Beat
) -> tuple[NDArray[np.float32], list[Image]]:
    """Decode images of one ``shape`` (rows, columns), a few at a time; damaged ones are left out as long as they are few.

    Returns the values (images, rows, columns) and the images that they are of; raises `UndecodablePixels`.
    """
    values = np.empty((len(images), *shape), dtype=np.float32)
    faults: list[UndecodablePixels] = []
    kept: list[Image] = []
    with ThreadPoolExecutor(_THREADS) as pool:
        for done, result in enumerate(_bounded_map(pool, images, _Work(decode)), start=1):
            if isinstance(result, UndecodablePixels):
                faults.append(result)
            else:
                values[len(kept)] = result
                kept.append(images[done - 1])
            beat(done / len(images))
    if faults and (len(faults) > _DAMAGED_SHARE * len(images) or not kept):
        raise faults[0]
    if faults:
        remarks.append(f"{len(faults)} of {len(images)} images were left out because their pixels cannot be decoded")
    return values[: len(kept)], kept


def _bounded_map(pool: ThreadPoolExecutor, images: Sequence[Image], work: _Work[Image]) -> Iterable[NDArray[np.float32] | UndecodablePixels]:
    """Decode in order, with no more than a handful of images in memory ahead of the reader."""
    rest = iter(images)
    waiting = deque(pool.submit(work, one) for one in islice(rest, 2 * _THREADS))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(work, one) for one in islice(rest, 1))
