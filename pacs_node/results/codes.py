"""Coded concepts: our private scheme, and the tables that turn header values into codes of PS3.16."""

from __future__ import annotations

from typing import Any

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pacs_node.dicom import values as looking_up
from pacs_node.dicom.header import text_of
from pacs_node.records import NoticeStatus, Population, Verdict

SCHEME = "99PACSNODE"
SCHEME_NAME = "pacs-node anomaly score concepts"
SCHEME_OWNER = "pacs-node open source project"


def private(value: str, meaning: str) -> Code:
    """Return a code of our private scheme."""
    return Code(value, SCHEME, meaning)


def coding_scheme() -> Any:
    """Return the declaration of the private scheme (Coding Scheme Identification Sequence, PS3.3 C.12.1.1.2)."""
    return CodingSchemeIdentificationItem(designator=SCHEME, name=SCHEME_NAME, responsible_organization=SCHEME_OWNER)


def item_of(code: Code) -> Dataset:
    """Return a code as the item of a code sequence (PS3.3 8.8)."""
    item: Dataset = CodedConcept.from_code(code)
    return item


# --- names of what is said ---------------------------------------------------------------------------------------------

SCORE = private("SCORE", "Anomaly score")
SLICE_SCORE = private("SLICE-SCORE", "Anomaly score of a slice")
IMAGE_SCORE = private("IMAGE-SCORE", "Anomaly score of an image")
SCORE_PART = private("SCORE-PART", "Part of the anomaly score")
P_VALUE = private("P-VALUE", "Conformal p-value among the calibration studies")
THRESHOLD = private("THRESHOLD", "Threshold of the anomaly score")
CALIBRATION_STUDIES = private("CAL-STUDIES", "Number of calibration studies")
CALIBRATION_RATE = private("CAL-RATE", "Highest expected share of false alarms")
CALIBRATION_POPULATION = private("CAL-POPULATION", "Calibration population")
CALIBRATION_DATE = private("CAL-DATE", "Date of calibration")
VERDICT = private("VERDICT", "Comparison of the anomaly score with its threshold")
HEAT_MAP = private("HEAT-MAP", "Parametric map of the anomaly score")
PICTURES = private("PICTURES", "Secondary capture of the slices that stand out")
TAIL_QUANTITY = private("NEG-LOG10-TAIL", "-log10 of the calibrated pixel tail")
RELATIVE_QUANTITY = private("RELATIVE-SCORE", "Anomaly score relative to the same study, uncalibrated")
REGIONS = private("REGIONS", "Segmentation of the regions that stand out")
SYNTHETIC_IMAGES = private("SYNTHETIC-IMAGES", "Synthetic reconstruction by the model")
PERCENTILE = Code("121415", "DCM", "Percentile Ranking of measurement")
SUMMARY = Code("121111", "DCM", "Summary")
COMMENT = Code("121106", "DCM", "Comment")
ANALYSIS_STATUS = Code("111065", "DCM", "Summary of Analyses")

# --- values ------------------------------------------------------------------------------------------------------------

VERDICTS = {
    Verdict.ABOVE: private("ABOVE", Verdict.ABOVE.value),
    Verdict.NOT_ABOVE: private("NOT-ABOVE", Verdict.NOT_ABOVE.value),
    Verdict.UNCALIBRATED: private("UNCALIBRATED", Verdict.UNCALIBRATED.value),
    Verdict.NOT_ANALYSED: private("NOT-ANALYSED", Verdict.NOT_ANALYSED.value),
}
POPULATIONS = {
    Population.SITE: private("SITE", "Studies of this site"),
    Population.FOREIGN: private("FOREIGN", "Studies of another site"),
    Population.SYNTHETIC: private("SYNTHETIC", "Synthetic studies"),
}
STATUSES = {  # CID 6042 Status of Results
    NoticeStatus.NOT_ATTEMPTED: Code("111225", "DCM", "Not Attempted"),
    NoticeStatus.FAILED: Code("111224", "DCM", "Failed"),
    NoticeStatus.PARTIALLY_SUCCEEDED: Code("111223", "DCM", "Partially Succeeded"),
}

NO_UNITS = Code("1", "UCUM", "no units")
PERCENT = Code("%", "UCUM", "Percent")
STUDIES = Code("{studies}", "UCUM", "studies")
QUALITATIVE_EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
SOURCE_FOR_SEGMENTATION = Code("121233", "DCM", "Source image for segmentation")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
SOURCE_FOR_PROCESSING = Code("121322", "DCM", "Source image for image processing operation")  # CID 7222
UNSPECIFIED_DERIVATION = Code("112187", "DCM", "Unspecified method of calculation")

# What a region is: a part of the image, nothing of the patient
REGION_CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")
REGION_TYPE = Code("111030", "DCM", "Image Region")
AREA = Code("42798000", "SCT", "Area")
VOLUME = Code("118565006", "SCT", "Volume")
SQUARE_MM = Code("mm2", "UCUM", "square millimeter")
CUBIC_MM = Code("mm3", "UCUM", "cubic millimeter")
MEAN = Code("373098007", "SCT", "Mean")
MAXIMUM = Code("56851009", "SCT", "Maximum")
OF_INTEREST = Code("113000", "DCM", "Of Interest")  # CID 7010
REJECTED_FOR_QUALITY = Code("113001", "DCM", "Rejected for Quality Reasons")  # CID 7010
KEY_OBJECT_DESCRIPTION = Code("113012", "DCM", "Key Object Description")

