"""Every form of a condition, over one instance and several, single-frame and enhanced."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from pacs_node.routing import SeriesView
from pacs_node.routing.compiling import ConditionFault, compile_when
from pacs_node.routing.conditions import Line

FACTS: dict[str, Any] = {
    "BodyPartExamined": "Head ",
    "StudyDescription": "CT Brain w/o contrast",
    "ProtocolName": "T1 weighted",
    "SliceThickness": "5.0",
    "SeriesNumber": "12",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "PatientName": "Doe^Jane^^",
    "PatientAge": "018M",
    "StudyDate": "20240131",
    "StudyTime": "223015.5",
    "BurnedInAnnotation": "NO",
    "StudyID": "0012",
    "ContrastBolusAgent": "",
    "StationName": "Röntgen 1",
}

TABLE = [
    ({"Modality": "CT"}, True),
    ({"Modality": " ct "}, True),
    ({"Modality": "MR"}, False),
    ({"BodyPartExamined": "HEAD"}, True),
    ({"BodyPartExamined": {"any_of": ["brain", "head"]}}, True),
    ({"BodyPartExamined": {"any_of": ["CHEST", "ABDOMEN"]}}, False),
    ({"StudyDescription": {"contains": "BRAIN"}}, True),
    ({"StudyDescription": {"contains": "spine"}}, False),
    ({"ProtocolName": {"matches": "t[12].*"}}, True),
    ({"ProtocolName": {"matches": "T1"}}, False),  # the whole value has to match
    ({"SliceThickness": 5}, True),
    ({"SliceThickness": "5.00"}, True),
    ({"SliceThickness": {"min": 5, "max": 5}}, True),
    ({"SliceThickness": {"max": 4.99}}, False),
    ({"SliceThickness": {"min": "5.01"}}, False),
    ({"SliceThickness": {"matches": "5"}}, True),
    ({"SeriesNumber": {"any_of": [11, 12]}}, True),
    ({"SeriesNumber": {"min": 9}}, True),  # by magnitude, not by letters
    ({"ImageType": "PRIMARY"}, True),  # any of the values
    ({"ImageType": {"contains": "LOCALIZER"}}, False),
    ({"PatientName": "doe^jane"}, True),
    ({"PatientAge": {"max": 2}}, True),  # months
    ({"PatientAge": {"min": "002Y"}}, False),
    ({"StudyDate": {"min": "20240101"}}, True),
    ({"StudyDate": {"max": date(2024, 1, 30)}}, False),
    ({"StudyTime": {"min": "22:00", "max": "23:00"}}, True),
    ({"StudyTime": {"max": "06:00"}}, False),
    ({"BurnedInAnnotation": False}, True),
    ({"BurnedInAnnotation": True}, False),
    ({"StudyID": "0012"}, True),
    ({"StudyID": "12"}, False),  # text keeps its zeros
    ({"StationName": "RÖNTGEN 1"}, True),
    ({"StationName": {"contains": "ro\u0308ntgen"}}, True),  # decomposed
    ({"ContrastBolusAgent": {"present": False}}, True),  # empty is not there
    ({"ContrastBolusAgent": {"present": True}}, False),
    ({"StationName": {"present": True}}, True),
    ({"StationName": {"present": "false"}}, False),
    ({"KVP": {"max": 1000}}, False),  # missing fails every form
    ({"KVP": {"contains": "1"}}, False),
    ({"KVP": {"present": False}}, True),
    ({"not": {"KVP": {"max": 1000}}}, True),
    ({"not": {"Modality": "CT"}}, False),
    ({"not": {"Modality": "CT", "StationName": "other"}}, True),  # not both
    ({"or": [{"Modality": "MR"}, {"StationName": {"contains": "1"}}]}, True),
    ({"or": [{"Modality": "MR"}, {"Modality": "PT"}]}, False),
    ({"and": [{"Modality": "CT"}, {"not": {"or": [{"Modality": "MR"}, {"Modality": "PT"}]}}]}, True),
    ({"Modality": "CT", "BodyPartExamined": "CHEST"}, False),  # implicit and
    ({"CalledAETitle": "pacs_node"}, True),
    ({"CallingAETitle": {"any_of": ["CT1", "CT2"]}}, True),
    ({"CallingAETitle": {"matches": "MR.*"}}, False),
    ({"BodyPartExamined": {"contains": "head", "matches": "h.*"}}, True),
    ({"BodyPartExamined": {"contains": "head", "matches": "x.*"}}, False),
]  # fmt: skip


@pytest.mark.parametrize(("when", "expected"), TABLE, ids=lambda value: str(value)[:60])
def test_a_condition_holds_as_its_form_says(series: Callable[..., SeriesView], when: dict[str, Any], expected: bool) -> None:
    condition = compile_when(when)

    assert condition.holds(series(**FACTS)) is expected
    assert all(line.held for line in condition.explain(series(**FACTS)) if line.depth == 0) is expected


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"ImageType": {"contains": "LOCALIZER"}}, True),
        ({"ImageType": {"contains": "LOCALIZER", "all": True}}, False),
        ({"ImageType": {"contains": "ORIGINAL", "all": "true"}}, True),
        ({"SliceThickness": {"max": 6}}, True),
        ({"SliceThickness": {"max": 6, "all": True}}, False),
        ({"SliceThickness": {"min": 6, "max": 6.5}}, False),  # both limits on one instance: neither 5 nor 7 lies between
        ({"not": {"ImageType": {"contains": "LOCALIZER"}}}, False),
        ({"ContrastBolusAgent": {"present": True}}, True),
        ({"ContrastBolusAgent": {"present": True, "all": True}}, False),
        ({"ContrastBolusAgent": {"present": False}}, False),  # one instance has it
        ({"ContrastBolusAgent": {"contains": "iodine", "all": True}}, False),
    ],
    ids=str,
)
def test_a_condition_asks_for_any_instance_unless_all_are_meant(
    series: Callable[..., SeriesView], header: Callable[..., Dataset], when: dict[str, Any], expected: bool
) -> None:
    scout = header(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SliceThickness="7", SeriesInstanceUID="1.2")
    slices = header(ImageType=["ORIGINAL", "PRIMARY", "AXIAL"], SliceThickness="5", ContrastBolusAgent="Iodine", SeriesInstanceUID="1.2")

    assert compile_when(when).holds(series(scout, slices)) is expected


def test_all_conditions_are_asked_of_one_series_but_each_of_any_instance(series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    first, second = header(SliceThickness="5", KVP="80"), header(SliceThickness="1", KVP="120")

    assert compile_when({"SliceThickness": 5, "KVP": 120}).holds(series(first, second))


def test_a_series_without_headers_satisfies_no_condition_on_them() -> None:
    empty = SeriesView("1.2", "CT", 1, "", ())

    assert not compile_when({"Modality": "CT"}).holds(empty)
    assert not compile_when({"Modality": {"contains": "C", "all": True}}).holds(empty)
    assert not compile_when({"CalledAETitle": "PACS_NODE"}).holds(empty)
    assert compile_when({"Modality": {"present": False}}).holds(empty)


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"SliceThickness": {"max": 2}}, True),
        ({"SliceThickness": {"max": 2, "all": True}}, False),
        ({"PixelMeasuresSequence.SliceThickness": 4}, True),
        ({"FrameType": {"contains": "ORIGINAL", "all": True}}, True),
        ({"RequestAttributesSequence.ScheduledProcedureStepID": "B"}, True),
        ({"RequestAttributesSequence.ScheduledProcedureStepID": "C"}, False),
        ({"RequestAttributesSequence": {"present": True}}, True),
        ({"(0029,acme header,10)": "brain"}, True),
        ({"(0029,ACME HEADER,11)": {"min": 3}}, True),
        ({"(0029,ACME HEADER,11)": {"max": 3}}, False),
        ({"(0029,OTHER,10)": {"present": True}}, False),
    ],
    ids=str,
)
def test_sequences_functional_groups_and_private_attributes_are_looked_into(
    series: Callable[..., SeriesView], header: Callable[..., Dataset], when: dict[str, Any], expected: bool
) -> None:
    enhanced = header(NumberOfFrames="2", SeriesInstanceUID="1.2")
    enhanced.SharedFunctionalGroupsSequence = Sequence([_group("CTImageFrameTypeSequence", FrameType=["ORIGINAL", "PRIMARY"])])
    enhanced.PerFrameFunctionalGroupsSequence = Sequence([_group("PixelMeasuresSequence", SliceThickness=mm) for mm in ("1", "4")])
    enhanced.RequestAttributesSequence = Sequence([_item(ScheduledProcedureStepID=step) for step in "AB"])
    block = enhanced.private_block(0x0029, "ACME HEADER", create=True)
    block.add_new(0x10, "LO", "Brain")
    block.add_new(0x11, "UN", b"3.5 ")

    assert compile_when(when).holds(series(enhanced)) is expected


def _item(**attributes: Any) -> Dataset:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _group(macro: str, **attributes: Any) -> Dataset:
    return _item(**{macro: Sequence([_item(**attributes)])})


@pytest.mark.parametrize(
    ("when", "path", "words"),
    [
        ({"Modalty": "CT"}, ("Modalty",), "did you mean Modality?"),
        ({"modality": "CT"}, ("modality",), "did you mean Modality?"),
        ({"(0010,0020)": "1"}, ("(0010,0020)",), "write its keyword PatientID"),
        ({"CalledAEtitle": "X"}, ("CalledAEtitle",), "did you mean CalledAETitle?"),
        ({"Not": {"Modality": "CT"}}, ("Not",), "did you mean not?"),
        ({"Modality": {"equal": "CT"}}, ("Modality", "equal"), "did you mean equals?"),
        ({"Modality": {"regex": "C."}}, ("Modality", "regex"), "the conditions are equals, any_of, contains, matches, min, max, present"),
        ({"Modality": ["CT", "MR"]}, ("Modality",), "any_of"),
        ({"Modality": {"any_of": "CT"}}, ("Modality", "any_of"), "must be a list"),
        ({"Modality": {"any_of": []}}, ("Modality", "any_of"), "at least one value"),
        ({"Modality": None}, ("Modality",), "a value is missing"),
        ({"Modality": ""}, ("Modality",), "{present: false}"),
        ({"Modality": {}}, ("Modality",), "asks for nothing"),
        ({"Modality": {"all": True}}, ("Modality",), "asks for nothing"),
        ({"Modality": {"present": "perhaps"}}, ("Modality", "present"), "true or false"),
        ({"Modality": {"contains": "C", "all": 3}}, ("Modality", "all"), "true or false"),
        ({"Modality": {"min": "A"}}, ("Modality", "min"), "text, which has no order"),
        ({"SliceThickness": "thin"}, ("SliceThickness",), "is not a number"),
        ({"SliceThickness": {"max": "nan"}}, ("SliceThickness", "max"), "is not a number"),
        ({"SliceThickness": {"min": 6, "max": 5}}, ("SliceThickness", "min"), "above max"),
        ({"StudyDate": {"min": "31.01.2024"}}, ("StudyDate", "min"), "a date such as"),
        ({"PatientAge": {"min": "old"}}, ("PatientAge", "min"), "an age such as"),
        ({"(0029,ACME,10)": {"min": "x"}}, ("(0029,ACME,10)", "min"), "is not a number"),
        ({"(0028,ACME,10)": "x"}, ("(0028,ACME,10)",), "private groups are odd"),
        ({"ProtocolName": {"matches": "T[12"}}, ("ProtocolName", "matches"), "is no regular expression"),
        ({"ContrastBolusAgent": {"present": False, "contains": "x"}}, ("ContrastBolusAgent", "present"), "no other condition"),
        ({"RequestAttributesSequence": "x"}, ("RequestAttributesSequence",), "is a sequence"),
        ({"Modality.Manufacturer": "x"}, ("Modality.Manufacturer",), "is no sequence"),
        ({"RequestAttributesSequence.": "x"}, ("RequestAttributesSequence.",), "is no attribute"),
        ({"or": {"Modality": "CT"}}, ("or",), "must be a list"),
        ({"or": [{"Modality": "CT"}, {"Modalti": "CT"}]}, ("or", 1, "Modalti"), "did you mean"),
        ({"or": ["CT"]}, ("or", 0), "must be a mapping"),
        ({"not": [{"Modality": "CT"}]}, ("not",), "not: {or:"),
        ({"not": {}}, ("not",), "must be a mapping"),
        ({}, (), "must be a mapping"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_cannot_be_compiled_names_the_place_and_the_remedy(when: dict[str, Any], path: tuple[str | int, ...], words: str) -> None:
    with pytest.raises(ConditionFault) as caught:
        compile_when(when)

    assert caught.value.path == path
    assert words in caught.value.problem


def test_an_explanation_says_what_was_wanted_and_found(series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    members = [header(SliceThickness=mm, SeriesInstanceUID="1.2") for mm in ("7", "7", "4")] + [header(SeriesInstanceUID="1.2")]

    lines = compile_when({"SliceThickness": {"min": 1, "max": 5}, "not": {"KVP": 120}}).explain(series(*members))

    assert lines == [
        Line("SliceThickness", "is at least 1 and is at most 5", "7, 4", True, "true of 1 of 4 instances, no value in 1", 0),
        Line("not", "this does not hold", "", True, "", 0),
        Line("KVP", "is 120", "", False, "no value in any of 4 instances", 1),
    ]


def test_an_explanation_shows_the_alternatives_and_not_more_than_a_few_values(series: Callable[..., SeriesView], header: Callable[..., Dataset]) -> None:
    members = [header(InstanceNumber=str(number), SeriesInstanceUID="1.2") for number in range(1, 10)]
    condition = compile_when({"or": [{"InstanceNumber": {"max": 2}}, {"Modality": "CT", "KVP": 80}]})

    lines = condition.explain(series(*members))

    assert [(line.key, line.depth, line.held) for line in lines] == [
        ("or", 0, True), ("InstanceNumber", 1, True), ("and", 1, False), ("Modality", 2, False), ("KVP", 2, False),
    ]  # fmt: skip
    assert lines[0].why == "1 of 2 hold"
    assert lines[1].found == "1, 2, 3, 4, 5 and 4 more"
