"""What the phantoms of MR, PT and US have in common with each other and with CT."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from pacs_node.phantoms import LESIONS, MODALITIES, USUALS, Phantom, PhantomSpec, make_volume

MR = PhantomSpec(modality="MR", slices=8, rows=96)
SAGITTAL = replace(MR, plane="sagittal", sequence="T2")
PT = PhantomSpec(modality="PT", slices=8, rows=80)
US = PhantomSpec(modality="US", rows=128, slices=5)
SMALL = {"MR": MR, "MR sagittal": SAGITTAL, "PT": PT, "US": US}
SOME = {name: spec for name, spec in SMALL.items() if spec.plane == "axial"}
AXIAL = pytest.mark.parametrize("spec", SOME.values(), ids=SOME)
ALL = pytest.mark.parametrize("spec", SMALL.values(), ids=SMALL)


def change(phantom: Phantom) -> np.ndarray:
    return phantom.volume.pixels - phantom.healthy


@ALL
def test_the_same_specification_gives_the_same_volume(spec: PhantomSpec) -> None:
    first, second = (make_volume(replace(spec, lesion="texture", artefact="motion", seed=5)) for _ in range(2))
    np.testing.assert_array_equal(first.volume.pixels, second.volume.pixels)
    assert first.volume.frames == second.volume.frames


@ALL
def test_another_seed_gives_another_body_and_other_uids(spec: PhantomSpec) -> None:
    one, other = make_volume(spec), make_volume(replace(spec, seed=3))
    assert np.nanmean(np.abs(one.healthy - other.healthy)) > 0.02 * np.nanstd(one.healthy)
    assert not {frame.sop_uid for frame in one.volume.frames} & {frame.sop_uid for frame in other.volume.frames}


@ALL
def test_without_a_lesion_the_volume_is_its_healthy_self(spec: PhantomSpec) -> None:
    phantom = make_volume(spec)
    np.testing.assert_array_equal(phantom.volume.pixels, phantom.healthy)
    assert not phantom.lesion.any() and phantom.foreground.any()
    assert phantom.volume.pixels.dtype == np.float32 and phantom.volume.synthetic


@pytest.mark.parametrize("lesion", LESIONS)
@AXIAL
def test_a_lesion_changes_its_place_only(spec: PhantomSpec, lesion: str) -> None:
    plain, planted = make_volume(replace(spec, seed=2)), make_volume(replace(spec, seed=2, lesion=lesion))
    np.testing.assert_array_equal(planted.healthy, plain.healthy)
    near = ndimage.binary_dilation(planted.lesion, iterations=12)
    step = 0.002 if spec.modality == "PT" else 0.0  # the slope of a slice follows its largest uptake
    np.testing.assert_allclose(planted.volume.pixels[~near], plain.volume.pixels[~near], atol=step)
    assert not (planted.lesion & ~planted.foreground).any()


@pytest.mark.parametrize(("contrast", "size"), [(3.0, 0.03), pytest.param(1.0, 0.01, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lesion", LESIONS)
@ALL
def test_a_lesion_has_the_asked_contrast_and_size(spec: PhantomSpec, lesion: str, contrast: float, size: float) -> None:
    phantom = make_volume(replace(spec, lesion=lesion, contrast=contrast, size=size, seed=1))
    box = ndimage.find_objects(phantom.lesion.astype(np.int8))[0]
    inside = change(phantom)[phantom.lesion]
    strength = abs(inside.mean()) if lesion == "ellipsoid" else np.sqrt(np.mean(inside**2))
    # grey levels of ultrasound end at 0 and 255, which speckle reaches
    assert strength / phantom.healthy[box].std() == pytest.approx(contrast, rel=0.25 if spec.modality == "US" else 0.06)
    areas = phantom.lesion.sum(axis=(1, 2))
    most = int(areas.argmax())
    assert areas[most] / phantom.foreground[most].sum() == pytest.approx(size, rel=0.03)


@pytest.mark.parametrize(
    ("spec", "artefact"),
    [(spec, artefact) for spec in SOME.values() for artefact in MODALITIES[spec.modality].ARTEFACTS],
    ids=lambda value: value if isinstance(value, str) else value.modality,
)
def test_an_artefact_changes_the_image_and_not_the_truth(spec: PhantomSpec, artefact: str) -> None:
    spec = replace(spec, lesion="ellipsoid", seed=6, size=0.02)
    plain, marred = make_volume(spec), make_volume(replace(spec, artefact=artefact))
    np.testing.assert_array_equal(np.isnan(marred.volume.pixels), np.isnan(plain.volume.pixels))
    body = plain.foreground
    assert np.std((marred.volume.pixels - plain.volume.pixels)[body]) > 0.05 * np.std(plain.volume.pixels[body])
    assert marred.lesion.any() and np.abs(change(marred)[marred.lesion]).mean() > 0
    if artefact != "truncation":  # there the lesion must lie in what is left
        np.testing.assert_array_equal(marred.lesion, plain.lesion)


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_left_out_of_a_specification_is_usual_for_the_modality(modality: str) -> None:
    spec, usual = PhantomSpec(modality=modality), USUALS[modality]
    assert (spec.region, spec.slices, spec.rows) == (usual.region, usual.slices, usual.rows)
    assert spec.region in MODALITIES[modality].REGIONS
    assert PhantomSpec(modality=modality, region=usual.region, slices=usual.slices, rows=usual.rows).identity == spec.identity


def test_options_that_came_later_leave_the_uids_of_other_studies_as_they_were() -> None:
    assert "sequence" not in PhantomSpec().identity and "enhanced" not in PhantomSpec().identity
    texts = [PhantomSpec(modality="MR", sequence=sequence, plane=plane).identity for sequence in ("T1", "T2") for plane in ("axial", "coronal")]
    assert len({*texts, PhantomSpec(modality="MR", enhanced=True).identity}) == 5
