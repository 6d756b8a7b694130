"""Odd studies: whatever is missing, broken or too long, the objects are valid and belong to the patient as received."""

from dataclasses import replace
from io import BytesIO
from itertools import product

import numpy as np
import pytest
from pydicom import dcmread

from pacs_node.config import Equipment
from pacs_node.records import Sources
from pacs_node.results import build, check_all
from pacs_node.results.files import encode
from tests.results.everything import KINDS, verdicts
from tests.results.studies import RUN, Shape, received, request

FILLER = "NAME^WHICH^IS^REPLACED^BY^THE^BYTES^OF^THE^CASE^IN^EVERY^FILE^"  # of an even length, longer than any of them


def asked(**attributes):
    """Return a request for all kinds of a small study with attributes in all headers, as they are read from files."""
    made = request(Shape(slices=4, attributes=attributes), kinds=KINDS)
    return replace(made, sources=Sources(tuple(map(received, made.sources.analysed)), tuple(map(received, made.sources.others))))


def with_bytes(character_set, content):
    """Return a request for a study whose patient's name consists of these very bytes."""
    made = asked(SpecificCharacterSet=character_set, PatientName=FILLER)

    def reread(header):
        stored = encode(header)
        assert stored.count(FILLER.encode()) == 1
        return dcmread(BytesIO(stored.replace(FILLER.encode(), content.ljust(len(FILLER)))))

    return replace(made, sources=Sources(tuple(map(reread, made.sources.analysed)), tuple(map(reread, made.sources.others))))


SETS = {
    "Japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう", "iso2022_jp"),
    "Japanese, half-width": ("ISO_IR 13", "ﾔﾏﾀﾞ^ﾀﾛｳ", "shift_jis"),
    "GB18030": ("GB18030", "Wang^XiaoDong=王^小东", "GB18030"),
    "GBK": ("GBK", "Wang^XiaoDong=王^小东", "GBK"),
    "UTF-8": ("ISO_IR 192", "Wang^XiaoDong=王^小东", "utf-8"),
    "Cyrillic": ("ISO_IR 144", "Люкceмбypг", "iso8859_5"),
    "Greek": ("ISO_IR 126", "Διονυσιος", "iso8859_7"),
    "Arabic": ("ISO_IR 127", "قباني^لنزار", "iso8859_6"),
    "Hebrew": ("ISO_IR 138", "שרון^דבורה", "iso8859_8"),
    "Thai": ("ISO_IR 166", "นามสกุล", "iso8859_11"),
    "Latin-1": ("ISO_IR 100", "Buc^Jérôme", "latin-1"),
    "Latin-2": ("ISO_IR 101", "Wałęsa", "iso8859_2"),
}
BROKEN = {
    "UTF-8 bytes in Latin-1": ("ISO_IR 100", "Müller^Jürgen".encode()),
    "eight-bit bytes without a character set": (None, "Müller^Jürgen".encode("latin-1")),
    "an unknown character set": ("ISO_IR 999", "Müller".encode("latin-1")),
    "an escape sequence that leads nowhere": (["", "ISO 2022 IR 87"], b"Yamada^Tarou=\x1b$Z\x3b\x33"),
    "a control character": ("ISO_IR 100", b"M\x01ller\x07^J"),
}


def source_of(made, folder):
    """Write a header of the study, so that what a judge says of it, too, is inherited: dciodvfy knows neither ISO_IR 13 nor GBK, nor the groups of a name."""
    path = folder / "source.in"
    path.write_bytes(encode(received(made.header)))
    return path


def name_in(dataset):
    """Return the bytes of the patient's name in a dataset as it would be sent."""
    stored = dcmread(BytesIO(encode(dataset)))
    raw = stored.get_item("PatientName").value
    return bytes(raw if isinstance(raw, bytes) else raw.encode()).rstrip()


NAMES = {name: (character_set, text.encode(codec)) for name, (character_set, text, codec) in SETS.items()} | BROKEN


@pytest.mark.parametrize(("character_set", "content"), NAMES.values(), ids=NAMES)
def test_the_name_of_the_patient_leaves_byte_for_byte_as_it_came(character_set, content):
    made = with_bytes(character_set, content)
    results = build(made)
    assert check_all(results, made.sources) == ()
    for result in results:
        assert name_in(result.dataset) == content.rstrip(), result.kind


