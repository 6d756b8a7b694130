"""The annexes: objects that are created, attribute by attribute with the source of each value, their codes and private elements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.datadict import dictionary_description, dictionary_VR, tag_for_keyword
from pydicom.sr.coding import Code

from pacs_node.config import Settings
from pacs_node.dicom.uids import node_device_uid
from pacs_node.results import codes, raw
from pacs_node.results.modules import CLINICAL_TRIAL, ENCODING, PATIENT, PATIENT_STUDY, REQUEST, STUDY, TYPE_2
from pacs_node.workbench.conformance.facts import result_classes
from pacs_node.workbench.conformance.markdown import Page

_COPIED = (
    ("Patient (PS3.3 C.7.1.1)", PATIENT),
    ("General Study (C.7.2.1)", STUDY),
    ("Patient Study (C.7.2.2)", PATIENT_STUDY),
    ("Clinical Trial Subject and Study (C.7.1.3, C.7.2.3)", CLINICAL_TRIAL),
    ("Request (kept for matching orders)", REQUEST),
    ("SOP Common (C.12.1)", ENCODING),
)

FIXED, COPY, CONFIG, AUTO = "fixed", "copied from the received objects", "configuration", "made by the node"

OF_ALL: Mapping[str, str] = {
    "InstanceCreationDate": "the job's time, in the offset of the received objects",
    "InstanceCreationTime": "as the date",
    "SOPClassUID": "of the kind",
    "SOPInstanceUID": "made of node name, study, series, bundle, configuration, calibration, run and kind: the same facts give the same UID",
    "SeriesDate": "as Instance Creation Date",
    "SeriesTime": "as Instance Creation Time",
    "ContentDate": "as Instance Creation Date",
    "ContentTime": "as Instance Creation Time",
    "Modality": "of the kind: A.A.1",
    "Manufacturer": "`node.equipment.manufacturer`",
    "InstitutionName": "`node.equipment.institution`, absent where there is none",
    "ManufacturerModelName": "pacs-node",
    "DeviceSerialNumber": "`node.equipment.serial`",
    "SoftwareVersions": "version of pacs-node",
    "SeriesDescription": "algorithm, version and kind; number and time of a re-run",
    "ContributingEquipmentSequence": "one item for the algorithm (Device UID changes with the model's bytes), one for the node (its Device UID never changes)",
    "SeriesInstanceUID": "made as SOP Instance UID: a series of its own for each kind, pipeline and run",
    "SeriesNumber": "9000 + 20 x run + number of the kind",
    "InstanceNumber": "1, 2, …",
    "SyntheticData": "YES where a received object says so, else absent",
}
"""Keyword → where the value comes from, in every object."""

_PIXELS: Mapping[str, str] = {
    "SamplesPerPixel": FIXED, "PhotometricInterpretation": FIXED, "Rows": AUTO, "Columns": AUTO, "BitsAllocated": FIXED, "BitsStored": FIXED, "HighBit": FIXED,
    "PixelRepresentation": FIXED, "PixelData": AUTO, "LossyImageCompression": "01 where a received image says so, else 00",
}  # fmt: skip
_OF_INTEGERS = frozenset({"BitsStored", "HighBit", "PixelRepresentation", "PixelData"})
_FLOATS: Mapping[str, str] = {keyword: source for keyword, source in _PIXELS.items() if keyword not in _OF_INTEGERS}
_MULTI_FRAME: Mapping[str, str] = {
    "NumberOfFrames": AUTO, "DimensionOrganizationSequence": AUTO, "DimensionIndexSequence": AUTO, "SharedFunctionalGroupsSequence": AUTO,
    "PerFrameFunctionalGroupsSequence": AUTO + "; the plane of each source slice",
}  # fmt: skip
_REFERENCES: Mapping[str, str] = {
    "ReferencedSeriesSequence": "the analysed instances",
    "SourceImageSequence": "the images of the slices shown",
    "RequestAttributesSequence": COPY,
}
_LABELLED: Mapping[str, str] = {
    "ImageType": FIXED + ", DERIVED", "ContentLabel": FIXED, "ContentDescription": AUTO, "ContentCreatorName": FIXED, "PresentationLUTShape": FIXED,
    "CodingSchemeIdentificationSequence": "declares the private coding scheme", "FrameOfReferenceUID": COPY, "PositionReferenceIndicator": COPY,
}  # fmt: skip
_CAPTURE: Mapping[str, str] = {
    "ImageType": FIXED + ", DERIVED", "ConversionType": "WSD", "DerivationDescription": "what is shown, and by which algorithm", "BodyPartExamined": COPY,
    "Laterality": COPY, "PatientOrientation": "empty: every page has its own letters", "BurnedInAnnotation": "YES",
}  # fmt: skip
_PAGES: Mapping[str, str] = {"NumberOfFrames": AUTO, "PageNumberVector": AUTO, "FrameIncrementPointer": "(0018,2001) Page Number Vector"}
_DOCUMENT: Mapping[str, str] = {
    "ReferencedPerformedProcedureStepSequence": "empty", "ValueType": "CONTAINER", "ConceptNameCodeSequence": FIXED, "ContinuityOfContent": "SEPARATE",
    "ReferencedRequestSequence": "from Request Attributes of the received objects", "CurrentRequestedProcedureEvidenceSequence": "every instance that is "
        "referred to",
    "ContentTemplateSequence": FIXED, "ContentSequence": "the finding: A.B",
}  # fmt: skip
_REPORT: Mapping[str, str] = {
    **_DOCUMENT, "CodingSchemeIdentificationSequence": "declares the private coding scheme", "PerformedProcedureCodeSequence": "empty, or " + COPY,
    "PertinentOtherEvidenceSequence": "instances of the study that were not analysed", "CompletionFlag": "PARTIAL where the deadline came first, else COMPLETE",
    "VerificationFlag": "UNVERIFIED", "PreliminaryFlag": "FINAL", "PredecessorDocumentsSequence": "the report of the run before, on a re-run",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Created:
    """One IOD as it is created."""

    iod: str
    modality: str
    attributes: Mapping[str, str]


CREATED: Mapping[str, Created] = {
    "pm": Created(
        "Parametric Map (PS3.3 A.75)",
        "that of the source",
        {
            **_FLOATS,
            **_MULTI_FRAME,
            **_LABELLED,
            **_REFERENCES,
            "PixelPresentation": FIXED,
            "ContentQualification": "RESEARCH",
            "BurnedInAnnotation": "NO",
            "RecognizableVisualFeatures": FIXED,
            "AcquisitionContextSequence": "empty",
            "FloatPixelData": "-log10 of the calibrated pixel tail, or the relative map",
        },
    ),
    "seg": Created(
        "Segmentation (A.51), BINARY",
        "SEG",
        {
            **_PIXELS,
            **_MULTI_FRAME,
            **_LABELLED,
            "ReferencedSeriesSequence": "the analysed instances",
            "RequestAttributesSequence": COPY,
            "SegmentationType": "BINARY",
            "SegmentSequence": "one item a region, with tracking UIDs",
            "SegmentsOverlap": FIXED,
        },
    ),
    "sc": Created(
        "Multi-frame True Color Secondary Capture (A.8.5)",
        "OT",
        {**_PIXELS, **_CAPTURE, **_PAGES, **_REFERENCES, "PlanarConfiguration": "0", "FrameLabelVector": "name of each page"},
    ),
    "denoised": Created(
        "Multi-frame Grayscale Byte Secondary Capture (A.8.3)",
        "OT",
        {
            **_PIXELS,
            **_CAPTURE,
            **_PAGES,
            **_REFERENCES,
            "RescaleIntercept": "0",
            "RescaleSlope": "1",
            "RescaleType": "US",
            "PresentationLUTShape": "IDENTITY",
        },
    ),
    "raw": Created(
        "Raw Data (A.37)",
        "OT",
        {
            "ReferencedInstanceSequence": "the encoded instances",
            "CreatorVersionUID": f"{raw.FORMAT_UID}: the format's version",
            "Laterality": "empty",
            "AcquisitionContextSequence": "empty",
            "RequestAttributesSequence": COPY,
        },
    ),
    "sr": Created("Comprehensive 3D SR (A.35.13)", "SR", _REPORT),
    "ko": Created("Key Object Selection Document (A.35.4)", "KO", _DOCUMENT),
    "notice": Created("Enhanced SR (A.35.2)", "SR", _REPORT),
    "enhanced-sr": Created("Enhanced SR (A.35.2), in the place of `sr`", "SR", _REPORT),
    "single-frame": Created(
        "Secondary Capture (A.8.1), one for each page of `sc`",
        "OT",
        {**_PIXELS, **_CAPTURE, **_REFERENCES, "PlanarConfiguration": "0", "ImageComments": "name of the page"},
    ),
}
"""Kind → the IOD, and the attributes that it has beside those of the Patient and Study modules and of `OF_ALL`."""

_ELEMENTS = (
    ("xx01", "LO", "version of the format"),
    ("xx02", "UI", "Device UID of the model, absent without one"),
    ("xx03", "IS", "by how many stored values a pixel may be off; 0: none"),
    ("xx04", "LO", "which of the following there are"),
    ("xx10", "OB", "the representation: headers and pixels, `pacs_node/autoencoder/FORMAT.md`"),
    ("xx11", "OB", "embedding of each slice, 128 float16 each, little endian"),
    ("xx12", "OB", "their mean and their spread, 128 float16 each"),
)


def write(page: Page, settings: Settings) -> None:
    """Write the annexes."""
    page.heading(2, "Annex A.A Information Object Definitions")
    page.heading(3, "A.A.1 Objects created")
    page.table(("Kind", "IOD", "SOP Class UID", "Modality"), [(kind, CREATED[kind].iod, uid, CREATED[kind].modality) for kind, uid in result_classes()])
    page.text(
        "Results are written in Explicit VR Little Endian, uncompressed. `pacs-node decode` makes images of the SOP class and modules of those that "
        "were encoded, with new UIDs and DERIVED."
    )
    page.heading(3, "A.A.2 Attributes of every object")
    page.table(("Attribute", "Tag", "VR", "Source of the value"), _rows(OF_ALL))
    page.heading(3, "A.A.3 Attributes copied from the received objects")
    page.text(
        "As they were received, with all items of sequences. Those marked *always* are present and empty where the received objects lack them; all "
        "others are absent then. No value is made up."
    )
    for module, keywords in _COPIED:
        page.heading(4, f"A.A.3 {module}")
        page.table(("Attribute", "Tag", "VR", "Presence"), [(*_named(keyword), "always" if keyword in TYPE_2 else "as received") for keyword in keywords])
    for number, (kind, row) in enumerate(CREATED.items(), start=4):
        page.heading(3, f"A.A.{number} {kind}: {row.iod}")
        page.table(("Attribute", "Tag", "VR", "Source of the value"), _rows(row.attributes))
    page.text(
        "A rejection note for superseded results has the attributes of `ko`, its title is (113001, DCM, Rejected for Quality Reasons), and its UIDs are made "
        "of the "
        "report that supersedes and of the instances that are rejected."
    )
    _reports(page)
    page.heading(2, "Annex A.C Private attributes and private transfer syntaxes")
    page.text(
        f"Only in objects of kind `raw`. Group {raw.GROUP:04X}, private creator `{raw.CREATOR}`. There are no private SOP classes and no private "
        "transfer syntaxes."
    )
    page.table(("Element", "VR", "Holds"), [(f"({raw.GROUP:04X},{element})", vr, text) for element, vr, text in _ELEMENTS])
    _mapping(page)
    _codes(page, settings)


def _rows(attributes: Mapping[str, str]) -> Iterable[tuple[str, ...]]:
    for keyword in sorted(attributes, key=lambda one: tag_for_keyword(one) or 0):
        yield (*_named(keyword), attributes[keyword])


def _named(keyword: str) -> tuple[str, str, str]:
    tag = tag_for_keyword(keyword) or 0
    return dictionary_description(tag), f"({tag >> 16:04X},{tag & 0xFFFF:04X})", dictionary_VR(tag)


def _reports(page: Page) -> None:
    page.heading(2, "Annex A.B Structured Report content encoding")
    page.bullets((
        "Root: (126000, DCM, Imaging Measurement Report), TID 1500; language TID 1204; device observer TID 1004; procedure reported (121058, DCM) is the "
        "imaging procedure; image library TID 1600 of the analysed series.",
        "One TID 1501 group for each analysed series: tracking identifier and UID, finding site, score (private code, UCUM 1), and where a calibration of the "
        "site's own allows it percentile and p-value; threshold, number, "
        "population and date of the calibration; verdict (private code); algorithm identification TID 4019.",
        "One TID 1410 or 1411 group for each region: area or volume, mean and maximum, the referenced segment or a contour, the source images.",
        "Notices: TID 1500 with Qualitative Evaluations, a status of CID 6042 and the reason in words.",
        "Key objects: TID 2010, (113000, DCM, Of Interest).",
        "Verdicts are *above the threshold*, *not above the threshold*, *uncalibrated* and *not analysed*. No diagnosis, no certainty, no normal or abnormal "
        "is coded.",
    ))  # fmt: skip


def _mapping(page: Page) -> None:
    page.heading(2, "Annex A.D Mapping of attributes")
    page.text(
        "From received objects to results: A.A.3, and Request Attributes Sequence into Referenced Request Sequence of reports. Nothing comes from "
        "worklists, MPPS or HL7."
    )


def _codes(page: Page, settings: Settings) -> None:
    page.heading(2, "Annex A.E Code set usage")
    page.text(
        f"Private coding scheme `{codes.SCHEME}`, {codes.SCHEME_NAME}, responsible: {codes.SCHEME_OWNER}; declared in Coding Scheme Identification "
        "Sequence (0008,0110)."
    )
    found = sorted(set(_all_codes()), key=lambda code: (code.scheme_designator, code.value))
    private = [code for code in found if code.scheme_designator == codes.SCHEME]
    page.table(("Private code", "Meaning"), [(code.value, code.meaning) for code in private])
    page.text("Standard codes beside those of the templates (body parts, procedures and modalities as the received objects name them):")
    page.table(("Scheme", "Code", "Meaning"), [(code.scheme_designator, code.value, code.meaning) for code in found if code.scheme_designator != codes.SCHEME])
    page.text(f"Device UID of this node (the loop guard): `{node_device_uid(settings.node.name)}`.")


def _all_codes() -> Iterable[Code]:
    """Give every code that the table of codes names, itself or in a mapping."""
    for value in vars(codes).values():
        if isinstance(value, Code):
            yield value
        elif isinstance(value, dict):
            yield from (one for one in value.values() if isinstance(one, Code))
