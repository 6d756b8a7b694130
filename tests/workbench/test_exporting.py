"""`export`: nothing that identifies leaves, what leaves belongs together, and what is left out is told."""

from __future__ import annotations

import errno
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ComprehensiveSRStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from pacs_node.errors import InputError
from pacs_node.workbench.deidentify.cleaning import Cleaner
from pacs_node.workbench.deidentify.options import Dates, Options
from pacs_node.workbench.deidentify.pseudonyms import Pseudonyms
from pacs_node.workbench.deidentify.traces import Traces, traces_of
from pacs_node.workbench.deidentify.words import harmless
from tests.journey.support import ct_slice
from tests.workbench.secrets_of import every_element, exported, left_in, run, save, secrets

ALL = Options(True, True, True, True, True, Dates.KEEP)


def item(**values: object) -> Dataset:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def telling(name: str = "Mustermann^Erika", character_set: str = "ISO_IR 100", index: int = 0) -> Dataset:
    """A slice that names its patient wherever names have ever been seen."""
    family = name.split("^")[0].split("=")[0]
    made = ct_slice(index, study="secret", patient="PAT-778899", SpecificCharacterSet=character_set.split("\\"), PatientName=name)
    made.AccessionNumber, made.StationName, made.InstitutionName = "ACC-556677", "CT-ROOM-SEVEN", "St. Elsewhere Hospital"
    made.InstitutionAddress, made.DeviceSerialNumber, made.OtherPatientIDs = "1 Elsewhere Lane, Boston", "SN-998877", ["OLD-112233", "OLD-445566"]
    made.StudyDescription, made.SeriesDescription, made.ProtocolName = f"CT head of {family}", f"axial 5 mm {family} ACC-556677", f"{family} routine"
    made.ReferringPhysicianName, made.OperatorsName, made.PatientBirthDate = "Whitecoat^Walter", "Tech^Theodora", "19610203"
    made.ImageComments, made.PatientComments, made.DerivationDescription = f"for {family}", "call +49 30 1234567", f"made for {family} on 2026-01-02"
    made.ManufacturerModelName, made.SoftwareVersions = f"Scanner of {family}", "1"  # the profile keeps both
    made.RequestAttributesSequence = [item(RequestedProcedureID="RP-334455", ScheduledProcedureStepDescription=f"scan {family}")]
    made.ContributingEquipmentSequence = [
        item(Manufacturer="maker", InstitutionName="St. Elsewhere Hospital", OperatorsName="Tech^Theodora", ContributionDateTime="20260102101010",
             PurposeOfReferenceCodeSequence=[item(CodeValue="109102", CodingSchemeDesignator="DCM", CodeMeaning="Processing Equipment")])
    ]  # fmt: skip
    made.AnatomicRegionSequence = [item(CodeValue="X1", CodingSchemeDesignator="99LOCAL", CodeMeaning=f"head of {family}")]
    made.ReferencedImageSequence = [item(ReferencedSOPClassUID=made.SOPClassUID, ReferencedSOPInstanceUID=ct_slice(1, study="secret").SOPInstanceUID)]
    made.OtherPatientIDsSequence = [item(PatientID="OLD-112233", IssuerOfPatientID="St. Elsewhere Hospital", TypeOfPatientID="TEXT")]
    made.EncryptedAttributesSequence = [item(EncryptedContent=f"{family} PAT-778899".encode("utf-8", "replace"))]
    block = made.private_block(0x0029, "MAKER HEADER", create=True)
    block.add_new(0x10, "LO", f"{family}")
    block.add_new(0x11, "OB", b"PatientID=PAT-778899 ")
    block.add_new(0x12, "SQ", [item(PatientName=name, AccessionNumber="ACC-556677")])
    made.add_new(0x60000010, "US", 16)
    made.add_new(0x60000022, "LO", f"drawn for {family}")
    made.add_new(0x60003000, "OW", b"\xff" * 32)
    made.file_meta.SourceApplicationEntityTitle, made.file_meta.PrivateInformationCreatorUID = "CT_ELSEWHERE", "1.2.3.4.5678"
    made.file_meta.PrivateInformation = b"PAT-778899"
    made.preamble = b"PAT-778899".ljust(128, b"\0")
    return made


