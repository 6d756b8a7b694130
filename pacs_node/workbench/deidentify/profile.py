"""What becomes of each attribute: Table E.1-1 of PS3.15, as dicom-anonymizer has it, and the columns of the options that are offered here.

The library's own engine treats the top level of a dataset only and makes new random UIDs in every process; so the table and its dummy
values are taken from it, and `cleaning` walks.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import dictionary_has_tag, keyword_for_tag
from pydicom.tag import BaseTag

from pacs_node.workbench.deidentify.iods import needed, stated
from pacs_node.workbench.deidentify.options import Dates, Options

EDITION = "dicomfields_2026c"


class Action(StrEnum):
    """What is done to an attribute (PS3.15 Table E.1-1a)."""

    REPLACE = "D"
    EMPTY = "Z"
    REMOVE = "X"
    KEEP = "K"  # sequences are looked into
    CLEAN = "C"  # its text is kept as far as it is harmless
    UID = "U"
    SHIFT = "S"  # a date is moved


_COLUMNS = {  # the library's name, how the standard writes it
    "D_TAGS": "D", "Z_TAGS": "Z", "X_TAGS": "X", "U_TAGS": "U", "Z_D_TAGS": "Z/D", "X_Z_TAGS": "X/Z", "X_D_TAGS": "X/D", "X_Z_D_TAGS": "X/Z/D",
    "X_Z_U_STAR_TAGS": "U*",
}  # fmt: skip
_CHOICES = {"1": "DZX", "2": "ZDX", "3": "XZD"}  # by the type that an IOD gives an attribute: what is taken, where the table leaves the choice

DEVICE = frozenset({
    "CassetteID", "DetectorID", "DeviceDescription", "DeviceLabel", "DeviceSerialNumber", "DeviceUID", "GantryID", "GeneratorID", "LensMake", "LensModel",
    "LensSerialNumber", "LensSpecification", "ManufacturerDeviceClassUID", "ManufacturerDeviceIdentifier", "PerformedStationAETitle",
    "PerformedStationGeographicLocationCodeSequence", "PerformedStationName", "PerformedStationNameCodeSequence", "PlateID",
    "ScheduledProcedureStepLocation", "ScheduledStationAETitle", "ScheduledStationGeographicLocationCodeSequence", "ScheduledStationName",
    "ScheduledStationNameCodeSequence", "ScheduledStudyLocation", "ScheduledStudyLocationAETitle", "SourceManufacturer", "SourceSerialNumber",
    "StationName", "TransducerIdentificationSequence", "TreatmentMachineName", "UDISequence", "UniqueDeviceIdentifier", "XRayDetectorID",
    "XRayDetectorLabel", "XRaySourceID",
})  # fmt: skip
INSTITUTION = frozenset({
    "ClinicalTrialCoordinatingCenterName", "ClinicalTrialProtocolEthicsCommitteeName", "ClinicalTrialSiteID", "ClinicalTrialSiteName",
    "InstitutionAddress", "InstitutionalDepartmentName", "InstitutionalDepartmentTypeCodeSequence", "InstitutionCodeSequence", "InstitutionName",
})  # fmt: skip
PATIENT = frozenset({
    "EthnicGroup", "PatientAge", "PatientBodyMassIndex", "PatientSex", "PatientSexNeutered", "PatientSize", "PatientSizeCodeSequence", "PatientWeight",
    "PregnancyStatus", "SmokingStatus",
})  # fmt: skip
DESCRIPTORS = frozenset({
    "AcquisitionComments", "AcquisitionDeviceProcessingDescription", "AcquisitionFieldOfViewLabel", "AcquisitionProtocolDescription",
    "ContrastBolusAgent", "ContributionDescription", "DecompositionDescription", "DerivationDescription", "FrameComments", "ImageComments",
    "MultienergyAcquisitionDescription", "PerformedProcedureStepDescription", "ProtocolName", "RequestedContrastAgent",
    "RequestedProcedureDescription", "RequestedSeriesDescription", "RespiratoryMotionCompensationTechniqueDescription",
    "ScheduledProcedureStepDescription", "SeriesDescription", "StudyDescription",
})  # fmt: skip
_MORE_OUT = PATIENT | {  # what the table does not name although it is of a person, an order or a place, or opinions of somebody
    "AssertionComments", "AssessmentSummaryDescription", "AssigningAgencyOrDepartmentCodeSequence", "AssigningFacilitySequence",
    "AssigningJurisdictionCodeSequence", "BreedRegistrationSequence", "CommentsOnPatientPerformanceOfVisualField",
    "CommentsOnTheScheduledProcedureStep", "DoseComment",
    "EncryptedAttributesSequence", "FillerOrderNumberImagingServiceRequestRetired", "FillerOrderNumberProcedure",
    "GroupOfPatientsIdentificationSequence", "HL7InstanceIdentifier", "HomeCommunityID", "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientIDQualifiersSequence", "LocalNamespaceEntityID", "NTPSourceAddress", "OrderFillerIdentifierSequence",
    "OrderPlacerIdentifierSequence", "OwnerID", "PatientAlternativeCalendar", "PatientBirthDateInAlternativeCalendar",
    "PatientDeathDateInAlternativeCalendar", "PlacerOrderNumberImagingServiceRequestRetired", "PlacerOrderNumberProcedure",
    "PotentialDiagnosticTasks", "PotentialReasonsForProcedure", "ReasonForCancellation", "ResponsiblePersonRole", "SOPAuthorizationComment",
    "SegmentDescription", "SourcePatientGroupIdentificationSequence", "StageName", "TreatmentStatusComment", "UniversalEntityID",
}  # fmt: skip
_TECHNICAL = frozenset({  # texts that the table does not name and that say how something was made; all others keep their harmless words
    "ASLTechniqueDescription", "AcquisitionMode", "AlgorithmName", "AlgorithmParameters", "AlgorithmSource", "AlgorithmVersion", "ApplicationManufacturer",
    "ApplicationName", "ApplicationVersion", "AttenuationCorrectionMethod", "CodeMeaning", "CodeValue", "CodingSchemeDesignator", "CodingSchemeName",
    "CodingSchemeRegistry", "CodingSchemeVersion", "CollimatorGridName", "ContrastBolusRoute", "ConvolutionKernel", "DeidentificationMethod",
    "DetectorManufacturerName", "DetectorManufacturerModelName", "DimensionDescriptionLabel", "DimensionIndexPrivateCreator", "DoseModeName",
    "EnergyWindowName", "ExtendedCodeMeaning", "ExtendedCodeValue", "FilterType", "FunctionalGroupPrivateCreator", "ImageFilter", "ImagedNucleus",
    "LUTExplanation", "LongCodeValue", "MIMETypeOfEncapsulatedDocument", "Manufacturer", "ManufacturerModelName", "ManufacturerRelatedModelGroup",
    "MappingResourceName", "ModalityLUTType", "MultiCoilConfiguration", "MultiCoilElementName", "OpticalPathIdentifier", "PVCRejection",
    "PixelSpacingCalibrationDescription", "PositionReferenceIndicator", "ProcessingFunction", "PulseSequenceName", "Radionuclide", "Radiopharmaceutical",
    "RadiopharmaceuticalRoute", "ReceiveCoilManufacturerName", "ReceiveCoilName", "ReconstructionMethod", "ReferencedOpticalPathIdentifier", "RescaleType",
    "ScatterCorrectionMethod", "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName",
    "SecondaryCaptureDeviceSoftwareVersions", "SegmentAlgorithmName", "SegmentLabel", "SequenceName", "SoftwareVersions", "StackID",
    "TransmitCoilManufacturerName", "TransmitCoilName", "TransducerData", "TypeOfFilters", "WindowCenterWidthExplanation",
})  # fmt: skip
_NOT_OF_AN_INSTANCE = frozenset({  # UIDs of kinds and of schemes, private ones included: they are the same for everybody
    "AvailableTransferSyntaxUID", "CodingSchemeUID", "ContextUID", "EncryptedContentTransferSyntaxUID", "FlowTransferSyntaxUID",
    "MACCalculationTransferSyntaxUID", "MappingResourceUID", "OriginalSpecializedSOPClassUID", "PertinentSOPClassesInSeries",
    "PertinentSOPClassesInStudy", "ReferencedSOPClassUID", "RelatedGeneralSOPClassUID", "SOPClassUID", "SOPClassesInStudy", "SOPClassesSupported",
    "StoredInstanceTransferSyntaxUID",
})  # fmt: skip
_FREE = ("LO", "LT", "SH", "ST", "UC", "UT")
_BIRTH = frozenset({"PatientBirthDate", "PatientBirthTime"})
_REPORT = {"ContentSequence": Action.KEEP, "TextValue": Action.CLEAN}  # Clean Structured Content Option (PS3.15 E.3.4): always, as nothing would be left else
_OF_TIME = ("DA", "DT", "TM")
_DRAWN = (0x5000, 0x6000)  # curves and overlays: without their data, which the profile takes away, the rest of the group is invalid


@lru_cache(maxsize=1)
def table() -> dict[int, str]:
    """Return Table E.1-1: tag → what the Basic Profile says, e.g. ``X/Z``; without the repeating groups, which go as a whole."""
    columns = dicom_anonymization_database_selector(EDITION)
    return {tag[0] << 16 | tag[1]: actions for column, actions in _COLUMNS.items() for tag in columns[column] if len(tag) == 2}


def action_for(tag: BaseTag, vr: str, sop_class_uid: str, path: tuple[str, ...], options: Options) -> Action:
    """Return what becomes of one element; ``path``: keywords of the sequences around it."""
    if tag.is_private or tag.element == 0 or tag.group & 0xFF00 in _DRAWN or not dictionary_has_tag(tag):
        return Action.REMOVE  # private, a group length, curves and overlays as a whole, or of an edition that nobody here knows
    keyword = keyword_for_tag(tag)
    chosen = _of_options(keyword, vr, options) or _REPORT.get(keyword)
    if chosen is not None:
        return chosen
    actions = table().get(tag) or _unlisted(keyword, vr)
    if actions == "U*":
        return Action.KEEP  # a sequence of references: their UIDs are replaced in it
    if actions == "U" and options.retain_uids:
        return Action.KEEP
    if actions == "X" and stated(sop_class_uid, (*path, keyword)) == "2":
        return Action.EMPTY  # the IOD wants it to be there, and takes it empty
    if len(actions) == 1:
        return Action(actions)
    allowed = actions.split("/")
    return Action(next(one for one in _CHOICES[needed(sop_class_uid, (*path, keyword))] if one in allowed))


def _of_options(keyword: str, vr: str, options: Options) -> Action | None:
    kept = (options.retain_device, DEVICE), (options.retain_institution, INSTITUTION), (options.retain_patient_characteristics, PATIENT)
    if any(wanted and keyword in names for wanted, names in kept):
        return Action.KEEP
    if options.clean_descriptors and keyword in DESCRIPTORS:
        return Action.CLEAN
    if options.dates is not Dates.REMOVE and keyword not in _BIRTH:
        if keyword == "TimezoneOffsetFromUTC":
            return Action.KEEP
        if vr in _OF_TIME:
            return Action.KEEP if options.dates is Dates.KEEP else Action.SHIFT
    return None


def _unlisted(keyword: str, vr: str) -> str:
    """Return what becomes of an attribute that the table does not name: what its VR alone makes suspicious does not stay."""
    if keyword in _MORE_OUT or vr in ("UN", "UR"):
        return "X"
    if vr in ("PN", "AE", *_OF_TIME):
        return "X/Z/D"
    if vr in _FREE:
        return "K" if keyword in _TECHNICAL else "C"
    return "U" if vr == "UI" and keyword not in _NOT_OF_AN_INSTANCE else "K"
