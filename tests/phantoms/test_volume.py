"""Volumes of phantoms and their truth."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pacs_node.errors import InputError
from pacs_node.phantoms import LESIONS, MODALITIES, Phantom, PhantomSpec, make_volume

REGIONS = tuple(MODALITIES["CT"].REGIONS)
ARTEFACTS = MODALITIES["CT"].ARTEFACTS
SMALL = PhantomSpec(slices=8, rows=128)


def change(phantom: Phantom) -> np.ndarray:
    return phantom.volume.pixels - phantom.healthy


def sigma(phantom: Phantom) -> float:
    box = ndimage.find_objects(phantom.lesion.astype(np.int8))[0]
    return float(phantom.healthy[box].std())


@pytest.mark.parametrize("region", REGIONS)
def test_the_same_specification_gives_the_same_volume(region: str) -> None:
    spec = replace(SMALL, region=region, lesion="texture", artefact="motion", seed=5)
    first, second = make_volume(spec), make_volume(spec)
    np.testing.assert_array_equal(first.volume.pixels, second.volume.pixels)
    np.testing.assert_array_equal(first.lesion, second.lesion)
    assert first.volume.frames == second.volume.frames


def test_another_seed_gives_another_body_and_other_uids() -> None:
    one, other = make_volume(SMALL), make_volume(replace(SMALL, seed=3))
    assert (one.foreground != other.foreground).any()
    assert not {frame.sop_uid for frame in one.volume.frames} & {frame.sop_uid for frame in other.volume.frames}


@pytest.mark.parametrize("region", REGIONS)
def test_without_a_lesion_the_volume_is_its_healthy_self(region: str) -> None:
    phantom = make_volume(replace(SMALL, region=region))
    np.testing.assert_array_equal(phantom.volume.pixels, phantom.healthy)
    assert not phantom.lesion.any()
    assert phantom.volume.pixels is not phantom.healthy


@pytest.mark.parametrize("lesion", LESIONS)
def test_a_lesion_leaves_the_anatomy_and_its_noise_as_they_were(lesion: str) -> None:
    plain, planted = make_volume(replace(SMALL, seed=2)), make_volume(replace(SMALL, seed=2, lesion=lesion))
    np.testing.assert_array_equal(planted.healthy, plain.healthy)
    near = ndimage.binary_dilation(planted.lesion, iterations=12)
    np.testing.assert_array_equal(planted.volume.pixels[~near], plain.volume.pixels[~near])


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("contrast", "size"), [(3.0, 0.04), (1.0, 0.01)])
@pytest.mark.parametrize("lesion", LESIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_a_lesion_has_the_asked_contrast_and_size(region: str, lesion: str, contrast: float, size: float, seed: int) -> None:
    phantom = make_volume(PhantomSpec(region=region, lesion=lesion, contrast=contrast, size=size, slices=10, rows=128, seed=seed))
    inside = change(phantom)[phantom.lesion]
    strength = abs(inside.mean()) if lesion == "ellipsoid" else np.sqrt(np.mean(inside**2))
    assert strength / sigma(phantom) == pytest.approx(contrast, rel=0.05)
    areas = phantom.lesion.sum(axis=(1, 2))
    most = int(areas.argmax())
    assert areas[most] / phantom.foreground[most].sum() == pytest.approx(size, rel=0.02)


@pytest.mark.parametrize("lesion", LESIONS)
@pytest.mark.parametrize("region", REGIONS)
def test_a_lesion_is_one_piece_inside_the_body_over_several_slices(region: str, lesion: str) -> None:
    phantom = make_volume(PhantomSpec(region=region, lesion=lesion, slices=12, rows=128, seed=4))
    assert not (phantom.lesion & ~phantom.foreground).any()
    assert np.count_nonzero(phantom.lesion.any(axis=(1, 2))) >= 3
    pieces, _ = ndimage.label(phantom.lesion, np.ones((3, 3, 3)))
    assert np.bincount(pieces.ravel())[1:].max() >= 0.9 * phantom.lesion.sum()


def test_a_texture_lesion_does_not_change_the_mean() -> None:
    phantom = make_volume(replace(SMALL, lesion="texture", slices=12))
    assert abs(change(phantom)[phantom.lesion].mean()) < 0.1 * sigma(phantom)


@pytest.mark.parametrize(
    ("region", "tissue", "low", "high", "part"),
    [("head", "brain", 15, 50, 0.35), ("body", "lung", -950, -700, 0.08), ("body", "liver", 20, 100, 0.15)],
)
def test_tissues_have_realistic_hounsfield_units(region: str, tissue: str, low: float, high: float, part: float) -> None:
    phantom = make_volume(PhantomSpec(region=region, slices=24, rows=96, padding=False))
    values = ndimage.uniform_filter(phantom.healthy, (1, 3, 3))[phantom.foreground]
    assert np.mean((values > low) & (values < high)) > part, tissue
    assert np.median(phantom.healthy[:, :6, :6]) == pytest.approx(-1000, abs=15)  # air in the corner
    assert phantom.healthy.max() > 500  # bone


def test_the_patient_lies_on_the_back_with_the_liver_on_the_right() -> None:
    phantom = make_volume(PhantomSpec(region="body", slices=6, rows=128, padding=False))
    middle = phantom.healthy[2]
    spine = np.argwhere(ndimage.uniform_filter(middle, 3) > 150)
    assert np.median(spine[:, 0]) > 64  # bone is mostly behind the middle
    organ = (ndimage.uniform_filter(middle, 7) > 40) & (ndimage.uniform_filter(middle, 7) < 80)
    assert organ[:, :64].sum() > organ[:, 64:].sum()  # the patient's right is on the left of the image


@pytest.mark.parametrize("artefact", ARTEFACTS)
@pytest.mark.parametrize("region", REGIONS)
def test_an_artefact_changes_the_image_and_not_the_truth(region: str, artefact: str) -> None:
    spec = replace(SMALL, region=region, lesion="ellipsoid", seed=6, size=0.02)
    plain, marred = make_volume(spec), make_volume(replace(spec, artefact=artefact))
    body = plain.foreground
    assert np.nanstd((marred.volume.pixels - plain.volume.pixels)[body]) > 10
    assert np.isfinite(marred.volume.pixels[np.isfinite(plain.volume.pixels)]).all()
    if artefact != "truncation":  # there the lesion must lie in what is left
        np.testing.assert_array_equal(marred.lesion, plain.lesion)


def test_a_lesion_in_a_truncated_scan_can_be_seen() -> None:
    phantom = make_volume(replace(SMALL, artefact="truncation", lesion="ellipsoid", region="body"))
    assert np.abs(change(phantom)[phantom.lesion]).mean() > 1


def test_padding_lies_outside_the_circle_and_can_be_forbidden() -> None:
    padded, whole = make_volume(replace(SMALL, padding=True)), make_volume(replace(SMALL, padding=False))
    outside = np.isnan(padded.volume.pixels)
    assert outside[:, 0, 0].all()
    assert outside.mean() == pytest.approx(1 - np.pi / 4, abs=0.01)
    assert not (outside & padded.foreground).any()
    assert np.isfinite(whole.volume.pixels).all()


@pytest.mark.parametrize(("tilt", "spacing"), [(0.0, 5.0), (18.5, 5.0), (-12.0, 3.0)])
def test_frames_lie_in_geometric_order_with_the_asked_spacing_and_tilt(tilt: float, spacing: float) -> None:
    phantom = make_volume(replace(SMALL, tilt=tilt, spacing=spacing, thickness=2.5))
    planes = [frame.plane for frame in phantom.volume.frames]
    assert all(plane is not None for plane in planes)
    positions = np.array([plane.position for plane in planes if plane])
    np.testing.assert_allclose(np.diff(positions, axis=0), np.tile([0, 0, spacing], (7, 1)), atol=1e-9)
    first = planes[0]
    assert first is not None and first.thickness == 2.5
    across, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    assert np.degrees(np.arcsin(-down[2])) == pytest.approx(tilt)
    assert np.cross(across, down)[2] > 0
    centre = positions[0] + across * first.spacing[1] * 63.5 + down * first.spacing[0] * 63.5
    np.testing.assert_allclose(centre[:2], 0, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lesion": "blob"}, "ellipsoid, mass_effect, texture, missing_structure"),
        ({"artefact": "ghost"}, "motion, metal, noise, truncation, bias_field"),
        ({"sequence": "T9"}, "sequence 'T9' is unknown: choose one of T1, T2, FLAIR"),
        ({"plane": "oblique"}, "axial, sagittal, coronal"),
        ({"rows": 20}, "rows 20 is out of range"),
        ({"slices": 0}, "slices 0 is out of range"),
        ({"contrast": float("nan")}, "contrast nan is out of range"),
        ({"size": 0.5}, "size 0.5 is out of range"),
        ({"seed": -1}, "seed -1 is out of range"),
    ],
)
def test_a_bad_option_is_refused_with_what_is_allowed(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SMALL, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"modality": "XX"}, "modality 'XX' is unknown: choose one of CT, MR, PT, US"),
        ({"region": "foot"}, "region for CT 'foot'.*head, body"),
        ({"plane": "coronal"}, "plane for CT 'coronal'.*axial"),
        ({"artefact": "bias_field"}, "artefact for CT 'bias_field'.*motion, metal, noise, truncation"),
    ],
)
def test_what_no_modality_offers_is_refused_when_it_is_made(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        make_volume(replace(SMALL, **options))


def test_a_lesion_without_room_is_refused_with_a_remedy() -> None:
    within_the_bone = PhantomSpec(slices=1, rows=64, lesion="ellipsoid", size=0.15, artefact="truncation", field_of_view=60)
    with pytest.raises(InputError, match="choose a smaller size or more slices"):
        make_volume(within_the_bone)