NAMES = [
    ("Mustermann^Erika", "ISO_IR 100"),
    ("Müller^Jürgen^^Dr.", "ISO_IR 100"),
    ("Люкceмбypг^Роза", "ISO_IR 144"),
    ("Yamada^Tarou=山田^太郎=やまだ^たろう", "\\ISO 2022 IR 87"),
    ("Wang^XiaoDong=王^小东=", "GB18030"),
    ("Hong^Gildong=洪^吉洞=홍^길동", "\\ISO 2022 IR 149"),
    ("Wang^XiaoDong=王^小東=", "ISO_IR 192"),
]
CHOICES = {
    "basic": Options(),
    "shifted": Options(dates=Dates.SHIFT, clean_descriptors=True, retain_patient_characteristics=True),
    "all but names": Options(retain_device=True, retain_institution=True, clean_descriptors=True, retain_patient_characteristics=True),
}


@pytest.mark.parametrize(
    ("name", "character_set", "choice"),
    [*((name, character_set, "basic") for name, character_set in NAMES), *((*NAMES[1], choice) for choice in CHOICES if choice != "basic")],
)
def test_no_value_that_identifies_is_in_any_exported_byte(tmp_path: Path, name: str, character_set: str, choice: str) -> None:
    source = save(tmp_path / "in", telling(name, character_set), telling(name, character_set, 1))
    options = CHOICES[choice]
    report = run(tmp_path, source, options)
    assert (report.written, report.left_out) == (2, [])
    wanted = {secret for file in source.iterdir() for secret in secrets(dcmread(file))}
    wanted |= {"RP-334455", "+49 30 1234567", "CT_ELSEWHERE", "2026-01-02", "1.2.3.4.5678"}
    kept = {"St. Elsewhere Hospital", "1 Elsewhere Lane, Boston"} if options.retain_institution else set()
    kept |= {"SN-998877", "CT-ROOM-SEVEN"} if options.retain_device else set()
    assert {"PAT-778899", "ACC-556677", "Whitecoat", "19610203", "OLD-112233"} < wanted
    assert left_in(tmp_path / "out", wanted - kept) == []


@pytest.mark.parametrize("name", ["ct-ge-head-tilt", "mr-siemens-xa30-enhanced", "mr-philips-enhanced", "pt-ct-small-suyashkumar", "highdicom-test"])
def test_no_value_that_identifies_is_in_an_export_of_real_series(tmp_path: Path, dataset_folder: Callable[[str], Path], name: str) -> None:
    folder = dataset_folder(name)
    report = run(tmp_path, folder)
    wanted: set[str] = set()
    for file in (path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[128:132] == b"DICM"):
        wanted |= secrets(dcmread(file, stop_before_pixels=True))
    assert report.written and wanted
    assert left_in(tmp_path / "out", wanted) == []


@pytest.mark.slow
def test_odd_files_are_exported_clean_or_left_out_with_the_reason(tmp_path: Path, dataset_folder: Callable[[str], Path]) -> None:
    folder = dataset_folder("pydicom-test-files")
    report = run(tmp_path, folder)
    assert report.written > 20
    assert all(one.reason and "Traceback" not in one.reason for one in report.left_out)
    for made in exported(tmp_path / "out"):
        assert made.PatientIdentityRemoved == "YES"
        assert all(not element.tag.is_private for element in every_element(made))
    assert not list((tmp_path / "out").rglob("*.part"))


def report_on(*content: Dataset, kind: str = ComprehensiveSRStorage) -> Dataset:
    """A structured report with these content items."""
    made = Dataset()
    made.file_meta = ct_slice(0).file_meta
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDate"):
        setattr(made, keyword, ct_slice(0)[keyword].value)
    made.SOPClassUID, made.Modality, made.PatientBirthDate, made.ValueType = kind, "SR", "", "CONTAINER"
    made.ContentSequence = list(content)
    return made


def concept(value: str, meaning: str, scheme: str = "DCM") -> list[Dataset]:
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)]