# --- what a header says ------------------------------------------------------------------------------------------------

# Body Part Examined (PS3.16 Annex L, defined terms) to SNOMED CT of CID 4031
BODY_PARTS = {
    "ABDOMEN": ("818981001", "Abdomen"),
    "ABDOMENPELVIS": ("818982008", "Abdomen and Pelvis"),
    "BRAIN": ("12738006", "Brain"),
    "BREAST": ("76752008", "Breast"),
    "CHEST": ("816094009", "Chest"),
    "CHESTABDOMEN": ("416550000", "Chest and Abdomen"),
    "CHESTABDPELVIS": ("416775004", "Chest, Abdomen and Pelvis"),
    "HEAD": ("69536005", "Head"),
    "HEADNECK": ("774007", "Head and Neck"),
    "HEART": ("80891009", "Heart"),
    "LIVER": ("10200004", "Liver"),
    "LUNG": ("39607008", "Lung"),
    "NECK": ("45048000", "Neck"),
    "PELVIS": ("816092008", "Pelvis"),
    "WHOLEBODY": ("38266002", "Entire body"),
}
ANY_BODY_PART = Code("123037004", "SCT", "Body structure")

# Body parts that exist once, so that Laterality (0020,0060) must be absent (PS3.3 C.7.3.1, Type 2C)
UNPAIRED = frozenset((
    "ABDOMEN", "ABDOMENPELVIS", "AORTA", "BLADDER", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS",
    "COLON", "CSPINE", "ESOPHAGUS", "FACE", "HEAD", "HEADNECK", "HEART", "LIVER",
    "LSPINE", "MEDIASTINUM", "NECK", "NECKCHEST", "PANCREAS", "PELVIS", "PROSTATE", "SKULL",
    "SPINE", "SPLEEN", "SSPINE", "STOMACH", "THYROID", "TRACHEA", "TSPINE", "UTERUS",
    "WHOLEBODY",
))  # fmt: skip

# Modality to a procedure of CID 100; what the source's Procedure Code Sequence says goes first
PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
    "US": Code("25061-3", "LN", "US unspecified body region"),  # CID 100 is extensible and has none for ultrasound
}
ANY_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")

# Modality as a concept of CID 29
MODALITIES = {
    "CT": "Computed Tomography",
    "MR": "Magnetic Resonance",
    "PT": "Positron emission tomography",
    "US": "Ultrasound",
    "DX": "Digital Radiography",
    "CR": "Computed Radiography",
    "MG": "Mammography",
    "NM": "Nuclear Medicine",
    "XA": "X-Ray Angiography",
}


def finding_site(header: Dataset) -> Code | None:
    """Return the anatomic region that a header names by term or, as enhanced objects do, by code; None where it names none that we know."""
    return _body_part(text_of(header, "BodyPartExamined")) or _anatomic_region(header)


def _body_part(text: str) -> Code | None:
    term = "".join(char for char in text.upper() if char.isalnum())
    return Code(BODY_PARTS[term][0], "SCT", BODY_PARTS[term][1]) if term in BODY_PARTS else None


_REGION = tuple(looking_up.parse_key(f"AnatomicRegionSequence.{keyword}") for keyword in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))


def _anatomic_region(header: Dataset) -> Code | None:
    """Return Anatomic Region Sequence (0008,2218) of the object or of its first frame (PS3.3 C.7.6.16.2.8), older codes by their meaning."""
    scheme, value, meaning = (str(next(iter(looking_up.places(header, key)[0]), "")) for key in _REGION)
    if scheme == "SCT" and value and meaning and len(meaning) <= 64 and value.isdigit():
        return Code(value, scheme, meaning)
    return _body_part(meaning)


def body_part_term(header: Dataset) -> str:
    """Return the defined term of Body Part Examined for the region that a header names, ``""`` where there is none."""
    site = finding_site(header)
    return next((term for term, (value, _) in BODY_PARTS.items() if site is not None and site.value == value), "")


_LATERALITIES = tuple(looking_up.parse_key(keyword) for keyword in ("FrameLaterality", "ImageLaterality", "Laterality"))


def frame_laterality(header: Dataset) -> str:
    """Return Frame Laterality (0020,9072) for a map of these images: R, L, B or U.

    As the source says it for all its frames; where it does not, U, but B for the breasts, which a slice through the chest shows both.
    """
    for key in _LATERALITIES:
        said = {str(value).upper() for place in looking_up.places(header, key) for value in place}
        if len(said) == 1 and said <= {"R", "L", "B", "U"}:
            return said.pop()
    return "B" if body_part_term(header) == "BREAST" else "U"


def procedure_reported(header: Dataset) -> Code:
    """Return the imaging procedure whose images were analysed: as the source codes it, else by modality."""
    for item in header.get("ProcedureCodeSequence") or ():
        value, scheme, meaning = (text_of(item, keyword) for keyword in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning"))
        if value and scheme and meaning and len(value) <= 16 and len(meaning) <= 64:
            return Code(value, scheme, meaning)
    return PROCEDURES.get(text_of(header, "Modality").upper(), ANY_PROCEDURE)


def modality(header: Dataset) -> Code | None:
    """Return the modality as a code (CID 29), None for one that the table lacks."""
    name = text_of(header, "Modality").upper()
    return Code(name, "DCM", MODALITIES[name]) if name in MODALITIES else None
