"""What training and evaluation work on: folders of DICOM, NIfTI or pictures, with what is known of them in labels.csv."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset

from pacs_node.analysis.manifest import Manifest, read_manifest
from pacs_node.config import shipped
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec, make_study
from pacs_node.workbench import material
from tests.analysis.conftest import MODEL_YAML
from tests.benchmarks.labelled import splits


def silent(what: str, fraction: float) -> None:
    """Progress that nobody looks at."""


def picture(path: Path, seed: int = 0, edge: int = 100) -> Path:
    """A bright ellipse with noise on black, 8 bits."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:edge, :edge] - (edge - 1) / 2
    inside = (x / (0.35 * edge)) ** 2 + (y / (0.42 * edge)) ** 2 < 1
    values = np.where(inside, 120 + 40 * np.sin(x / 9) + rng.normal(0, 8, inside.shape), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)
    return path


def table(path: Path, *rows: str, columns: str = "file,label,patient,mask") -> Path:
    path.write_text("\n".join([columns, *rows]) + "\n")
    return path


@pytest.fixture
def ct(tmp_path: Path) -> Manifest:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.yaml").write_text(MODEL_YAML)
    return read_manifest(tmp_path / "tiny")


@pytest.fixture
def us() -> Manifest:
    return read_manifest(shipped("models") / "us-breast")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def objects(folder: Path, seed: int, **what: object) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.dcm" for number in range(8)]
    for path, dataset in zip(paths, make_study(PhantomSpec(region="head", seed=seed, slices=8, rows=64, **what)), strict=True):
        dataset.save_as(path, enforce_file_format=True)
    return paths


# --- folders ---------------------------------------------------------------------------------------------------------------


def test_each_picture_is_a_study_and_without_labels_its_own_patient(folder: Path) -> None:
    for name in ("a.png", "b.JPG", "below/c.jpeg"):
        picture(folder / name)
    (folder / "LICENSE").write_text("free")
    (folder / ".hidden.png").write_bytes(b"")
    found = material.series_in([folder], "US")
    assert [one.files[0].name for one in found] == ["a.png", "b.JPG", "c.jpeg"]
    assert len({one.patient for one in found}) == len({one.study_uid for one in found}) == 3


def test_a_folder_of_pictures_and_dicom_is_refused_in_one_sentence(folder: Path) -> None:
    objects(folder / "study", 1)
    picture(folder / "a.png")
    with pytest.raises(InputError, match=r"holds pictures \(a.png\) and DICOM \(0.dcm\): give folders of one kind"):
        material.series_in([folder], "CT")
    listed = table(folder / "labels.csv", "a.png,normal")
    assert [one.files[0].name for one in material.series_in([folder], "CT", listed)] == ["a.png"]


def test_folders_of_different_kinds_may_be_given_together(tmp_path: Path) -> None:
    objects(tmp_path / "dicom", 1)
    picture(tmp_path / "pictures" / "a.png")
    assert {one.kind for one in material.series_in([tmp_path / "dicom", tmp_path / "pictures"], "CT")} == {"DICOM", "pictures"}


def test_a_series_in_two_folders_is_one_and_a_folder_given_twice_counts_once(tmp_path: Path) -> None:
    paths = objects(tmp_path / "one", 1)
    (tmp_path / "two").mkdir()
    for path in paths[4:]:
        path.rename(tmp_path / "two" / path.name)
    both = material.series_in([tmp_path / "one", tmp_path / "two"], "CT")
    assert [len(one.files) for one in both] == [8]
    again = material.series_in([tmp_path / "one", tmp_path / "one", tmp_path / "two"], "CT")
    assert [len(one.files) for one in again] == [8]


def test_bids_names_tell_whose_a_nifti_file_is(folder: Path, ct: Manifest) -> None:
    nibabel = pytest.importorskip("nibabel")
    for name in ("sub-01_T1w.nii.gz", "sub-01_T2w.nii.gz", "sub-02/anat/sub-02_T1w.nii", "other.nii"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4, 4), np.float32), np.eye(4)), folder / name)
    found = material.series_in([folder], "MR")
    assert sorted({one.patient for one in found}) == sorted(["/sub-01", "/sub-02", f"/{(folder / 'other.nii').resolve()}"])