def subject() -> list[Dataset]:
    years = item(NumericValue="65", MeasurementUnitsCodeSequence=concept("a", "year", "UCUM"))
    return [
        item(ValueType="NUM", ConceptNameCodeSequence=concept("121033", "Subject Age"), MeasuredValueSequence=[years]),
        item(ValueType="CODE", ConceptNameCodeSequence=concept("121032", "Subject Sex"), ConceptCodeSequence=concept("F", "Female")),
        item(ValueType="NUM", ConceptNameCodeSequence=concept("X7", "Patient's weight", "99LOCAL"), MeasuredValueSequence=[years]),
        item(ValueType="DATE", ConceptNameCodeSequence=concept("121031", "Subject Birth Date"), Date="19610203"),
        item(ValueType="TEXT", ConceptNameCodeSequence=concept("121071", "Finding"), TextValue="mass"),
    ]


def test_a_report_loses_who_and_how_the_patient_is_by_its_concept_names(tmp_path: Path) -> None:
    run(tmp_path, save(tmp_path / "in", report_on(*subject())), Options(dates=Dates.KEEP))
    (made,) = exported(tmp_path / "out")
    assert [one.ConceptNameCodeSequence[0].CodeValue for one in made.ContentSequence] == ["121071"]
    run(tmp_path, tmp_path / "in", Options(dates=Dates.KEEP, retain_patient_characteristics=True), out="more")
    (made,) = exported(tmp_path / "more")
    assert [one.ConceptNameCodeSequence[0].CodeValue for one in made.ContentSequence] == ["121033", "121032", "X7", "121071"]


def test_a_report_whose_items_are_counted_keeps_their_number(tmp_path: Path) -> None:
    by_place = item(RelationshipType="INFERRED FROM", ReferencedContentItemIdentifier=[1, 5])
    run(tmp_path, save(tmp_path / "in", report_on(*subject(), by_place)))
    (made,) = exported(tmp_path / "out")
    assert [one.get("TextValue") for one in made.ContentSequence[:4]] == ["REMOVED"] * 4
    assert not [one for one in every_element(made) if one.keyword in ("NumericValue", "Date")]
    assert list(made.ContentSequence[5].ReferencedContentItemIdentifier) == [1, 5]


def test_words_beside_a_public_designator_are_cleaned_unless_they_are_its_own(tmp_path: Path) -> None:
    source = telling()
    source.AnatomicRegionSequence = concept("T-D1100", "Head", "SRT")
    source.ProcedureCodeSequence = concept("P5-08000", "CT for Mustermann Erika", "SRT")
    report = run(tmp_path, save(tmp_path / "in", source))
    assert report.written == 1
    (made,) = exported(tmp_path / "out")
    assert made.ProcedureCodeSequence[0].CodeMeaning == "CT for REMOVED REMOVED"
    source = telling("Head^Erika")
    source.AnatomicRegionSequence = concept("T-D1100", "Head", "SRT")
    run(tmp_path, save(tmp_path / "head", source), out="other")
    assert exported(tmp_path / "other")[0].AnatomicRegionSequence[0].CodeMeaning == "Head"


def test_what_is_deflated_is_inflated_to_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = telling()
    source.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    folder = save(tmp_path / "in", source)
    run(tmp_path, folder)
    assert exported(tmp_path / "out")[0].file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    monkeypatch.setattr("pacs_node.workbench.deidentify.cleaning.scrubbed", lambda text, traces: text)
    report = run(tmp_path, folder, out="again")
    assert report.written == 0 and "still stood" in report.left_out[0].reason


def test_what_an_earlier_de_identification_said_is_added_to(tmp_path: Path) -> None:
    source = ct_slice(0)
    source.DeidentificationMethod = "by the trial's centre"
    source.DeidentificationMethodCodeSequence = [*concept("113100", "Basic Application Confidentiality Profile"), *concept("113103", "Clean Graphics Option")]
    run(tmp_path, save(tmp_path / "in", source))
    (made,) = exported(tmp_path / "out")
    assert [one.CodeValue for one in made.DeidentificationMethodCodeSequence] == ["113103", "113100"]
    assert list(made.DeidentificationMethod) == ["by the trial's centre", "Basic Application Confidentiality Profile"]


