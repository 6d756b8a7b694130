"""An object that comes again: the same, another encoding, another patient, or another image."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    MPEG4HP41,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from pacs_node.assembly import encoded
from pacs_node.assembly.grouping import Likeness, Repeat, compare
from pacs_node.errors import UnreadableObject

Change = Callable[[Dataset], None]


class Pair:
    """An original and changed copies of it, as files."""

    def __init__(self, folder: Path, name: str = "CT_small.dcm") -> None:
        self.folder = folder
        self.original = folder / "original.dcm"
        dataset = dcmread(str(get_testdata_file(name)))
        dataset.remove_private_tags()
        dataset.pop("DataSetTrailingPadding", None)
        dataset.save_as(self.original)

    def copy(self, change: Change, name: str = "copy.dcm", syntax: str | None = None) -> Path:
        dataset = dcmread(self.original)
        change(dataset)
        if syntax is not None:
            recode(dataset, syntax)
        encoding = {"implicit_vr": syntax == ImplicitVRLittleEndian, "little_endian": syntax != ExplicitVRBigEndian} if syntax else {}
        dcmwrite(self.folder / name, dataset, force_encoding=bool(encoding), **encoding)
        return self.folder / name

    def compare(self, change: Change, syntax: str | None = None) -> Repeat:
        return compare(self.original, self.copy(change, syntax=syntax))


def recode(dataset: Dataset, syntax: str) -> None:
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = b"".join(dataset.PixelData[at : at + 2][::-1] for at in range(0, len(dataset.PixelData), 2))
        list(dataset.iterall())  # decodes every value, so that it is written in the new byte order
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian):
        dataset.file_meta.TransferSyntaxUID = syntax
    else:
        options = {"jls_error": 2} if syntax == JPEGLSNearLossless else {}
        dataset.compress(syntax, generate_instance_uid=False, **options)


def nothing(dataset: Dataset) -> None:
    """Change nothing."""


def setting(**attributes: object) -> Change:
    def change(dataset: Dataset) -> None:
        for keyword, value in attributes.items():
            setattr(dataset, keyword, value)

    return change


def one_pixel(dataset: Dataset) -> None:
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_the_same_bytes_are_the_same_object_whatever_the_file_meta_says(pair: Pair) -> None:
    def other_meta(dataset: Dataset) -> None:
        dataset.file_meta.SendingApplicationEntityTitle = "ELSEWHERE"
        dataset.file_meta.ImplementationVersionName = "OTHER"

    assert pair.compare(other_meta) == Repeat(Likeness.SAME, "the datasets are equal byte for byte")


def test_equal_attributes_written_in_another_way_are_the_same_object(pair: Pair) -> None:
    def padded(dataset: Dataset) -> None:
        dataset.StudyID = f"{dataset.StudyID}  "
        dataset.OtherPatientIDsSequence[0].is_undefined_length_sequence_item = True
        dataset["OtherPatientIDsSequence"].is_undefined_length = True
        dataset.AccessionNumber = ""  # absent before

    repeat = pair.compare(padded)

    assert (repeat.likeness, repeat.differs) == (Likeness.SAME, ())
    assert repeat.why == "all attributes and pixels are equal"


LOSSLESS = (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.name)
def test_another_lossless_transfer_syntax_is_a_duplicate(pair: Pair, syntax: str) -> None:
    repeat = pair.compare(nothing, syntax)

    assert (repeat.likeness, repeat.differs) == (Likeness.SAME_PIXELS, ())
    assert "the transfer syntax changed from Explicit VR Little Endian to" in repeat.why


@pytest.mark.parametrize(
    ("one", "other"), [(DeflatedExplicitVRLittleEndian, RLELossless), (JPEG2000Lossless, ExplicitVRBigEndian), (RLELossless, JPEGLSLossless)]
)
def test_any_two_encodings_can_be_compared(pair: Pair, one: str, other: str) -> None:
    first, second = pair.copy(nothing, "one.dcm", one), pair.copy(nothing, "other.dcm", other)
    changed = pair.copy(one_pixel, "changed.dcm", other)

    assert compare(first, second).likeness is Likeness.SAME_PIXELS
    assert compare(first, changed).likeness is Likeness.CONFLICT


def test_a_lossy_transcode_is_another_image(pair: Pair) -> None:
    repeat = pair.compare(nothing, JPEGLSNearLossless)

    assert (repeat.likeness, repeat.why) == (Likeness.CONFLICT, "its pixels differ")


def test_other_attributes_are_listed_and_make_no_difference(pair: Pair) -> None:
    repeat = pair.compare(setting(StudyDescription="other", PatientSex="M", InstanceCreationTime="120000"))

    assert repeat.likeness is Likeness.SAME_PIXELS
    assert repeat.differs == ("InstanceCreationTime", "StudyDescription", "PatientSex")


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless])
@pytest.mark.parametrize(
    "changes", [{"PatientID": "other"}, {"PatientName": "Other^Name"}, {"PatientBirthDate": "19000101"}, {"IssuerOfPatientID": "elsewhere"}], ids=str
)
def test_another_patient_on_the_same_image_is_a_correction(pair: Pair, changes: dict[str, str], syntax: str | None) -> None:
    repeat = pair.compare(setting(**changes), syntax)

    assert repeat.likeness is Likeness.IDENTITY_CHANGED
    assert next(iter(changes)) in repeat.differs
    assert next(iter(changes.values())) not in repeat.why  # what the header says stays out of the logs


def test_the_same_patient_written_in_another_way_is_a_duplicate(pair: Pair) -> None:
    name = str(dcmread(pair.original).PatientName)

    repeat = pair.compare(setting(PatientName=f"{name.lower()}^^", PatientID=f" {dcmread(pair.original).PatientID} "))

    assert repeat.likeness is Likeness.SAME_PIXELS


def test_names_compare_as_text_in_whatever_character_set(pair: Pair) -> None:
    western = pair.copy(setting(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Anna"), "western.dcm")
    unicode = pair.copy(setting(SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Anna"), "unicode.dcm")
    other = pair.copy(setting(SpecificCharacterSet="ISO_IR 192", PatientName="Möller^Anna"), "other.dcm")

    assert compare(western, unicode) == Repeat(Likeness.SAME_PIXELS, "pixels and patient are the same; 1 attributes differ", ("SpecificCharacterSet",))
    assert compare(western, other).likeness is Likeness.IDENTITY_CHANGED


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (one_pixel, "its pixels differ"),
        (setting(PatientID="other", PixelData=b"\0" * 32768), "its pixels differ"),
        (setting(StudyInstanceUID=generate_uid()), "names another StudyInstanceUID"),
        (setting(SeriesInstanceUID=generate_uid()), "names another SeriesInstanceUID"),
        (setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), "names another SOPClassUID"),
        (setting(RescaleSlope="2"), "mean something else: RescaleSlope"),
        (setting(PhotometricInterpretation="MONOCHROME1"), "mean something else: PhotometricInterpretation"),
        (setting(Rows=64, Columns=256), "another shape: Rows, Columns"),
        (setting(PixelPaddingValue=-1), "mean something else: PixelPaddingValue"),
        (lambda dataset: dataset.pop("PixelData"), "only one of the two objects has pixels"),
    ],
)
def test_another_image_or_another_place_is_a_conflict(pair: Pair, change: Change, words: str) -> None:
    repeat = pair.compare(change)

    assert repeat.likeness is Likeness.CONFLICT
    assert words in repeat.why


def test_the_way_a_compressed_stream_is_cut_into_fragments_does_not_matter(pair: Pair) -> None:
    whole = pair.copy(nothing, "whole.dcm", RLELossless)

    def cut(dataset: Dataset) -> None:
        [frame] = generate_frames(dataset.PixelData, number_of_frames=1)
        dataset.PixelData = encapsulate([frame], fragments_per_frame=3, has_bot=False)
        dataset["PixelData"].is_undefined_length = True

    dataset = dcmread(whole)
    cut(dataset)
    dataset.save_as(pair.folder / "cut.dcm")

    assert compare(whole, pair.folder / "cut.dcm").likeness is Likeness.SAME


def test_pixels_that_nobody_can_decode_are_compared_as_bytes_and_else_kept_aside(pair: Pair) -> None:
    def video(stream: bytes) -> Path:
        dataset = dcmread(pair.original)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = MPEG4HP41
        dataset.StudyDescription = f"{len(list(pair.folder.iterdir()))}"
        path = pair.folder / f"video{dataset.StudyDescription}.dcm"
        dataset.save_as(path)
        return path

    one, same, other = video(b"1234"), video(b"1234"), video(b"5678")

    assert compare(one, same).likeness is Likeness.SAME_PIXELS
    assert compare(one, other).likeness is Likeness.CONFLICT
    assert "cannot be decoded (MPEG-4" in compare(one, other).why
    assert compare(pair.original, one).likeness is Likeness.CONFLICT


def test_colour_images_are_compared_frame_by_frame(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "SC_rgb_rle_2frame.dcm")

    def plain(dataset: Dataset) -> None:
        dataset.decompress(generate_instance_uid=False)

    def last_frame(dataset: Dataset) -> None:
        plain(dataset)
        dataset.PixelData = dataset.PixelData[:-2] + bytes([dataset.PixelData[-2] ^ 1, dataset.PixelData[-1]])

    assert pair.compare(plain).likeness is Likeness.SAME_PIXELS
    assert pair.compare(plain, JPEGLSLossless).likeness is Likeness.SAME_PIXELS
    assert pair.compare(last_frame).likeness is Likeness.CONFLICT
    assert pair.compare(last_frame, JPEGLSLossless).likeness is Likeness.CONFLICT


def test_objects_without_pixels_are_compared_by_their_content(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "reportsi.dcm")

    def other_text(dataset: Dataset) -> None:
        dataset.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning = "something else"

    assert pair.compare(setting(StudyDescription="x")).likeness is Likeness.SAME_PIXELS
    assert pair.compare(setting(PatientID="x")).likeness is Likeness.IDENTITY_CHANGED
    assert pair.compare(other_text) == Repeat(Likeness.CONFLICT, "its content differs in ContentSequence", ("ContentSequence",))


def test_attributes_that_cannot_be_read_count_as_different_unless_their_bytes_are_equal(pair: Pair) -> None:
    raw = pair.original.read_bytes()
    kvp = raw.index(b"\x18\x00\x60\x00DS")
    length = int.from_bytes(raw[kvp + 6 : kvp + 8], "little")

    def with_kvp(text: bytes, name: str) -> Path:
        path = pair.folder / name
        path.write_bytes(raw[: kvp + 8] + text.ljust(length)[:length] + raw[kvp + 8 + length :])
        return path

    one, other = with_kvp(b"ab", "one.dcm"), with_kvp(b"cd", "other.dcm")

    assert compare(one, other).differs == ("KVP",)
    dataset = dcmread(one)
    dataset.StudyDescription = "x"
    dataset.save_as(pair.folder / "same.dcm")
    assert compare(one, pair.folder / "same.dcm").differs == ("StudyDescription",)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lambda raw: raw[:20_000], "early"), (lambda raw: b"x" * 500, "no DICOM Part 10 header"), (lambda raw: raw[:140], ""), (lambda raw: b"", "no DICOM")],
)
def test_a_file_that_cannot_be_read_is_named(pair: Pair, damage: Callable[[bytes], bytes], words: str) -> None:
    broken = pair.folder / "broken.dcm"
    broken.write_bytes(damage(pair.original.read_bytes()))

    for order in ((pair.original, broken), (broken, pair.original), (pair.original, pair.folder / "absent.dcm")):
        with pytest.raises(UnreadableObject, match=r"broken\.dcm" if broken in order else r"absent\.dcm") as caught:
            compare(*order)
        assert words in str(caught.value) or broken not in order


def test_a_deflated_dataset_that_inflates_without_end_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    deflated = pair.copy(nothing, "deflated.dcm", DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(encoded, "_INFLATE_LIMIT", 10_000)

    with pytest.raises(UnreadableObject, match="when inflated"):
        compare(pair.original, deflated)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, pytest.param(RLELossless, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_object(pair: Pair, syntax: str) -> None:
    def large(dataset: Dataset) -> None:
        dataset.NumberOfFrames = 400
        dataset.PixelData = dataset.PixelData * 400  # 13 MB

    one = pair.copy(large, "one.dcm", ExplicitVRLittleEndian)
    other = pair.copy(lambda dataset: (large(dataset), setting(StudyDescription="x")(dataset))[-1], "other.dcm", syntax)
    pair.copy(nothing)

    tracemalloc.start()
    try:
        repeat = compare(one, other)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert repeat.likeness is Likeness.SAME_PIXELS
    assert peak < 6_000_000  # buffers of 1 MiB, one frame, and the code of the decoders


@pytest.mark.peers
@pytest.mark.parametrize(
    ("program", "options", "likeness"),
    [
        ("dcmcjpeg", ["+e1"], Likeness.SAME_PIXELS),
        ("dcmcjpls", ["+el"], Likeness.SAME_PIXELS),
        ("dcmcrle", [], Likeness.SAME_PIXELS),
        ("dcmconv", ["+ti"], Likeness.SAME_PIXELS),
        ("dcmconv", ["+tb"], Likeness.SAME_PIXELS),
        ("dcmconv", ["+te", "-e", "+g"], Likeness.SAME),
        ("dcmcjpeg", ["+eb"], Likeness.CONFLICT),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_files_transcoded_by_dcmtk_are_recognised(pair: Pair, tool: Callable[[str], str], program: str, options: list[str], likeness: Likeness) -> None:
    target = pair.folder / "transcoded.dcm"
    keep_uid = ["+un"] if program.startswith("dcmcj") else []
    done = subprocess.run([tool(program), *options, *keep_uid, str(pair.original), str(target)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr

    assert compare(pair.original, target).likeness is likeness


@pytest.mark.slow
def test_every_odd_file_is_the_same_as_itself_and_as_its_copy(dataset_folder: Callable[[str], Path], tmp_path: Path) -> None:
    compared = 0
    for file in sorted(dataset_folder("pydicom-test-files").rglob("*.dcm")):
        copy = tmp_path / "copy.dcm"
        shutil.copy(file, copy)
        try:
            assert compare(file, copy).likeness is Likeness.SAME
            compared += 1
        except UnreadableObject as error:
            assert str(file) in str(error)

    assert compared > 50