# --- labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (["a.png,normal,,", "gone.png,normal,,"], "list .*gone.png, which is not there"),
        (["a.png,normal,,gone_mask.png"], "list .*gone_mask.png, which is not there"),
        (["a.png,normal,,", "a.png,lesion,,"], "line 3, say of a.png something else"),
        (["a.png,,,"], "line 2, lack a file or its label"),
        ([], "list no file"),
        (["gone.png,normal,,"], r"labels no US image .*\(there is no .*gone.png\)"),
        (["a.png,lesion,,"], "labels no US image below the folders given as 'normal'"),
    ],
)
def test_a_table_with_a_fault_is_one_sentence(folder: Path, rows: list[str], problem: str) -> None:
    picture(folder / "a.png")
    with pytest.raises(InputError, match=problem):
        material.series_in([folder], "US", table(folder / "labels.csv", *rows))


def test_a_table_may_come_from_a_spreadsheet_and_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    picture(folder / "a (1).png")
    (tmp_path / "labels.csv").write_bytes('\ufefffile,label\r\n"data/a (1).png", Normal \r\n,\r\n'.encode())
    assert len(material.series_in([folder], "US", tmp_path / "labels.csv")) == 1


def test_only_studies_without_any_other_label_are_normal(folder: Path) -> None:
    paths = objects(folder / "sick", 1)
    objects(folder / "sound", 2)
    rows = [f"sick/{path.name},{'bleeding' if path == paths[3] else 'normal'},," for path in paths]
    found = material.series_in([folder], "CT", table(folder / "labels.csv", *rows, "sound,normal,Mr Sound,"))
    assert [(one.files[0].parent.name, one.patient, len(one.files)) for one in found] == [("sound", "/Mr Sound", 8)]


# --- labelled studies ---------------------------------------------------------------------------------------------------------


def test_labelled_pictures_have_their_label_patient_and_mask_on_the_grid(folder: Path, us: Manifest) -> None:
    for name in ("a.png", "b.png", "c.png"):
        picture(folder / name, edge=256)
    for name, columns in (("b_1.png", slice(40, 60)), ("b_2.png", slice(200, 220))):
        drawn = np.zeros((256, 256), np.uint8)
        drawn[100:140, columns] = 255
        Image.fromarray(drawn).convert("1").save(folder / name)
    listed = table(folder / "labels.csv", "a.png,normal,one,", "b.png,Malignant,two,b_1.png; b_2.png", "c.png,benign,two,")
    found = {Path(one.name).name: one for one in material.labelled([folder], us, listed, silent)}
    assert {name: (one.label, one.patient) for name, one in found.items()} == {
        "a.png": ("normal", "/one"),
        "b.png": ("malignant", "/two"),
        "c.png": ("benign", "/two"),
    }
    mask = found["b.png"].mask
    assert mask is not None
    assert found["a.png"].mask is None
    assert mask.shape == found["b.png"].prepared.x.shape == (1, 128, 128)
    expected = np.zeros((128, 128), bool)
    expected[50:70, 20:30] = expected[50:70, 100:110] = True
    assert np.array_equal(mask[0], expected)


def test_a_study_that_cannot_be_used_is_named_with_the_reason(folder: Path, us: Manifest) -> None:
    picture(folder / "a.png")
    (folder / "b.png").write_bytes(picture(folder / "c.png").read_bytes()[:300])
    Image.fromarray(np.ones((50, 50), np.uint8)).save(folder / "mask.png")
    listed = table(folder / "labels.csv", "a.png,normal,,", "b.png,normal,,", "c.png,lesion,,mask.png")
    refused: list[str] = []
    found = material.labelled([folder], us, listed, silent, refused)
    assert [Path(one.name).name for one in found] == ["a.png"]
    assert "b.png: the picture cannot be read" in refused[0]
    assert "c.png: the mask mask.png has 50 × 50 pixels, the image 100 × 100" in refused[1]
    with pytest.raises(InputError, match="none of the studies"):
        material.labelled([folder], us, table(folder / "labels.csv", "b.png,normal,,"), silent)


def test_dicom_studies_have_masks_as_a_picture_of_each_file_or_as_one_nifti(folder: Path, ct: Manifest) -> None:
    nibabel = pytest.importorskip("nibabel")
    paths = objects(folder / "sick", 1)
    drawn = np.zeros((64, 64), np.uint8)
    drawn[20:40, 24:44] = 255
    Image.fromarray(drawn).save(folder / "mask.png")
    rows = [f"sick/{path.name},lesion,P,{'mask.png' if number == 3 else ''}" for number, path in enumerate(paths)]
    by_picture = material.labelled([folder], ct, table(folder / "labels.csv", *rows), silent)[0].mask
    assert by_picture is not None
    held = np.flatnonzero(by_picture.any((1, 2)))
    assert len(held) == 1
    import pydicom

    headers = [pydicom.dcmread(path) for path in paths]
    voxels = np.zeros((64, 64, 8), np.uint8)
    voxels[24:44, 20:40, 3] = 1
    nibabel.save(nibabel.Nifti1Image(voxels, affine_of(headers)), folder / "mask.nii.gz")
    by_nifti = material.labelled([folder], ct, table(folder / "labels.csv", "sick,lesion,P,mask.nii.gz"), silent)[0].mask
    assert by_nifti is not None
    assert np.array_equal(by_nifti, by_picture)