# --- what belongs together ---------------------------------------------------------------------------------------------------


def test_a_second_export_gives_the_same_uids_pseudonyms_and_bytes(tmp_path: Path) -> None:
    source = save(tmp_path / "in", telling(), telling(index=1))
    run(tmp_path, source)
    run(tmp_path, source, out="again")
    first, again = ({file.relative_to(tmp_path / out): file.read_bytes() for file in (tmp_path / out).rglob("*.dcm")} for out in ("out", "again"))
    assert first == again and len(first) == 2


def test_another_map_gives_others(tmp_path: Path) -> None:
    source = save(tmp_path / "in", telling())
    run(tmp_path, source)
    run(tmp_path, source, out="other", map_file="other.db")
    (one,), (other,) = exported(tmp_path / "out"), exported(tmp_path / "other")
    assert one.PatientID != other.PatientID
    assert one.SOPInstanceUID != other.SOPInstanceUID


def test_references_between_objects_lead_to_their_new_uids(tmp_path: Path) -> None:
    source = save(tmp_path / "in", telling(), telling(index=1))
    run(tmp_path, source)
    first, second = exported(tmp_path / "out")
    assert first.ReferencedImageSequence[0].ReferencedSOPInstanceUID == second.SOPInstanceUID
    assert first.StudyInstanceUID == second.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.file_meta.MediaStorageSOPInstanceUID == first.SOPInstanceUID


def test_studies_of_one_patient_share_a_pseudonym_and_a_shift_and_those_of_two_do_not(tmp_path: Path) -> None:
    facts = (("A", "P1", "20260102"), ("B", "P1", "20260202"), ("C", "P2", "20260102"))
    slices = [ct_slice(0, study=study, patient=patient, StudyDate=day) for study, patient, day in facts]
    report = run(tmp_path, save(tmp_path / "in", *slices), Options(dates=Dates.SHIFT))
    assert len(report.pseudonyms) == 2
    days = sorted(date.fromisoformat(one.StudyDate) for one in exported(tmp_path / "out") if one.PatientID == next(iter(report.pseudonyms)))
    assert (days[1] - days[0]).days == 31
    assert days[0].year < 2026


def test_pixels_and_geometry_stay_as_they_are(tmp_path: Path) -> None:
    source = telling()
    run(tmp_path, save(tmp_path / "in", source))
    (made,) = exported(tmp_path / "out")
    assert made.PixelData == source.PixelData
    for keyword in ("ImagePositionPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept", "Modality", "BodyPartExamined", "KVP"):
        assert made[keyword].value == source[keyword].value


# --- what is said ------------------------------------------------------------------------------------------------------------


def test_an_object_says_by_which_profile_and_options_it_was_de_identified(tmp_path: Path) -> None:
    run(tmp_path, save(tmp_path / "in", telling()), replace(ALL, dates=Dates.SHIFT))
    (made,) = exported(tmp_path / "out")
    assert made.PatientIdentityRemoved == "YES"
    codes = [(one.CodeValue, one.CodingSchemeDesignator) for one in made.DeidentificationMethodCodeSequence]
    assert codes == [(value, "DCM") for value in ("113100", "113105", "113108", "113109", "113110", "113112", "113107")]
    assert list(made.DeidentificationMethod) == [one.CodeMeaning[:64] for one in made.DeidentificationMethodCodeSequence]
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"


def test_what_is_retained_is_what_was_asked_for(tmp_path: Path) -> None:
    source = telling()
    source.PatientAge, source.PatientWeight = "065Y", "70"
    run(tmp_path, save(tmp_path / "in", source), ALL)
    (made,) = exported(tmp_path / "out")
    identifiers = ("StudyInstanceUID", "SOPInstanceUID", "StationName", "DeviceSerialNumber", "InstitutionName", "StudyDate")
    for keyword in (*identifiers, "PatientAge", "PatientWeight", "PatientSex"):
        assert made[keyword].value == source[keyword].value, keyword
    assert made.PatientBirthDate == ""
    assert made.PatientName == made.PatientID != source.PatientID


