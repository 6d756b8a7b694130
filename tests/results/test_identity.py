"""Whom results belong to, who made them, and when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.config import Equipment
from pacs_node.dicom.header import made_by
from pacs_node.dicom.uids import is_valid_uid, node_device_uid
from pacs_node.records import Sources
from pacs_node.results import build
from pacs_node.results.files import encode
from pacs_node.results.identity import copied_element, copy_identity, local_time
from pacs_node.results.modules import TYPE_2
from tests.results.studies import ALGORITHM, Shape, header, received, request

KINDS = ("pm", "sc", "sr")
QUICK = ("pm", "sr")  # the pictures take their time, and get patient and study from the same function


def built(**options):
    return {made.kind: made.dataset for made in build(request(**options))}


def shaped(**attributes):
    return Shape(slices=2, attributes=attributes)


@pytest.fixture(scope="module")
def plain():
    return built(shape=Shape(slices=2), kinds=KINDS)


# --- patient and study -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"])
def test_patient_and_study_are_the_sources(keyword, plain):
    assert all(result[keyword] == header(Shape(slices=2), 0)[keyword] for result in plain.values())


CHARACTER_SETS = [
    ("ISO_IR 100", "Müller^Jürgen"),
    ("ISO_IR 192", "Wang^XiaoDong=王^小东"),
    (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    ("ISO_IR 144", "Люкceмбypг"),
    (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    ("GB18030", "Wang^XiaoDong=王^小东"),
]


@pytest.mark.parametrize(("character_set", "name"), CHARACTER_SETS)
def test_names_keep_their_bytes_in_every_character_set(character_set, name):
    shape = shaped(SpecificCharacterSet=character_set, PatientName=name, StudyDescription="CT")
    made = request(shape, kinds=("sr",))
    sources = tuple(received(one) for one in made.sources.analysed)
    name_bytes = dcmread(BytesIO(encode(sources[0]))).get_item("PatientName").value
    for result in build(replace(made, sources=Sources(sources))):
        stored = dcmread(BytesIO(encode(result.dataset)))
        assert stored.get_item("PatientName").value.rstrip() == name_bytes.rstrip()
        assert str(stored.PatientName) == name


@pytest.mark.parametrize("missing", TYPE_2)
def test_what_the_source_lacks_of_type_2_is_added_empty(missing):
    (result,) = built(shape=shaped(**{missing: None}), kinds=("sr",)).values()
    assert missing in result and not result[missing].value


def test_the_source_itself_is_not_changed():
    made = request(shaped(PatientSex=None, DeidentificationMethod=""), kinds=QUICK)
    before = [encode_header(one) for one in made.sources.analysed]
    build(made)
    assert [encode_header(one) for one in made.sources.analysed] == before


def encode_header(dataset):
    buffer = BytesIO()
    dataset.save_as(buffer, implicit_vr=False, little_endian=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("removed", "method", "written"),
    [("NO", "", None), (None, "", None), ("YES", "", "not stated by the source"), ("YES", "by hand", "by hand"), ("YES", None, None)],
)
def test_an_empty_deidentification_method_never_stays_empty(removed, method, written):
    result = Dataset()
    copy_identity(result, header(shaped(PatientIdentityRemoved=removed, DeidentificationMethod=method), 0))
    assert result.get("DeidentificationMethod") == written


def test_an_unreadable_attribute_is_left_out_instead_of_stopping_the_results():
    broken = received(header(shaped(PatientWeight="71"), 0))
    broken._dict[0x00101030] = broken.get_item("PatientWeight")._replace(VR="??")
    assert copied_element(broken, "PatientWeight") is None
    result = Dataset()
    copy_identity(result, broken)
    assert "PatientWeight" not in result and result.PatientID == "P-1"


def test_synthetic_data_stays_marked_as_such():
    assert all(result.SyntheticData == "YES" for result in built(shape=shaped(SyntheticData="YES"), kinds=QUICK).values())
    assert not any("SyntheticData" in result for result in built(shape=shaped(), kinds=QUICK).values())


def test_texts_of_ours_that_the_character_set_cannot_hold_are_written_in_ascii():
    made = request(shaped(SpecificCharacterSet=None), kinds=QUICK)
    found = replace(made.finding, algorithm=replace(ALGORITHM, name="Schädel"), remarks=("zwei Schichten fehlen: 山",))
    for result in build(replace(made, finding=found)):
        assert "Schadel" in result.dataset.SeriesDescription
        encode(result.dataset).decode("ascii", "ignore")
        assert "Schädel".encode() not in encode(result.dataset)


def test_texts_of_ours_that_the_character_set_can_hold_are_kept():
    made = request(shaped(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎"), kinds=("sr",))
    (result,) = build(replace(made, finding=replace(made.finding, remarks=("頭部 2 枚",))))
    stored = dcmread(BytesIO(encode(result.dataset)))
    (text,) = [item.TextValue for item in stored.ContentSequence if item.ConceptNameCodeSequence[0].CodeMeaning == "Summary"]
    assert text.endswith("Remark: 頭部 2 枚")


@pytest.mark.parametrize("character_set", ["ISO_IR 999", "ISO_IR_100", "UTF8", ["ISO_IR 192", "ISO 2022 IR 87"], ""])
def test_an_odd_character_set_stops_nothing(character_set):
    made = request(shaped(SpecificCharacterSet=character_set), kinds=QUICK)
    sources = tuple(received(one) for one in made.sources.analysed)
    for result in build(replace(made, sources=Sources(sources))):
        assert dcmread(BytesIO(encode(result.dataset))).PatientName == "Phantom^Test"


# --- dates -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "zone", "date", "time"),
    [
        ("+0100", None, "20260204", "003015.250000"),
        ("-0530", "Europe/Berlin", "20260203", "180015.250000"),
        (None, "Asia/Tokyo", "20260204", "083015.250000"),
        (None, "UTC", "20260203", "233015.250000"),
        ("nonsense", "UTC", "20260203", "233015.250000"),
    ],
)
def test_times_are_told_as_the_study_tells_them(offset, zone, date, time):
    made = replace(request(shaped(TimezoneOffsetFromUTC=offset), kinds=QUICK), timezone=zone)
    for result in build(made):
        data = result.dataset
        assert {data.ContentDate, data.SeriesDate, data.InstanceCreationDate} == {date}
        assert {data.ContentTime, data.SeriesTime, data.InstanceCreationTime} == {time}
        assert data.get("TimezoneOffsetFromUTC") == (offset if offset != "nonsense" else None)


def test_without_any_zone_the_systems_is_used():
    made = replace(request(Shape(slices=2)), timezone=None)
    assert local_time(made).utcoffset() == datetime(2026, 2, 3, 23, 30, 15, tzinfo=UTC).astimezone().utcoffset()


def test_no_date_or_time_of_an_object_is_of_the_present():
    made = request(Shape(slices=2), kinds=QUICK)
    present = f"{datetime.now(UTC):%Y}"
    for result in build(replace(made, run=replace(made.run, created_at=made.run.created_at - timedelta(days=20 * 365)))):
        own = [element for element in result.dataset.iterall() if element.VR in ("DA", "DT") and not element.keyword.startswith(("Study", "Patient"))]
        assert own and not any(str(element.value).startswith(present) for element in own if element.keyword != "Date")


# --- UIDs --------------------------------------------------------------------------------------------------------------


def uids(made):
    return {(result.kind, result.sop_uid, str(result.dataset.SeriesInstanceUID)) for result in build(made)}


def variations():
    made = request(Shape(slices=2), kinds=QUICK)
    run, found = made.run, made.finding
    yield "node", replace(made, run=replace(run, node_name="node-2"))
    yield "run number", replace(made, run=replace(run, number=2))
    yield "variant", replace(made, run=replace(run, variant="sr"))
    yield "pipeline", replace(made, run=replace(run, pipeline="other"))
    yield "job's time", replace(made, run=replace(run, created_at=run.created_at + timedelta(seconds=1)))
    yield "series", replace(made, finding=replace(found, volume=replace(found.volume, series_uid="1.2.3")))
    for name in ("bundle_hash", "config_hash", "calibration_hash"):
        yield name, replace(made, finding=replace(found, algorithm=replace(ALGORITHM, **{name: "0" * 64})))


@pytest.fixture(scope="module")
def first():
    return uids(request(Shape(slices=2), kinds=QUICK))


@pytest.mark.parametrize(("what", "other"), [pytest.param(*pair, id=pair[0]) for pair in variations()])
def test_another_fact_gives_other_uids(first, what, other):
    second = uids(other)
    assert not {one[1] for one in first} & {one[1] for one in second}
    assert not {one[2] for one in first} & {one[2] for one in second}


def test_uids_are_valid_and_under_the_configured_root():
    made = replace(request(Shape(slices=2), kinds=QUICK), uid_root="1.2.826.0.1")
    for result in build(made):
        for uid in (result.sop_uid, str(result.dataset.SeriesInstanceUID)):
            assert is_valid_uid(uid) and uid.startswith("1.2.826.0.1.")


# --- equipment ---------------------------------------------------------------------------------------------------------


def test_every_object_names_the_algorithm_and_this_node_as_contributing_equipment(plain):
    for result in plain.values():
        algorithm, node = result.ContributingEquipmentSequence
        assert (algorithm.ManufacturerModelName, algorithm.SoftwareVersions, algorithm.DeviceUID) == ("ct-head", "1.2.0", ALGORITHM.device_uid)
        assert node.DeviceUID == node_device_uid("node-1")
        assert {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in (algorithm, node)} == {"109102"}
        assert made_by(result, node_device_uid("node-1"))


def test_equipment_is_never_empty_and_is_that_of_the_configuration():
    made = replace(request(Shape(slices=2), kinds=QUICK), equipment=Equipment(manufacturer="Hospital IT", serial="S-9", institution="Clinic"))
    for result in build(made):
        data = result.dataset
        assert (data.Manufacturer, data.DeviceSerialNumber, data.InstitutionName) == ("Hospital IT", "S-9", "Clinic")
        assert data.ManufacturerModelName == "pacs-node" and data.SoftwareVersions


def test_each_kind_has_its_own_series_that_names_algorithm_and_version(plain):
    results = plain
    assert len({result.SeriesInstanceUID for result in results.values()}) == 3
    assert len({result.SeriesNumber for result in results.values()}) == 3
    assert all(result.SeriesDescription.startswith("ct-head 1.2.0 anomaly") for result in results.values())


def test_a_second_run_says_its_number_and_time_in_the_series():
    made = request(Shape(slices=2), kinds=QUICK)
    for result in build(replace(made, run=replace(made.run, number=2))):
        assert result.dataset.SeriesDescription.endswith(", run 2 2026-02-03 23:30")


def test_a_long_algorithm_name_is_cut_but_never_the_run():
    made = request(Shape(slices=2), kinds=("sr",))
    long = replace(made.finding, algorithm=replace(ALGORITHM, name="n" * 80))
    (result,) = build(replace(made, finding=long, run=replace(made.run, number=12)))
    assert len(result.dataset.SeriesDescription) <= 64 and "run 12" in result.dataset.SeriesDescription


def test_each_iod_has_its_modality(plain):
    assert {kind: result.Modality for kind, result in plain.items()} == {"pm": "CT", "sc": "OT", "sr": "SR"}
