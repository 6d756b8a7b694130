"""From a phantom to DICOM: complete Part 10 datasets of a patient who does not exist. Nothing here looks at a clock."""

from __future__ import annotations

import copy
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError
from pacs_node.phantoms.groups import decimals
from pacs_node.phantoms.multi_frame import MULTI_FRAME
from pacs_node.phantoms.planes import slice_location
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.phantoms.volume import make_volume, modality_of, uid
from pacs_node.records import Plane, Volume

_LESION_WORDS = {
    None: "no lesion",
    "ellipsoid": "ellipsoid lesion",
    "mass_effect": "mass effect",
    "texture": "texture lesion",
    "missing_structure": "missing structure",
}
_ARTEFACT_WORDS = {
    None: "",
    "motion": ", motion artefact",
    "metal": ", metal artefact",
    "noise": ", noise artefact",
    "truncation": ", truncated",
    "bias_field": ", bias field",
}
_FIRST_DAY = date(2024, 1, 1)


def describe(spec: PhantomSpec) -> str:
    """Return what the study is, in at most 64 characters, such as ``Synthetic head CT phantom, ellipsoid lesion``."""
    return f"Synthetic {spec.region} {spec.modality} phantom, {_LESION_WORDS[spec.lesion]}{_ARTEFACT_WORDS[spec.artefact]}"


def make_study(spec: PhantomSpec) -> list[Dataset]:
    """Make the datasets of a phantom study, in the order of the volume's frames, with ``file_meta`` for Explicit VR Little Endian.

    Raises `InputError` as `make_volume` does.
    """
    volume = make_volume(spec).volume
    common = _common(spec, volume)
    if spec.enhanced:
        return [_multi_frame(spec, common, volume)]
    modality_of(spec).describe(spec, common)
    return [_instance(spec, common, volume, index) for index in range(len(volume.frames))]


def write_study(spec: PhantomSpec, folder: Path) -> list[Path]:
    """Write the study into ``folder`` as ``IM0001.dcm`` and so on; the folder is made where it is missing.

    Raises `InputError` where it cannot be written, or as `make_volume` does.
    """
    datasets = make_study(spec)
    paths = [folder / f"IM{number:04d}.dcm" for number in range(1, len(datasets) + 1)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, dataset in zip(paths, datasets, strict=True):
            dataset.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise InputError(f"cannot write the phantom into {folder} ({error.strerror or error}): name a folder that can be written") from error
    return paths


def _common(spec: PhantomSpec, volume: Volume) -> Dataset:
    """Return what all instances of the study share."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = modality_of(spec).CHARACTER_SET
    dataset.SOPClassUID = volume.frames[0].sop_class_uid
    dataset.SyntheticData = "YES"
    _patient_and_study(spec, dataset)
    dataset.Modality = spec.modality
    dataset.SeriesInstanceUID = volume.series_uid
    dataset.SeriesNumber = 1
    dataset.SeriesDescription = dataset.StudyDescription
    dataset.Manufacturer = "pacs-node"
    dataset.InstitutionName = "Synthetic data"
    dataset.DeviceSerialNumber = "0"
    dataset.SoftwareVersions = "1"
    if volume.frame_of_reference_uid is not None:
        dataset.FrameOfReferenceUID = volume.frame_of_reference_uid
        dataset.PositionReferenceIndicator = ""
    dataset.AcquisitionNumber = 1
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = volume.pixels.shape[1:]
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    return dataset


def _patient_and_study(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set a fictional patient; everything follows from the seed, so that studies of one seed are studies of one patient."""
    day, minute = _FIRST_DAY + timedelta(days=spec.seed % 366), spec.seed * 7 % 600
    age = 20 + spec.seed * 13 % 65
    when = f"{8 + minute // 60:02d}{minute % 60:02d}00"
    dataset.PatientName = f"Phantom^{spec.modality}-{spec.region.capitalize()}-{spec.seed}"
    dataset.PatientID = f"PHANTOM-{spec.modality}-{spec.region.upper()}-{spec.seed}"
    dataset.PatientBirthDate = f"{_FIRST_DAY.year - age}0101"
    dataset.PatientSex = "O"
    dataset.PatientAge = f"{age:03d}Y"
    dataset.PatientComments = "Synthetic phantom: shows no patient"
    dataset.StudyInstanceUID = uid(spec, "study")
    dataset.StudyID = str(spec.seed)
    dataset.AccessionNumber = f"PH{int(dataset.StudyInstanceUID.rsplit('.', 1)[1]) % 10**12:012d}"
    dataset.StudyDescription = describe(spec)
    dataset.ReferringPhysicianName = ""
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", f"{day:%Y%m%d}")
        setattr(dataset, f"{name}Time", when)


def _instance(spec: PhantomSpec, common: Dataset, volume: Volume, index: int) -> Dataset:
    dataset, frame, made = copy.deepcopy(common), volume.frames[index], modality_of(spec)
    dataset.SOPInstanceUID = frame.sop_uid
    dataset.InstanceNumber = index + 1
    if frame.plane is not None:
        _place(spec, dataset, frame.plane)
    made.describe_slice(spec, dataset, index, volume.pixels[index])
    dataset.PixelData = _little_endian(made.stored(spec, volume.pixels[index]))
    dataset.file_meta = _file_meta(dataset)
    return dataset


def _multi_frame(spec: PhantomSpec, common: Dataset, volume: Volume) -> Dataset:
    made = modality_of(spec)
    common.SOPInstanceUID = volume.frames[0].sop_uid
    common.InstanceNumber = 1
    common.NumberOfFrames = len(volume.frames)
    MULTI_FRAME[spec.modality](spec, common, volume)
    common.PixelData = b"".join(_little_endian(made.stored(spec, image)) for image in volume.pixels)
    common.file_meta = _file_meta(common)
    return common


def _little_endian(values: NDArray[np.integer[Any]]) -> bytes:
    return values.astype(values.dtype.newbyteorder("<")).tobytes()


def _place(spec: PhantomSpec, dataset: Dataset, plane: Plane) -> None:
    """Set the Image Plane module (PS3.3 C.7.6.2)."""
    dataset.ImagePositionPatient = decimals(plane.position)
    dataset.ImageOrientationPatient = decimals(plane.orientation)
    dataset.PixelSpacing = decimals(plane.spacing)
    dataset.SliceThickness = DSfloat(plane.thickness or 0.0, auto_format=True)
    dataset.SliceLocation = DSfloat(slice_location(spec, plane), auto_format=True)


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(derive_uid("pacs-node phantoms"))
    meta.ImplementationVersionName = "PACS_NODE_PH"
    return meta