def test_without_options_none_of_it_stays(tmp_path: Path) -> None:
    run(tmp_path, save(tmp_path / "in", telling()))
    (made,) = exported(tmp_path / "out")
    for keyword in ("StudyDate", "AccessionNumber", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyID"):
        assert not made[keyword].value, keyword
    for keyword in ("StationName", "InstitutionName", "SeriesDescription", "StudyDescription", "ProtocolName", "ImageComments", "OtherPatientIDs"):
        assert keyword not in made, keyword


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CT HEAD W/O CONTRAST 5.0 mm", "CT HEAD W/O CONTRAST 5.0 mm"),
        ("T2 FLAIR axial Mustermann", "T2 FLAIR axial"),
        ("MUSTERMANN, E. chest 12345678", "chest"),
        ("scan 2026-01-02 for Dr. Jones", "scan - - for"),
        ("thorax PAT-778899", "thorax"),
    ],
)
def test_descriptions_keep_only_words_that_are_known_to_be_harmless(tmp_path: Path, text: str, left: str) -> None:
    source = telling()
    source.SeriesDescription = text
    run(tmp_path, save(tmp_path / "in", source), Options(clean_descriptors=True))
    (made,) = exported(tmp_path / "out")
    kept = [word.casefold() for word in made.SeriesDescription.replace(",", " ").replace(".", " ").split()]
    assert {word for word in left.casefold().split() if word.isalpha()} <= set(kept)
    assert not {"mustermann", "jones", "12345678", "2026", "778899", "pat"} & set(kept)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("CPF 123.456.789-09", ""),
        ("call +49 30 123 45 67", ""),
        ("MRN 123 456 789", ""),
        ("NHS 943 476 5919", ""),
        ("head 03.02.61", "head"),
        ("head 3/2/61", "head"),
        ("head 3. Feb 61", "head"),
        ("head 12 Mustermann 34", "head"),
        ("head 123 x 456 x 789 x 123 x 45", "head x x x x"),
        ("head 5.0 mm", "head 5.0 mm"),
        ("head 5mm 120kV", "head 5mm 120kV"),
        ("matrix 512 x 512 x 135", "512 x 512 x 135"),
        ("score 97.5 above threshold 95, slice 12 of 135", "score 97.5 above threshold 95, slice 12 of 135"),
        ("T1 3 mm", "T1 3 mm"),
        ("10 % of 20 % above 0.5°", "10 of 20 above 0.5"),
    ],
)
def test_numbers_stay_only_where_each_stands_by_itself(text: str, left: str) -> None:
    words = re.compile(r"\w[\w.]*\b")
    assert words.findall(harmless(text, Traces())) == words.findall(left)


def test_what_the_table_does_not_name_goes_or_keeps_its_harmless_words(tmp_path: Path) -> None:
    source = ct_slice(0)
    source.PatientBirthDateInAlternativeCalendar, source.PatientAlternativeCalendar = "S36.02.03", "JAPANESE"
    source.IssuerOfPatientIDQualifiersSequence = [item(UniversalEntityID="1.2.3.4.5678", UniversalEntityIDType="ISO")]
    source.IssuerOfAccessionNumberSequence = [item(LocalNamespaceEntityID="ELSEWHERE")]
    source.OrderPlacerIdentifierSequence = [item(LocalNamespaceEntityID="ELSEWHERE")]
    source.PatientBodyMassIndex, source.NTPSourceAddress, source.DoseComment = 41.5, "10.20.30.40", "for Mr. Jones"
    source.AcquisitionProtocolName, source.ReconstructionDescription = "Dr. Jones protocol", "Jones"
    source.ConvolutionKernel, source.Manufacturer, source.RescaleType = "H30s", "Siemens", "HU"
    run(tmp_path, save(tmp_path / "in", source))
    (made,) = exported(tmp_path / "out")
    gone = ("PatientBirthDateInAlternativeCalendar", "PatientAlternativeCalendar", "IssuerOfPatientIDQualifiersSequence", "IssuerOfAccessionNumberSequence")
    for keyword in (*gone, "OrderPlacerIdentifierSequence", "PatientBodyMassIndex", "NTPSourceAddress", "DoseComment", "ReconstructionDescription"):
        assert keyword not in made, keyword
    assert made.AcquisitionProtocolName.strip(" .") == "protocol"
    assert (made.ConvolutionKernel, made.Manufacturer, made.RescaleType) == ("H30s", "Siemens", "HU")
    run(tmp_path, tmp_path / "in", Options(retain_patient_characteristics=True), out="more")
    assert exported(tmp_path / "more")[0].PatientBodyMassIndex == 41.5