def affine_of(headers: list[Dataset]) -> np.ndarray:
    """From (column, row, slice) of DICOM images to RAS."""
    first, second = headers[:2]
    spacing, orientation = first.PixelSpacing, np.asarray(first.ImageOrientationPatient, float)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = orientation[:3] * spacing[1], orientation[3:] * spacing[0]
    lps[:3, 2], lps[:3, 3] = np.subtract(second.ImagePositionPatient, first.ImagePositionPatient), first.ImagePositionPatient
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def test_thousands_of_labelled_studies_keep_no_source_pixels(folder: Path, us: Manifest) -> None:
    picture(folder / "a.png", edge=1500)
    one = material.labelled([folder], us, table(folder / "labels.csv", "a.png,normal,,"), silent)[0]
    assert one.prepared.volume.pixels.size == 0
    assert len(one.prepared.volume.frames) == 1


# --- splits -------------------------------------------------------------------------------------------------------------------


def test_folds_part_patients_evenly_and_whatever_their_order() -> None:
    patients = [f"P{number % 23}" for number in range(100)]
    parts = material.folds(patients, 5, seed=1)
    assert sorted(len(part) for part in parts) == [4, 4, 5, 5, 5]
    assert frozenset().union(*parts) == set(patients)
    assert sum(len(part) for part in parts) == 23
    assert parts == material.folds(patients[::-1], 5, seed=1) != material.folds(patients, 5, seed=2)


@pytest.mark.parametrize("k", [1, 4, 0])
def test_more_folds_than_patients_are_refused(k: int) -> None:
    with pytest.raises(InputError, match="3 patients cannot be parted into"):
        material.folds(["A", "B", "C"], k, seed=0)


def test_near_duplicates_are_one_cluster(folder: Path) -> None:
    one, other = picture(folder / "a.png", seed=1), picture(folder / "b.png", seed=2)
    with Image.open(one) as image:
        image.save(folder / "c.png", compress_level=0)
        image.resize((140, 140)).save(folder / "d.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 100), dtype=np.uint8)).save(folder / "e.png")
    numbers = splits.clusters([one, folder / "c.png", folder / "d.png", folder / "e.png"])
    assert numbers[0] == numbers[1] == numbers[2] != numbers[3]
    assert other.is_file()


@pytest.mark.parametrize(("name", "sizes"), [("labels-mr-brain-tumour", (198, 449)), ("labels-ct-lung", (140, 310)), ("labels-us-busi", (20, 76))])
def test_the_splits_of_the_labelled_sets_share_no_patient(dataset_folder: Callable[[str], Path], name: str, sizes: tuple[int, int]) -> None:
    made = splits.SETS[name](dataset_folder(name))
    train, test = list(made.values())[-1]
    assert (len(train), len(test)) == sizes
    assert {one.label for one in train} == {"normal"}
    for learnt, tested in made.values():
        assert not {one.file for one in learnt} & {one.file for one in tested}
        assert not {one.patient for one in learnt if one.patient} & {one.patient for one in tested}
        assert all(path.is_file() for one in (*learnt, *tested) for path in (one.file, *one.masks))


def test_drawn_lesions_of_real_ultrasound_lie_on_what_is_imaged(dataset_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = dataset_folder("labels-us-busi")
    _, test = splits.us_busi(folder)["us-busi"]
    splits.write(tmp_path / "test.csv", test)
    manifest, refused = read_manifest(Path(splits.__file__).parent / "us-busi"), list[str]()
    found = material.labelled([folder], manifest, tmp_path / "test.csv", silent, refused)
    assert (len(found), refused) == (76, [])
    for one in found:
        assert one.mask is not None
        assert one.mask.any() == (one.label != "normal")
        assert not (one.mask & ~one.prepared.foreground).any()


@pytest.mark.parametrize("name", ["mr-brain-tumour", "ct-lung", "us-busi"])
def test_the_recipes_of_the_labelled_sets_are_valid(name: str) -> None:
    manifest = read_manifest(Path(splits.__file__).parent / name)
    assert (manifest.name, manifest.preprocessing.pixels, manifest.recipe.phantoms) == (name, 128, None)