@pytest.mark.parametrize("content", ["Müller^Jürgen".encode("latin-1"), "王^小东".encode()[:-1]], ids=["Latin-1 bytes", "cut in the middle of a character"])
def test_bytes_that_are_no_utf_8_are_replaced_and_nothing_else_of_the_patient_changes(content):
    made = with_bytes("ISO_IR 192", content)  # pydicom keeps no bytes that it cannot decode
    results = build(made)
    assert check_all(results, made.sources) == ()
    for result in results:
        assert name_in(result.dataset) == content.decode("utf-8", "replace").encode(), result.kind
        assert (result.dataset.PatientID, result.dataset.PatientBirthDate) == ("P-1", "19600504")


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_no_judge_complains_about_a_character_set(name, tmp_path):
    character_set, text, codec = SETS[name]
    made = with_bytes(character_set, text.encode(codec))
    assert verdicts(made, tmp_path, source_of(made, tmp_path)) == []


LONG = {
    "PatientName": "=".join(["^".join(["N" * 31, "M" * 32])] * 3),
    "PatientID": "I" * 64,
    "IssuerOfPatientID": "S" * 64,
    "StudyDescription": "D" * 64,
    "SeriesDescription": "E" * 64,
    "AccessionNumber": "A" * 16,
    "StudyID": "S" * 16,
    "ReferringPhysicianName": "R" * 64,
    "PatientComments": "C" * 10240,
}


def with_long_words():
    made = asked(**LONG)
    algorithm = replace(made.finding.algorithm, name="n" * 200, version="v" * 200, manufacturer="m" * 200)
    run = replace(RUN, number=99, pipeline="p" * 200, node_name="o" * 200, complete_reason="r" * 500)
    equipment = Equipment(manufacturer="q" * 64, serial="s" * 64, institution="i" * 64)
    return replace(made, finding=replace(made.finding, algorithm=algorithm, remarks=("x" * 3000, "y " * 2000)), run=run, equipment=equipment)


def with_many_regions():
    made = request(Shape(slices=6, rows=128, grid=64, grid_spacing=4.0), kinds=KINDS)
    heat = np.zeros_like(made.finding.heat)
    for number, (index, row, column) in enumerate(product(range(0, 6, 2), range(0, 64, 4), range(0, 64, 4))):
        heat[index, row : row + 2, column : column + 2] = 3.1 + number / 1000
    return replace(made, finding=replace(made.finding, heat=heat))


def with_nothing():
    made = asked()
    quiet = replace(made.finding, heat=np.zeros_like(made.finding.heat), top_slices=(), score=0.0)
    return replace(made, finding=quiet)


MISSING = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
           "IssuerOfPatientID", "BodyPartExamined", "SeriesDescription", "SpecificCharacterSet", "SeriesNumber", "InstanceNumber")  # fmt: skip
ODD = {
    "no frame of reference": lambda: asked(FrameOfReferenceUID=None),
    "no patient ID": lambda: asked(PatientID=None),
    "an empty patient ID": lambda: asked(PatientID=""),
    "nothing but what the node needs": lambda: asked(**dict.fromkeys(MISSING)),
    "no anomaly": with_nothing,
    "500 regions and more": with_many_regions,
    "the longest strings": with_long_words,
    "one hot map": lambda: replace(asked(), finding=replace(asked().finding, heat=np.full_like(asked().finding.heat, 4.0))),
    "a map of NaN and infinity": lambda: replace(asked(), finding=replace(asked().finding, heat=np.tile(np.float32([np.nan, np.inf]), (4, 32, 16)))),
}
KINDS_OF = {  # where it is not all of them
    "no frame of reference": {"sc", "denoised", "sr", "ko"},
    "no anomaly": {"pm", "sc", "denoised", "sr"},
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name == "500 regions and more" else ()) for name in ODD])
def test_odd_studies_give_objects_that_pass_the_gate(name):
    made = ODD[name]()
    results = build(made)
    assert check_all(results, made.sources) == ()
    assert {result.kind for result in results} == KINDS_OF.get(name, set(KINDS))


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_no_judge_complains_about_the_objects_of_odd_studies(name, tmp_path):
    made = ODD[name]()
    assert verdicts(made, tmp_path, source_of(made, tmp_path)) == []


def test_no_value_is_longer_than_its_representation_allows():
    limits = {"LO": 64, "SH": 16, "CS": 16, "AE": 16, "PN": 3 * 64 + 2, "ST": 1024}
    for result in build(with_long_words()):
        for element in result.dataset.iterall():
            for value in () if element.VR not in limits else element.value if element.VM > 1 else [element.value]:
                assert len(str(value)) <= limits[element.VR], (result.kind, element)