def test_uids_of_kinds_and_of_coding_schemes_stay(tmp_path: Path) -> None:
    source = ct_slice(0)
    source.AnatomicRegionSequence = [item(CodeValue="X1", CodingSchemeDesignator="99LOCAL", CodeMeaning="head", ContextUID="1.2.3.4.1")]
    source.CodingSchemeIdentificationSequence = [item(CodingSchemeDesignator="UCUM", CodingSchemeUID="2.16.840.1.113883.6.8")]
    source.ReferencedImageSequence = [item(ReferencedSOPClassUID="1.3.12.2.1107.5.9.1", ReferencedSOPInstanceUID="1.2.3.4.2")]
    run(tmp_path, save(tmp_path / "in", source))
    (made,) = exported(tmp_path / "out")
    assert made.AnatomicRegionSequence[0].ContextUID == "1.2.3.4.1"
    assert made.CodingSchemeIdentificationSequence[0].CodingSchemeUID == "2.16.840.1.113883.6.8"
    assert made.ReferencedImageSequence[0].ReferencedSOPClassUID == "1.3.12.2.1107.5.9.1"
    assert made.ReferencedImageSequence[0].ReferencedSOPInstanceUID != "1.2.3.4.2"


def test_names_without_blanks_and_dates_that_begin_with_the_day_are_found_in_kept_texts(tmp_path: Path) -> None:
    source = telling("Yamada^Tarou=山田^太郎", "ISO_IR 192")
    source.Manufacturer, source.SoftwareVersions = "made for 山田太郎様", ["of 3.2.1961", "of 03.02.1961", "of 03/02/61", "7.1"]
    report = run(tmp_path, save(tmp_path / "in", source))
    assert report.written == 1
    (made,) = exported(tmp_path / "out")
    assert made.Manufacturer == "made for REMOVEDREMOVED様"
    assert list(made.SoftwareVersions) == ["of REMOVED", "of REMOVED", "of REMOVED", "7.1"]


def test_a_name_in_other_letters_that_would_stay_is_found_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = telling("Yamada^Tarou=山田^太郎", "ISO_IR 192")
    source.Manufacturer = "made for 山田様"
    monkeypatch.setattr("pacs_node.workbench.deidentify.cleaning.scrubbed", lambda text, traces: text.replace("Mustermann", ""))
    source.ManufacturerModelName = "1"
    report = run(tmp_path, save(tmp_path / "in", source), ALL)
    assert report.written == 0 and "PatientName" in report.left_out[0].reason


def test_a_placeholder_of_a_birth_date_refuses_nothing(tmp_path: Path) -> None:
    source = report_on(*subject())
    source.ContentDate, source.PatientBirthDate = "20260102", "19000101"
    report = run(tmp_path, save(tmp_path / "in", source))
    assert (report.written, report.left_out) == (1, [])
    (made,) = exported(tmp_path / "out")
    assert (made.ContentDate, made.PatientBirthDate) == ("19000101", "")


def test_a_newborn_imaged_on_the_day_of_birth_is_exported_with_dates(tmp_path: Path) -> None:
    report = run(tmp_path, save(tmp_path / "in", ct_slice(0, PatientBirthDate="20260102")), Options(dates=Dates.KEEP))
    assert (report.written, report.left_out) == (1, [])
    (made,) = exported(tmp_path / "out")
    assert (made.StudyDate, made.PatientBirthDate) == ("20260102", "")


