"""Pictures of a stored secondary capture, for a browser: the key frame is the first slice that stands out, after the page of text."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import pixel_array

from pacs_node.database.tables import ObjectRow
from pacs_node.errors import UnreadableObject

PICTURES = ("sc", "single-frame")
"""Kinds of results that are colour pictures."""

_DAMAGED = (OSError, InvalidDicomError, AttributeError, ValueError, RuntimeError, IndexError, EOFError)
_FACTS = ["NumberOfFrames", "FrameLabelVector", "SamplesPerPixel"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """The frames of one secondary capture by what they show; ``key``: the one to look at first."""

    object_id: int
    labels: tuple[str, ...]

    @property
    def key(self) -> int:
        """The number of the key frame, from 0."""
        return 1 if len(self.labels) > 1 else 0


def file_of(data: Path, obj: ObjectRow) -> Path:
    """Return the stored file of a result; raises `UnreadableObject` where it lies outside of the results of its job, or is gone."""
    folder = (data / "results" / f"{obj.job_id // 1000:04d}" / f"{obj.job_id}").resolve()
    path = (data / obj.path).resolve()
    if not path.is_relative_to(folder):
        raise UnreadableObject(obj.path, f"it is no file of job {obj.job_id}")
    if obj.removed_at is not None or not path.is_file():
        raise UnreadableObject(obj.path, "it is not here any more")
    return path


def pictures_of(data: Path, obj: ObjectRow) -> Pictures | None:
    """Return what the frames of a result show; None where it is no colour picture, or cannot be read."""
    if obj.kind not in PICTURES:
        return None
    try:
        header = dcmread(file_of(data, obj), stop_before_pixels=True, specific_tags=_FACTS)
        if header.get("SamplesPerPixel") != 3:
            return None
        count, said = int(header.get("NumberOfFrames") or 1), header.get("FrameLabelVector") or []
    except (UnreadableObject, *_DAMAGED):
        return None
    labels = [said] if isinstance(said, str) else list(said)
    return Pictures(obj.id, tuple(str(labels[index]) if index < len(labels) else f"page {index + 1}" for index in range(min(count, 100))))


def frame_png(path: Path, index: int) -> bytes:
    """Return one frame (from 0) as PNG, decoded alone; raises `UnreadableObject`."""
    try:
        pixels = pixel_array(path, index=index)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
    except _DAMAGED as error:
        raise UnreadableObject(path.name, f"frame {index} cannot be shown ({error})") from error
    return buffer.getvalue()
