"""NIfTI files as volumes: every voxel stays where its affine says it is, and is shown as a DICOM image would show it."""

import sys
from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from pacs_node.analysis import geometry, nifti
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.phantoms import PhantomSpec, make_volume

nibabel = pytest.importorskip("nibabel")

Saved = Callable[..., Path]


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    def save(values: np.ndarray, affine: np.ndarray | None = None, name: str = "image.nii.gz", unit: str = "mm") -> Path:
        image = nibabel.Nifti1Image(values, np.diag([2.0, 3.0, 5.0, 1.0]) if affine is None else affine)
        image.header.set_xyzt_units(unit)
        nibabel.save(image, tmp_path / name)
        return tmp_path / name

    return save


def world_values(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Voxels that hold a number made from their place in LPS."""
    voxels = np.indices(shape).reshape(3, -1)
    right, front, up = (affine @ np.vstack([voxels, np.ones(voxels.shape[1])]))[:3]
    return place_value(-right, -front, up).reshape(shape).astype(np.float32)


def place_value(left: np.ndarray, back: np.ndarray, up: np.ndarray) -> np.ndarray:
    return left + 0.01 * back + 10 * up


@pytest.mark.parametrize(("order", "signs"), list(product(permutations(range(3)), [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])))
def test_every_voxel_stays_where_the_affine_says(saved: Saved, order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    affine = np.zeros((4, 4))
    for axis, (to, sign) in enumerate(zip(order, signs, strict=True)):
        affine[to, axis] = sign * (2.0, 2.5, 5.0)[axis]
    affine[:, 3] = (7, -11, 13, 1)
    volume = nifti.read(saved(world_values(affine, (6, 7, 4)), affine), "CT")
    assert volume.pixels.shape[0] == 4  # slices across the coarsest axis
    for image, frame in zip(volume.pixels, volume.frames, strict=True):
        for row, column in ((0, 0), (image.shape[0] - 1, 2), (3, image.shape[1] - 1)):
            assert frame.plane is not None
            assert image[row, column] == pytest.approx(place_value(*np.asarray(geometry.place(frame.plane, row, column))), rel=1e-5, abs=1e-3)
    plane = volume.frames[0].plane
    assert plane is not None
    row, column, normal = geometry.axes(plane)
    assert row[1 if abs(normal[0]) > 0.5 else 0] == pytest.approx(1)  # to the left, in sagittal slices to the back
    assert column[1] == pytest.approx(1) if abs(normal[2]) > 0.5 else column[2] == pytest.approx(-1)
    assert geometry.stack([frame.plane for frame in volume.frames if frame.plane]).order == (0, 1, 2, 3)


def test_a_phantom_written_as_nifti_comes_back_as_from_dicom(saved: Saved) -> None:
    made = make_volume(PhantomSpec(region="head", seed=3, slices=8, rows=64)).volume
    first, second = (frame.plane for frame in made.frames[:2])
    assert first is not None and second is not None
    along_row, along_column, _ = geometry.axes(first)
    lps = np.eye(4)
    lps[:3, 0], lps[:3, 1] = along_row * first.spacing[1], along_column * first.spacing[0]
    lps[:3, 2], lps[:3, 3] = np.subtract(second.position, first.position), first.position
    volume = nifti.read(saved(made.pixels.transpose(2, 1, 0), np.diag([-1, -1, 1, 1]) @ lps), "CT")
    assert np.array_equal(volume.pixels, made.pixels, equal_nan=True)
    assert volume.unit == made.unit
    for frame, other in zip(volume.frames, made.frames, strict=True):
        assert frame.plane is not None and other.plane is not None
        assert np.allclose(frame.plane.position, other.plane.position, atol=1e-3)
        assert np.allclose(frame.plane.orientation, other.plane.orientation, atol=1e-6)
        assert np.allclose(frame.plane.spacing, other.plane.spacing)


def test_slices_lie_across_the_third_axis_where_none_is_coarser(saved: Saved) -> None:
    assert nifti.read(saved(np.zeros((5, 6, 7), np.float32), np.eye(4)), "MR").pixels.shape == (7, 6, 5)


def test_of_several_time_points_the_first_is_used_and_named(saved: Saved) -> None:
    values = np.stack([np.full((4, 5, 6), 1.0), np.full((4, 5, 6), 2.0)], axis=-1).astype(np.float32)
    volume = nifti.read(saved(values), "MR")
    assert volume.pixels.max() == 1
    assert volume.remarks == ("the file holds 2 volumes; the first was used",)


def test_lengths_in_metres_become_millimetres(saved: Saved) -> None:
    plane = nifti.read(saved(np.zeros((4, 5, 6), np.float32), np.diag([0.002, 0.003, 0.005, 1.0]), unit="meter"), "CT").frames[0].plane
    assert plane is not None
    assert (plane.spacing, plane.thickness) == ((pytest.approx(3), pytest.approx(2)), pytest.approx(5))


def test_infinite_values_show_nothing(saved: Saved) -> None:
    values = np.ones((4, 5, 6), np.float32)
    values[0, 0, 0], values[1, 1, 1] = np.inf, np.nan
    assert int(np.isnan(nifti.read(saved(values), "CT").pixels).sum()) == 2


@pytest.mark.parametrize(
    ("name", "weighting"),
    [("sub-01_ses-1_T1w.nii.gz", "T1"), ("IXI002-Guys-0828-T2.nii", "T2"), ("p1_FLAIR.nii.gz", "FLAIR"), ("brain.nii", "unknown"), ("t1_t2.nii", "unknown")],
)
def test_the_name_tells_how_mr_is_weighted(name: str, weighting: str) -> None:
    assert nifti.weighting_of(name) == weighting


def test_a_mask_meets_the_images_whatever_its_own_axes_are(saved: Saved) -> None:
    volume = nifti.read(saved(np.zeros((12, 10, 6), np.float32)), "CT")
    drawn = np.zeros((12, 10, 6), np.uint8)
    drawn[2:5, 3:6, 1:3] = 1
    straight = nifti.read_mask(saved(drawn, name="mask.nii"), volume)
    mirrored = np.diag([-2.0, 3.0, 5.0, 1.0])
    mirrored[0, 3] = 22.0
    turned = nifti.read_mask(saved(drawn[::-1].copy(), mirrored, "turned.nii"), volume)
    assert straight.sum() == drawn.sum()
    assert np.array_equal(straight, turned)
    moved = np.diag([2.0, 3.0, 5.0, 1.0])
    moved[0, 3] = 1000.0
    with pytest.raises(NotAnalysable, match="lies elsewhere"):
        nifti.read_mask(saved(drawn, moved, "moved.nii"), volume)


@pytest.mark.parametrize("shape", [(5,), (2, 2, 2, 2, 2), (4, 4, 0)])
def test_other_numbers_of_dimensions_are_refused(saved: Saved, shape: tuple[int, ...]) -> None:
    with pytest.raises(NotAnalysable, match=r"dimensions|readable"):
        nifti.read(saved(np.zeros(shape, np.float32)), "CT")


def test_colours_an_affine_without_inverse_and_skewed_voxels_are_refused(saved: Saved) -> None:
    colours = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(NotAnalysable, match="colours"):
        nifti.read(saved(colours), "MR")
    flat = np.diag([1.0, 1.0, 5.0, 1.0])
    flat[:3, 2] = (1, 1, 0)
    with pytest.raises(NotAnalysable, match="no inverse"):
        nifti.read(saved(np.zeros((4, 4, 4), np.float32), flat), "MR")
    skewed = np.diag([1.0, 1.0, 5.0, 1.0])
    skewed[0, 1] = 0.3
    with pytest.raises(NotAnalysable, match="right angles"):
        nifti.read(saved(np.zeros((4, 4, 4), np.float32), skewed), "MR")


@pytest.mark.parametrize("name", ["cut.nii", "cut.nii.gz"])
def test_a_damaged_file_is_refused_with_the_reason(saved: Saved, name: str) -> None:
    path = saved(np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32), name=name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(NotAnalysable, match=r"cannot be read|no readable NIfTI"):
        nifti.read(path, "CT")
    path.write_bytes(b"nothing")
    with pytest.raises(NotAnalysable, match="no readable NIfTI"):
        nifti.read(path, "CT")


def test_without_nibabel_one_sentence_says_what_to_install(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(np.zeros((4, 4, 4), np.float32))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(InputError, match=r"pacs-node\[train\]"):
        nifti.read(path, "CT")