def test_a_patient_called_long_loses_the_word_in_the_descriptions(tmp_path: Path) -> None:
    source = telling("Long^Axial")
    source.SeriesDescription = "long axial head"
    run(tmp_path, save(tmp_path / "in", source), Options(clean_descriptors=True))
    assert exported(tmp_path / "out")[0].SeriesDescription == "head"


@pytest.mark.parametrize(
    ("region", "description", "warned", "marked"),
    [
        ("HEAD", "", True, "YES"),
        ("CHEST", "", False, None),
        ("", "", True, None),
        ("", "MRT", True, None),
        ("", "t1_mprage_sag", True, "YES"),
        ("", "sella", True, "YES"),
        ("", "LWS sag", False, None),
        ("CHEST", "head and chest", True, "YES"),
    ],
)
def test_heads_are_warned_of(tmp_path: Path, region: str, description: str, warned: bool, marked: str | None) -> None:
    source = ct_slice(0, BodyPartExamined=region, StudyDescription="", SeriesDescription=description)
    report = run(tmp_path, save(tmp_path / "in", source))
    assert any("face" in warning for warning in report.warnings) is warned
    assert exported(tmp_path / "out")[0].get("RecognizableVisualFeatures") == marked


# --- where it goes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("source", "out"), [("in", "in"), ("in", "in/out"), ("in/deep", "in"), ("in", "data/out")])
def test_originals_and_what_is_exported_do_not_lie_in_each_other(tmp_path: Path, source: str, out: str) -> None:
    folder = save(tmp_path / source, ct_slice(0))
    with pytest.raises(InputError, match="must not lie in each other"):
        run(tmp_path, folder, out=out)
    assert [file.name for file in (tmp_path / "in").rglob("*") if file.is_file()] == ["0.dcm"]


