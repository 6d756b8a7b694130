"""An image made again from a representation: a new instance in a new series, derived, never posing as the original (PS3.3 C.7.6.1.1.2, C.7.6.1.1.5)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from pacs_node.config import Equipment
from pacs_node.dicom.header import identity, text_of
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError
from pacs_node.records import StoredImage
from pacs_node.results import codes as ours
from pacs_node.results.case import children
from pacs_node.results.files import even
from pacs_node.results.identity import IMPLEMENTATION_CLASS_UID, copy_identity, is_plain, node_equipment
from pacs_node.results.lossiness import is_lossy
from pacs_node.results.wording import LONG_STRING, encodings_of, fit, one_line

METHODS: Mapping[str, str] = {"JPEG-LS": "ISO_14495_1", "JPEG-LS by line": "ISO_14495_1", "prediction": "PACS_NODE_1"}
"""Method of a stream → Lossy Image Compression Method (0028,2114), a defined term or one of ours."""

_PREDECESSOR = Code("121320", "DCM", "Uncompressed predecessor")  # CID 7202
_LOSSY = Code("113040", "DCM", "Lossy Compression")  # CID 7203


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a decoded image comes from: the representation's object, how far pixels may be off, and who decodes it."""

    representation_uid: str
    near: int
    method: str
    ratio: float
    node_name: str
    equipment: Equipment
    uid_root: str | None


def filed_with(image: StoredImage, carrier: Dataset, name: str) -> StoredImage:
    """Return an image under the patient and study of the Raw Data object ``carrier`` that it came in; ``name`` is used in errors.

    What an archive corrected stands in the object that it keeps, and never reached the headers in its private block: the object's word is the later
    one. Raises `InputError` where it is of another patient or study and does not name the image among its sources: then the block is of another object.
    """
    header = image.header
    if _belonging(header) == _belonging(carrier):
        return image
    uid = text_of(header, "SOPInstanceUID")
    if uid not in {text_of(item, "ReferencedSOPInstanceUID") for item in children(carrier, "ReferencedInstanceSequence")}:
        raise InputError(f"{name} holds image {uid} of another patient or study, which is not among its sources: encode the images again")
    corrected = copy.deepcopy(header)
    corrected.decode()
    copy_identity(corrected, carrier)
    if not is_plain(corrected) and text_of(header, "SpecificCharacterSet") != text_of(carrier, "SpecificCharacterSet"):
        corrected.SpecificCharacterSet = "ISO_IR 192"  # holds the texts of both
    return replace(image, header=corrected)


def _belonging(dataset: Dataset) -> tuple[object, str]:
    return identity(dataset), text_of(dataset, "StudyInstanceUID")


def rebuilt(image: StoredImage, origin: Origin) -> Dataset:
    """Return a Part 10 dataset with the decoded pixels; doing it again gives the same one."""
    dataset = copy.deepcopy(image.header)
    source = (text_of(dataset, "SOPClassUID"), text_of(dataset, "SOPInstanceUID"))
    dataset.SOPInstanceUID = derive_uid("decoded", origin.representation_uid, source[1], root=origin.uid_root)
    dataset.SeriesInstanceUID = derive_uid("decoded series", origin.representation_uid, text_of(dataset, "SeriesInstanceUID"), root=origin.uid_root)
    _say_derived(dataset, source, origin)
    _say_lossy(dataset, image, origin)
    _add_pixels(dataset, image)
    dataset.ContributingEquipmentSequence = [*(dataset.get("ContributingEquipmentSequence") or ()), node_equipment(origin.equipment, origin.node_name)]
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(source[0]), UID(dataset.SOPInstanceUID)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, UID(IMPLEMENTATION_CLASS_UID)
    dataset.file_meta = meta
    return dataset


def _say_derived(dataset: Dataset, source: tuple[str, str], origin: Origin) -> None:
    for element in dataset.iterall():
        if element.keyword in ("ImageType", "FrameType"):
            values = [str(value) for value in element.value] if isinstance(element.value, list | tuple) or element.VM > 1 else [str(element.value or "")]
            element.value = ["DERIVED", *(values[1:] or ["SECONDARY"])]
    if "ImageType" not in dataset:
        dataset.ImageType = ["DERIVED", "SECONDARY"]
    suffix = ", decoded" if not origin.near else f", decoded, error <= {origin.near}"
    said = text_of(dataset, "SeriesDescription") or "Series"
    dataset.SeriesDescription = fit(one_line(said, LONG_STRING - len(suffix)), encodings_of(dataset.get("SpecificCharacterSet"))) + suffix
    how = "without loss" if not origin.near else f"each stored value at most {origin.near} off"
    dataset.DerivationDescription = f"Decoded from a compressed representation, {how}; research use"
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source
    item.PurposeOfReferenceCodeSequence = [ours.item_of(_PREDECESSOR)]
    dataset.SourceImageSequence = [*(dataset.get("SourceImageSequence") or ()), item]


def _say_lossy(dataset: Dataset, image: StoredImage, origin: Origin) -> None:
    if is_lossy(image.header):
        dataset.LossyImageCompression = "01"
    if not origin.near:
        return
    dataset.LossyImageCompression = "01"
    ratios, methods = (_several(dataset, keyword) for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
    if len(ratios) == len(methods):  # the values of both belong together, oldest first
        dataset.LossyImageCompressionRatio = [DSfloat(value) for value in (*ratios, f"{origin.ratio:.4g}")]
        dataset.LossyImageCompressionMethod = [*methods, METHODS[origin.method]]
    else:
        dataset.LossyImageCompressionRatio, dataset.LossyImageCompressionMethod = f"{origin.ratio:.4g}", METHODS[origin.method]
    dataset.DerivationCodeSequence = [*(dataset.get("DerivationCodeSequence") or ()), ours.item_of(_LOSSY)]


def _several(dataset: Dataset, keyword: str) -> list[str]:
    return [value for value in text_of(dataset, keyword).split("\\") if value]


def _add_pixels(dataset: Dataset, image: StoredImage) -> None:
    """Image Pixel (PS3.3 C.7.6.3), as far as decoding changes it."""
    values = image.values
    dataset.Rows, dataset.Columns = values.shape[1:3]
    dataset.BitsAllocated = 8 * values.dtype.itemsize
    if len(values) > 1 or "NumberOfFrames" in dataset:
        dataset.NumberOfFrames = len(values)
    dataset.PhotometricInterpretation = image.photometric
    if values.ndim == 4:
        dataset.PlanarConfiguration = 0
    content = np.ascontiguousarray(values).tobytes()
    dataset.PixelData = even(content)
    dataset["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
