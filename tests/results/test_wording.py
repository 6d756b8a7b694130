"""What results say, in words."""

from dataclasses import replace
from datetime import date

import pytest

from pacs_node.records import Calibration, Plane, Population, Verdict
from pacs_node.results import wording
from tests.results.studies import CALIBRATION, RUN, Shape, finding, header


@pytest.fixture
def found():
    shape = Shape()
    return finding(shape, tuple(header(shape, index) for index in range(shape.slices)))


def test_the_first_sentence_says_score_and_verdict(found):
    assert wording.summary(found, RUN).startswith("Anomaly score 3.217: above the threshold 2.5. AI, research use, not for diagnosis.")


def test_an_uncalibrated_finding_gets_no_percentile_and_no_threshold(found):
    bare = replace(found, verdict=Verdict.UNCALIBRATED, calibration=None, percentile=None, p_value=None)
    text = wording.summary(bare, RUN)
    assert text.startswith("Anomaly score 3.217: uncalibrated. ")
    assert "Uncalibrated here: no percentile, p-value or verdict." in text
    assert "2.5" not in text and "99.2" not in text


@pytest.mark.parametrize(
    ("population", "words"),
    [(Population.SITE, "120 studies of this site"), (Population.SYNTHETIC, "120 synthetic studies"), (Population.FOREIGN, "120 studies of another site")],
)
def test_the_population_of_a_calibration_is_named(found, population, words):
    text = wording.summary(replace(found, calibration=replace(CALIBRATION, population=population)), RUN)
    assert f"Percentile 99.2 of {words}, p = 0.0083." in text


def test_a_calibration_is_told_with_size_date_and_promise():
    line = wording.calibration_line(Calibration(Population.SITE, 87, 1.0, 0.05, date(2026, 3, 1)))
    assert line == "87 studies of this site, 2026-03-01, at most 5 % false alarms (95 % confidence)"


def test_a_calibration_on_this_scanner_alone_is_told(found):
    alone = replace(CALIBRATION, scanner="ACME SCAN 3, station CT1, HEAD")
    assert wording.calibration_line(alone).startswith("120 studies of this site, this scanner and body region, 2026-01-15, at most 10 %")
    assert "Percentile 99.2 of 120 studies of this site, this scanner and body region, p = 0.0083." in wording.summary(replace(found, calibration=alone), RUN)


def test_a_partial_study_is_called_partial(found):
    text = wording.summary(found, replace(RUN, partial=True, complete_reason="the deadline of 2 h passed"))
    assert "PARTIAL study: the deadline of 2 h passed" in text


@pytest.mark.parametrize(
    ("text", "plain"),
    [("plain", "plain"), ("Größe · −3", "Grosse - -3"), ("é", "e"), ("p ≤ 0.05", "p <= 0.05"), ("山田", "??"), ("²", "2")],
)
def test_texts_can_be_written_in_ascii(text, plain):
    assert wording.to_ascii(text) == plain


@pytest.mark.parametrize(
    ("character_set", "text", "written"),
    [
        ("ISO_IR 192", "Größe 山田", "Größe 山田"),
        ("ISO_IR 100", "Größe", "Größe"),
        ("ISO_IR 100", "山田", "??"),
        ("", "Größe", "Grosse"),
        (None, "é", "e"),
        (["", "ISO 2022 IR 87"], "山田", "山田"),
        ("ISO_IR 999", "plain", "plain"),
    ],
)
def test_our_texts_stay_as_they_are_only_where_the_character_set_holds_them(character_set, text, written):
    assert wording.fit(text, wording.encodings_of(character_set)) == written


@pytest.mark.parametrize(
    ("text", "line"),
    [("a\\b", "a/b"), ("  two\nlines\t", "two lines"), ("x" * 70, "x" * 61 + "..."), ("x" * 64, "x" * 64)],
)
def test_a_long_string_is_one_line_of_at_most_64_characters_without_backslash(text, line):
    assert wording.one_line(text) == line


@pytest.mark.parametrize(
    ("orientation", "position", "along"),
    [
        ((1, 0, 0, 0, 1, 0), (-10.0, -20.0, 33.5), 33.5),
        ((0, 1, 0, 0, 0, -1), (12.0, 0.0, 0.0), -12.0),
        ((1, 0, 0, 0, 0, -1), (0.0, 7.0, 0.0), 7.0),
    ],
)
def test_the_position_of_a_slice_is_counted_along_its_normal(orientation, position, along):
    assert wording.through_plane(Plane(position, orientation, (1.0, 1.0))) == pytest.approx(along)


def test_top_slices_are_named_by_number_position_and_score(found):
    assert wording.top_slices(found)[0].line == "slice 4 of 6, position +15.0 mm, slice score 3.564"


def test_a_slice_without_a_place_in_the_patient_is_named_by_its_number(found):
    nowhere = replace(found, planes=(None,) * len(found.planes))
    assert wording.top_slices(nowhere)[0].name == "slice 4 of 6"