def test_an_object_that_was_exported_otherwise_is_not_replaced(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", ct_slice(0))
    run(tmp_path, folder)
    assert run(tmp_path, folder).left_out == []
    before = exported(tmp_path / "out")
    with pytest.raises(InputError, match="another folder with --out"):
        run(tmp_path, folder, Options(dates=Dates.KEEP))
    save(folder, ct_slice(0, SliceThickness=7))
    report = run(tmp_path, folder)
    assert report.written == 0 and "another folder with --out" in report.left_out[0].reason
    assert exported(tmp_path / "out") == before


def test_one_damaged_object_does_not_end_the_export(tmp_path: Path) -> None:
    damaged = ct_slice(0)
    damaged.AnatomicRegionSequence = concept("T-D1100", "Head", "SRT")
    folder = save(tmp_path / "in", damaged, ct_slice(1))
    data = (folder / "0.dcm").read_bytes()
    place = data.index(b"\x08\x00\x18\x22SQ") + 8
    (folder / "0.dcm").write_bytes(data[:place] + b"\x07\x00\x00\x00" + data[place + 4 :])
    report = run(tmp_path, folder)
    assert report.written >= 1
    assert all(one.reason for one in report.left_out) and report.written + len(report.left_out) == 2


def test_a_dicom_file_that_is_cut_off_is_named_and_other_files_are_not(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", ct_slice(0), ct_slice(1))
    (folder / "1.dcm").write_bytes((folder / "1.dcm").read_bytes()[:300])
    (folder / "readme.txt").write_text("no DICOM")
    report = run(tmp_path, folder)
    assert [Path(one.source).name for one in report.left_out] == ["1.dcm"]
    assert report.written == 1


def test_a_folder_that_cannot_be_written_ends_the_export_and_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, to: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pacs_node.workbench.exporting.os.replace", full)
    with pytest.raises(InputError, match="No space left on device"):
        run(tmp_path, save(tmp_path / "in", ct_slice(0), ct_slice(1)))
    assert [file for file in (tmp_path / "out").rglob("*") if file.is_file()] == []
    with sqlite3.connect(tmp_path / "map.db") as database:  # what left, or was about to, can be found back
        assert database.execute("SELECT new FROM uids WHERE old = ?", [ct_slice(0).SOPInstanceUID]).fetchone()


def test_a_map_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", ct_slice(0))
    with pytest.raises(InputError, match="is no file"):
        run(tmp_path, folder, map_file=".")
    with Pseudonyms(tmp_path / "map.db") as opened:
        opened._database.execute("PRAGMA query_only = 1")
        opened.uid("1.2.3")
        with pytest.raises(InputError, match="cannot be written"):
            opened.save()
        opened._database.execute("PRAGMA query_only = 0")


# --- what a folder is filled with, and where that is written down ------------------------------------------------------------


def test_a_folder_is_not_filled_with_what_other_options_make(tmp_path: Path) -> None:
    first, second = save(tmp_path / "one", telling()), save(tmp_path / "two", ct_slice(0, study="B"))
    assert run(tmp_path, first, Options(retain_uids=True)).written == 1
    with pytest.raises(InputError, match=r"other options \(--dates remove --retain-uids\) than these \(--dates shift\): name another folder with --out"):
        run(tmp_path, second, Options(dates=Dates.SHIFT))
    assert len(exported(tmp_path / "out")) == 1
    assert run(tmp_path, second, Options(retain_uids=True)).written == 1, "the same options go on"
    assert run(tmp_path, second, Options(dates=Dates.SHIFT), out="elsewhere").written == 1
    shutil.rmtree(tmp_path / "out")
    assert run(tmp_path, second, Options(dates=Dates.SHIFT)).written == 1, "an emptied folder begins anew"


def test_a_folder_that_another_map_has_filled_is_warned_of(tmp_path: Path) -> None:
    source = save(tmp_path / "in", ct_slice(0))
    run(tmp_path, source)
    told = run(tmp_path, source, map_file="other.db")
    assert [warning for warning in told.warnings if "held files before" in warning and "other.db" in warning]


def test_an_export_of_a_folder_says_where_there_is_no_audit_table(tmp_path: Path) -> None:
    told = run(tmp_path, save(tmp_path / "in", ct_slice(0)))
    assert [warning for warning in told.warnings if "written into no audit table" in warning and str(tmp_path / "data") in warning]


# --- encodings that switch between sets of characters ------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["iso2022_jp", "iso2022_jp_2"])
@pytest.mark.parametrize("written", ["山田", "病山田太郎院", "Yamada=山田^太郎", "この山田太郎です"])
def test_a_name_is_found_in_bytes_that_switch_between_sets_of_characters(written: str, encoding: str) -> None:
    traces = Traces(texts={"山田太郎" if "太郎" in written and "^" not in written else "山田"}, encodings={"utf-8", encoding})
    data = b"\0\1LO" + written.encode(encoding) + b"\0"
    assert traces.left_in(data) == "an attribute"
    assert Traces(texts={"佐藤一郎"}, encodings=traces.encodings).left_in(data) == ""


@pytest.mark.parametrize(("name", "character_set"), [one for one in NAMES if not one[0].isascii()])
@pytest.mark.parametrize("around", ["{}", "(病{}院)"])
def test_a_name_that_was_left_by_mistake_is_found_whatever_it_is_encoded_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, character_set: str, around: str
) -> None:
    part = max((one for one in re.split(r"[=^]", name) if not one.isascii()), key=len)
    if character_set in ("ISO_IR 100", "ISO_IR 144", "\\ISO 2022 IR 149"):
        around = around.replace("病", "").replace("院", "")  # it has no such letters
    clean = Cleaner.clean

    def forgetful(self: Cleaner, dataset: Dataset, *, pixels: bool = False) -> None:
        clean(self, dataset, pixels=pixels)
        dataset.SpecificCharacterSet, dataset.ImageComments = character_set.split("\\"), around.format(part)

    monkeypatch.setattr(Cleaner, "clean", forgetful)
    told = run(tmp_path, save(tmp_path / "in", telling(name, character_set)))
    assert told.written == 0 and "still stood" in told.left_out[0].reason


def test_the_character_set_of_an_item_counts(tmp_path: Path) -> None:
    source = ct_slice(0)
    source.RequestAttributesSequence = [item(SpecificCharacterSet=["", "ISO 2022 IR 87"], RequestedProcedureID="RP-1")]
    assert "iso2022_jp" in traces_of(source, Options()).encodings
