"""Magnetic resonance phantoms: contrasts, planes, headers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import MRImageStorage
from scipy import ndimage

from pacs_node.analysis.contrast import identify
from pacs_node.analysis.geometry import stack
from pacs_node.analysis.mr import contrast_of, read
from pacs_node.phantoms import PhantomSpec, make_study, make_volume, write_study
from pacs_node.phantoms.mr import SEQUENCES
from pacs_node.phantoms.mr_brain import TISSUES

SMALL = PhantomSpec(modality="MR", slices=6, rows=96, seed=1)


@pytest.mark.parametrize(
    ("sequence", "rising"),
    [
        ("T1", ("air", "fluid", "grey", "white", "fat")),
        ("T2", ("bone", "muscle", "white", "grey", "fluid")),
        ("FLAIR", ("fluid", "white", "grey", "fat")),
    ],
)
def test_tissues_differ_as_the_sequence_makes_them(sequence: str, rising: tuple[str, ...]) -> None:
    signals = [SEQUENCES[sequence].signal(TISSUES[name]) for name in rising]
    assert signals == sorted(signals)


def test_the_sequences_of_a_seed_show_one_head() -> None:
    t1, t2 = (make_volume(replace(SMALL, sequence=sequence)) for sequence in ("T1", "T2"))
    np.testing.assert_array_equal(t1.foreground, t2.foreground)
    brain = np.stack([ndimage.binary_erosion(plane, iterations=12) for plane in t1.foreground])
    assert np.corrcoef(t1.healthy[brain], t2.healthy[brain])[0, 1] < -0.3  # fluid is dark in the one and bright in the other
    assert t1.volume.series_uid != t2.volume.series_uid


@pytest.mark.parametrize(("plane", "orientation"), [("axial", (1, 0, 0, 0, 1, 0)), ("sagittal", (0, 1, 0, 0, 0, -1)), ("coronal", (1, 0, 0, 0, 0, -1))])
def test_a_plane_has_its_orientation_and_rises_along_its_normal(plane: str, orientation: tuple[int, ...]) -> None:
    volume = make_volume(replace(SMALL, plane=plane, spacing=4)).volume
    planes = [frame.plane for frame in volume.frames if frame.plane]
    assert {plane.orientation for plane in planes} == {orientation}
    described = stack(planes)
    assert described.order == tuple(range(6))
    assert described.spacing == pytest.approx(4) and described.tilt == pytest.approx(0, abs=1e-4)


def test_a_voxel_shows_the_same_place_in_every_plane() -> None:
    wide = replace(SMALL, slices=48, rows=64, spacing=240 / 64, field_of_view=240)
    axial, coronal = make_volume(wide), make_volume(replace(wide, plane="coronal"))
    first, other = axial.volume.frames[0].plane, coronal.volume.frames[0].plane
    assert first is not None and other is not None
    step = first.spacing[0]
    x, y = first.position[0] + step * np.arange(64), first.position[1] + step * np.arange(64)
    z = first.position[2] + step * np.arange(48)
    rows, columns, slices = (
        np.rint(line).astype(int) for line in ((other.position[2] - z) / step, (x - other.position[0]) / step, (y - other.position[1]) / step)
    )
    seen_z, seen_y = (rows >= 0) & (rows < 64), (slices >= 0) & (slices < 48)
    one = axial.foreground[seen_z][:, seen_y]
    same = one == coronal.foreground[slices[seen_y]][:, rows[seen_z]][:, :, columns].transpose(1, 0, 2)
    assert same.size > 100_000 and one.mean() > 0.2 and same.mean() > 0.95


def test_noise_is_rician_and_the_coil_receives_unevenly() -> None:
    phantom = make_volume(replace(SMALL, rows=128))
    corner = phantom.healthy[:, :10, :10]
    assert corner.mean() > 1 and corner.mean() / corner.std() == pytest.approx(1.91, abs=0.2)  # Rayleigh: √(π/2) / √(2 − π/2)


@pytest.mark.parametrize("sequence", SEQUENCES)
@pytest.mark.parametrize("plane", ["axial", "sagittal"])
def test_a_study_reads_back_as_the_volume_and_names_its_sequence(tmp_path: Path, sequence: str, plane: str) -> None:
    spec = replace(SMALL, sequence=sequence, plane=plane)
    paths = write_study(spec, tmp_path)
    volume, made = read(paths), make_volume(spec).volume
    np.testing.assert_array_equal(volume.pixels, made.pixels)
    assert volume.frames == made.frames and volume.unit == made.unit
    header = dcmread(paths[0])
    assert header.SOPClassUID == MRImageStorage and header.SpecificCharacterSet == "ISO_IR 100"
    assert identify(contrast_of(header)).value == sequence
    assert ("InversionTime" in header) == (sequence == "FLAIR")
    assert sequence in header.SeriesDescription and header.MRAcquisitionType == "2D"


def test_slice_location_rises_with_the_slices() -> None:
    for plane in ("axial", "sagittal", "coronal"):
        places = [float(dataset.SliceLocation) for dataset in make_study(replace(SMALL, plane=plane))]
        np.testing.assert_allclose(np.diff(places), 5.0)
