"""What an object of each SOP class must hold: one row for each class that results have (PS3.3 annex A, IHE AIR)."""

from __future__ import annotations

from dataclasses import dataclass, field

from pydicom.uid import (
    Comprehensive3DSRStorage,
    EnhancedSRStorage,
    KeyObjectSelectionDocumentStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RawDataStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)


@dataclass(frozen=True, slots=True)
class Demand:
    """The attributes of one class."""

    type_1: tuple[str, ...]  # present with a value; Type 1C that always hold are among them
    type_2: tuple[str, ...] = ()  # present, perhaps empty; those of patient and study come from `modules.TYPE_2`
    fixed: dict[str, str] = field(default_factory=dict)  # with the only value that there is
    algorithm: bool = True  # an algorithm must be named


_ALWAYS = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "InstanceNumber",
    "SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "ContentDate", "ContentTime",
    "ContributingEquipmentSequence",
)  # fmt: skip
_DOCUMENT = ("ValueType", "ContinuityOfContent", "ConceptNameCodeSequence", "ContentSequence", "ContentTemplateSequence")
_REPORT = (*_ALWAYS, *_DOCUMENT, "CompletionFlag", "VerificationFlag")
_REPORT_2 = ("ReferencedPerformedProcedureStepSequence", "PerformedProcedureCodeSequence")
_UNVERIFIED = {"VerificationFlag": "UNVERIFIED", "Modality": "SR", "ValueType": "CONTAINER"}
_PIXELS = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "ImageType", "LossyImageCompression")
_FRAMES = (
    *_ALWAYS, *_PIXELS, "NumberOfFrames", "ContentLabel", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence", "DimensionIndexSequence", "ReferencedSeriesSequence",
)  # fmt: skip
_CAPTURE = (*_ALWAYS, *_PIXELS, "ConversionType", "PixelData", "SourceImageSequence")
_CONTENT_2 = ("ContentDescription", "ContentCreatorName")
_BURNED_IN = {"BurnedInAnnotation": "YES"}

DEMANDS: dict[str, Demand] = {
    Comprehensive3DSRStorage: Demand((*_REPORT, "CodingSchemeIdentificationSequence", "CurrentRequestedProcedureEvidenceSequence"), _REPORT_2, _UNVERIFIED),
    EnhancedSRStorage: Demand(_REPORT, _REPORT_2, _UNVERIFIED, algorithm=False),
    KeyObjectSelectionDocumentStorage: Demand(
        (*_ALWAYS, *_DOCUMENT, "CurrentRequestedProcedureEvidenceSequence"),
        ("ReferencedPerformedProcedureStepSequence",),
        {"Modality": "KO", "ValueType": "CONTAINER"},
    ),
    ParametricMapStorage: Demand(
        (*_FRAMES, "FrameOfReferenceUID", "FloatPixelData", "CodingSchemeIdentificationSequence"),
        (*_CONTENT_2, "PositionReferenceIndicator"),
        {"ContentQualification": "RESEARCH"},
    ),
    SegmentationStorage: Demand((*_FRAMES, "SegmentSequence", "PixelData"), _CONTENT_2, {"Modality": "SEG", "SegmentationType": "BINARY"}),
    MultiFrameTrueColorSecondaryCaptureImageStorage: Demand((*_CAPTURE, "NumberOfFrames", "PlanarConfiguration"), fixed=_BURNED_IN),
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage: Demand(
        (*_CAPTURE, "NumberOfFrames"), fixed={**_BURNED_IN, "PresentationLUTShape": "IDENTITY", "PhotometricInterpretation": "MONOCHROME2"}
    ),
    RawDataStorage: Demand((*_ALWAYS, "CreatorVersionUID", "ReferencedInstanceSequence"), ("AcquisitionContextSequence",), algorithm=False),
    SecondaryCaptureImageStorage: Demand((*_CAPTURE, "PlanarConfiguration"), fixed=_BURNED_IN),
}
REPORTS = (Comprehensive3DSRStorage, EnhancedSRStorage, KeyObjectSelectionDocumentStorage)
