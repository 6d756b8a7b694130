"""Synthetic studies as real DICOM: procedural anatomy with planted lesions and artefacts, for the demo, the tests and development.

Never clinical evidence: every object carries Synthetic Data (0008,001C) = YES and a fictional patient. A modality is a row of
`MODALITIES` and a module with the names of `pacs_node.phantoms.modalities.Modality`.

>>> phantom = make_volume(PhantomSpec(region="head", lesion="ellipsoid", seed=7))
>>> phantom.volume.pixels.shape
(24, 256, 256)
"""

from pacs_node.phantoms.modalities import MODALITIES
from pacs_node.phantoms.spec import ARTEFACTS, LESIONS, PLANES, SEQUENCES, USUAL, USUALS, Phantom, PhantomSpec
from pacs_node.phantoms.study import make_study, write_study
from pacs_node.phantoms.volume import make_volume

__all__ = [
    "ARTEFACTS",
    "LESIONS",
    "MODALITIES",
    "PLANES",
    "SEQUENCES",
    "USUAL",
    "USUALS",
    "Phantom",
    "PhantomSpec",
    "make_study",
    "make_volume",
    "write_study",
]
