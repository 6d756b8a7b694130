"""`pacs-node encode` and `decode`, and the raw kind on its way: from files to files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless
from typer.testing import CliRunner

from pacs_node.analysis.originals import read_image, read_images
from pacs_node.cli import app
from pacs_node.config import Settings
from pacs_node.errors import InputError, UndecodablePixels
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.results import dciodvfy
from pacs_node.workbench.representing import decode_files, encode_folder

PHANTOMS = {
    "CT": PhantomSpec(region="head", slices=5, rows=64, seed=1),
    "CT, enhanced": PhantomSpec(region="head", slices=4, rows=64, enhanced=True, seed=2),
    "MR, sagittal": PhantomSpec(modality="MR", plane="sagittal", slices=4, rows=64, seed=3),
    "PET": PhantomSpec(modality="PT", slices=4, rows=64, seed=4),
    "ultrasound in colour": PhantomSpec(modality="US", slices=2, rows=96, colour=True, seed=5),
    "ultrasound, a loop": PhantomSpec(modality="US", slices=3, rows=96, enhanced=True, seed=6),
}


def write(study: list[Dataset], folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index, dataset in enumerate(study):
        dataset.save_as(folder / f"{index}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return write(make_study(PHANTOMS["CT"]), tmp_path / "ct")


def by_source(folder: Path) -> dict[str, Dataset]:
    return {str(made.SourceImageSequence[-1].ReferencedSOPInstanceUID): made for made in map(dcmread, sorted(folder.rglob("*.dcm")))}


@pytest.mark.peers
@pytest.mark.parametrize("near", [0, 3])
@pytest.mark.parametrize("name", PHANTOMS)
def test_every_image_comes_back_valid_and_within_the_error(name: str, near: int, tmp_path: Path) -> None:
    source = write(make_study(PHANTOMS[name]), tmp_path / "in")
    made = encode_folder(source, tmp_path / "f.dcm", near, Settings())
    assert made.images == len(list(source.iterdir())) and not made.left_out and made.object_bytes < made.pixel_bytes
    decode_files(tmp_path / "f.dcm", tmp_path / "out", Settings())
    found = by_source(tmp_path / "out")
    for original in map(dcmread, source.iterdir()):
        again = found[str(original.SOPInstanceUID)]
        assert np.abs(again.pixel_array.astype(int) - original.pixel_array).max() <= near
        assert (again.get("LossyImageCompression") == "01") == bool(near)
        assert again.SOPInstanceUID != original.SOPInstanceUID and again.ImageType[0] == "DERIVED"
    if shutil.which("dciodvfy"):
        faults = [dciodvfy(path, source / "0.dcm")[0] for path in (tmp_path / "f.dcm", *(tmp_path / "out").rglob("*.dcm"))]
        assert faults == [()] * (made.images + 1)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, RLELossless])
def test_compressed_files_hold_the_same_pixels(ct: Path, syntax: str) -> None:
    for path in ct.iterdir():
        plain, packed = read_image(path).values, dcmread(path)
        packed.compress(syntax, generate_instance_uid=False)
        packed.save_as(path)
        assert np.array_equal(read_image(path).values, plain)


def test_slices_are_put_in_the_order_of_their_places(ct: Path) -> None:
    images, left_out = read_images(sorted(ct.iterdir(), reverse=True))
    places = [float(image.header.ImagePositionPatient[2]) for image in images]
    assert places == sorted(places) and not left_out


def test_series_that_lie_in_the_same_places_are_not_mixed(ct: Path) -> None:
    for index in (1, 3):
        image = dcmread(ct / f"{index}.dcm")
        image.SeriesInstanceUID = "1.2.3"
        image.save_as(ct / f"{index}.dcm")
    series = [str(image.header.SeriesInstanceUID) for image in read_images(sorted(ct.iterdir()))[0]]
    assert series == sorted(series) and set(series) > {"1.2.3"}


def test_what_has_no_pixels_is_left_out_and_named(ct: Path, tmp_path: Path) -> None:
    report, floats = (dcmread(ct / f"{index}.dcm") for index in (0, 1))
    del report.PixelData
    report.SOPInstanceUID = report.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    report.save_as(ct / "report.dcm")
    floats.SOPInstanceUID = floats.file_meta.MediaStorageSOPInstanceUID = "1.2.3.5"
    del floats.PixelData
    floats.FloatPixelData = b"\0" * 4 * 64 * 64
    floats.save_as(ct / "floats.dcm")
    made = encode_folder(ct, tmp_path / "f.dcm", 0, Settings())
    assert made.images == 5
    assert sorted(why.split(": ")[-1] for why in made.left_out) == ["FloatPixelData holds no integers", "the object has no pixels"]
    with pytest.raises(UndecodablePixels, match=r"1\.2\.3\.4.*no pixels"):
        read_image(ct / "report.dcm")
    for path in ct.iterdir():
        if path.name != "report.dcm":
            path.unlink()
    with pytest.raises(InputError, match=r"nothing below .* can be encoded.*no pixels"):
        encode_folder(ct, tmp_path / "g.dcm", 0, Settings())


def _another_study(ct: Path, out: Path) -> None:
    write(make_study(PhantomSpec(region="head", slices=1, rows=64, seed=99)), ct / "other")


def _a_repeat(ct: Path, out: Path) -> None:
    shutil.copy(ct / "0.dcm", ct / "again.dcm")


def _a_folder_to_write(ct: Path, out: Path) -> None:
    out.mkdir()


WRONG: list[tuple[Callable[[Path, Path], None], str]] = [
    (_another_study, "holds 2 studies: encode each by itself"),
    (_a_repeat, "keep one of them"),
    (_a_folder_to_write, "name the file"),
]


@pytest.mark.parametrize("spoil, said", WRONG)
def test_what_cannot_be_one_object_is_refused(spoil: Callable[[Path, Path], None], said: str, ct: Path, tmp_path: Path) -> None:
    spoil(ct, tmp_path / "f.dcm")
    with pytest.raises(InputError, match=said):
        encode_folder(ct, tmp_path / "f.dcm", 0, Settings())


@pytest.mark.parametrize("near", [-1, 9])
def test_an_error_out_of_range_is_refused(ct: Path, tmp_path: Path, near: int) -> None:
    with pytest.raises(InputError, match="from 0"):
        encode_folder(ct, tmp_path / "f.dcm", near, Settings())


def test_the_commands_say_what_they_did_and_a_cut_file_is_one_sentence(ct: Path, tmp_path: Path) -> None:
    runner, file = CliRunner(), tmp_path / "f.dcm"
    said = runner.invoke(app, ["encode", str(ct), "--out", str(file), "--near", "2"])
    assert said.exit_code == 0 and "5 images of 1 series, every pixel within 2" in said.output.replace("\n", " ")
    said = runner.invoke(app, ["decode", str(file), "--out", str(tmp_path / "out"), "--json"])
    assert said.exit_code == 0 and '"images": 5' in said.output
    cut = dcmread(file)
    cut[0x0091, 0x1010].value = cut[0x0091, 0x1010].value[:-50]
    cut.save_as(file)
    with pytest.raises(InputError, match=r"f\.dcm cannot be decoded: .*cut short"):
        decode_files(file, tmp_path / "out", Settings())
    with pytest.raises(InputError, match="is no Raw Data object"):
        decode_files(ct / "0.dcm", tmp_path / "out", Settings())


# --- what an archive corrected -----------------------------------------------------------------------------------------------


def corrected(file: Path, **attributes: object) -> None:
    """Change an encoded object as an archive does: the elements that it knows, not what is in the private block."""
    dataset = dcmread(file)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    dataset.save_as(file)


def test_a_patient_corrected_in_the_archive_is_the_patient_of_the_decoded_images(ct: Path, tmp_path: Path) -> None:
    encode_folder(ct, tmp_path / "f.dcm", 0, Settings())
    corrected(tmp_path / "f.dcm", PatientID="RIGHT-1", PatientName="Right^Patient", PatientBirthDate="19700101", StudyInstanceUID="1.2.3.4.5")
    assert decode_files(tmp_path / "f.dcm", tmp_path / "out", Settings()).images == 5
    for made in by_source(tmp_path / "out").values():
        assert (made.PatientID, made.PatientName, made.PatientBirthDate, made.StudyInstanceUID) == ("RIGHT-1", "Right^Patient", "19700101", "1.2.3.4.5")


def test_a_name_in_another_character_set_than_the_images_is_written_so_that_both_are_read(ct: Path, tmp_path: Path) -> None:
    for path in ct.iterdir():
        image = dcmread(path)
        image.SpecificCharacterSet, image.InstitutionName = "ISO_IR 100", "Hôpital"
        image.save_as(path)
    encode_folder(ct, tmp_path / "f.dcm", 0, Settings())
    corrected(tmp_path / "f.dcm", SpecificCharacterSet="ISO_IR 144", PatientName="Люкceмбypг")
    decode_files(tmp_path / "f.dcm", tmp_path / "out", Settings())
    assert {(str(made.PatientName), made.InstitutionName) for made in by_source(tmp_path / "out").values()} == {("Люкceмбypг", "Hôpital")}


def test_images_that_an_object_of_another_patient_does_not_name_are_refused(ct: Path, tmp_path: Path) -> None:
    encode_folder(ct, tmp_path / "f.dcm", 0, Settings())
    corrected(tmp_path / "f.dcm", PatientID="OTHER-1", ReferencedInstanceSequence=[])
    with pytest.raises(InputError, match=r"f\.dcm holds image .* of another patient or study"):
        decode_files(tmp_path / "f.dcm", tmp_path / "out", Settings())
    assert not (tmp_path / "out").exists(), "nothing is written"
