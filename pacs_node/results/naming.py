"""How people find a slice again in the archive: slice, image and frame numbers, by modality.

===================  ==========================================  ======================
source               in sentences                                label of a page
===================  ==========================================  ======================
single-frame CT      slice 4 of 28                               slice 4
enhanced MR          slice 4 of 96, frame 17                     slice 4
two enhanced MR      slice 4 of 96, image 2 frame 17             slice 4
ultrasound still     image 3                                     image 3
ultrasound loop      image 3, frame 12 of 30                     3 frame 12
===================  ==========================================  ======================

An image number is the Instance Number (0020,0013), and is said only where it tells the analysed objects apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs_node.dicom.header import number_of, text_of
from pacs_node.records import Volume
from pacs_node.results.modalities import manner_of

_LABEL = 16  # characters of an SH value (PS3.5 6.2)


@dataclass(frozen=True, slots=True)
class Name:
    """What a slice is called."""

    sentence: str
    label: str  # at most 16 characters


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the archive shows a slice: None where that is not known, or says nothing."""

    image: int | None  # Instance Number
    frame: int | None  # in a multi-frame object
    frames: int  # of that object
    objects: int  # analysed


def name_of(volume: Volume, index: int, headers: Sequence[Dataset]) -> Name:
    """Name slice ``index`` (from 0) of a volume; ``headers`` are those of the analysed objects, or none where they are not at hand."""
    place, ordinal = _place(volume, index, headers), f"{index + 1} of {len(volume.frames)}"
    if manner_of(volume).item == "image":
        return _picture(place, ordinal, index)
    spoken = f"slice {ordinal}"
    if place.frame is not None:
        image = f"image {place.image} " if place.image is not None and place.objects > 1 else ""
        spoken += f", {image}frame {place.frame}"
    return Name(spoken, f"slice {index + 1}")


def _picture(place: _Place, ordinal: str, index: int) -> Name:
    """Name a picture that has no neighbours in space: by image and frame, as a viewer shows them."""
    image = f"image {place.image}" if place.image is not None else f"image {ordinal}"
    if place.frame is None:
        return Name(image, f"image {place.image or index + 1}"[:_LABEL])
    frame = f"frame {place.frame} of {place.frames}"
    if place.image is None and place.objects == 1:
        return Name(frame, f"frame {place.frame}"[:_LABEL])
    return Name(f"{image}, {frame}", f"{place.image or index + 1} frame {place.frame}"[:_LABEL])


def _place(volume: Volume, index: int, headers: Sequence[Dataset]) -> _Place:
    frame = volume.frames[index]
    analysed = {text_of(header, "SOPInstanceUID"): header for header in headers}
    numbers = [number_of(header, "InstanceNumber") for header in headers]
    header = analysed.get(frame.sop_uid)
    told_apart = header is not None and None not in numbers and len(set(numbers)) == len(numbers)
    count = frames_of(header) if header is not None else max((one.number or 0 for one in volume.frames if one.sop_uid == frame.sop_uid), default=0)
    return _Place(
        image=number_of(header, "InstanceNumber") if header is not None and told_apart else None,
        frame=frame.number if count > 1 else None,
        frames=count,
        objects=len({one.sop_uid for one in volume.frames}),
    )


def frames_of(header: Dataset) -> int:
    """Return Number of Frames (0028,0008), 1 for a single-frame object."""
    return max(1, number_of(header, "NumberOfFrames") or 1)
