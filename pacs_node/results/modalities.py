"""How the images of each modality are named and shown to people: one row each."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.sr.coding import Code

from pacs_node.records import Volume
from pacs_node.results import codes as ours


@dataclass(frozen=True, slots=True)
class Manner:
    """The habits of one modality."""

    item: str = "slice"  # what people call one picture of the series; "many" has an s behind it
    slice_score: Code = ours.SLICE_SCORE
    in_patient: bool = True  # positions are those of the patient: letters, millimetres and a map make sense
    dark_is_high: bool = False  # shown in inverted grey
    cropped: bool = False  # pictures are cut to what was judged: around it stand the words and scales of the scanner
    unit: str = ""  # of the values, in words; HU of CT goes without saying


MANNERS: dict[str, Manner] = {
    "CT": Manner(),
    "MR": Manner(unit="relative units"),
    "PT": Manner(unit="SUV by body weight", dark_is_high=True),
    # the volume of three-dimensional ultrasound has axes of its own, not the patient's (PS3.3 C.8.24.2)
    "US": Manner(item="image", slice_score=ours.IMAGE_SCORE, in_patient=False, cropped=True, unit="grey levels"),
}
"""Modality (0008,0060) to its habits; of any other modality the habits of CT are taken."""


def manner_of(volume: Volume) -> Manner:
    """Return the row of a volume's modality."""
    return MANNERS.get(volume.modality, MANNERS["CT"])
