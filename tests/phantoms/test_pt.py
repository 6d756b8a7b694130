"""Positron emission tomography phantoms: uptake, activity, times."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import PositronEmissionTomographyImageStorage
from scipy import ndimage

from pacs_node.analysis.pt import read
from pacs_node.phantoms import PhantomSpec, make_study, make_volume, write_study

SMALL = PhantomSpec(modality="PT", slices=6, rows=64, seed=1)


def test_a_study_reads_back_as_the_same_uptake(tmp_path: Path) -> None:
    spec = replace(SMALL, slices=40, lesion="ellipsoid")
    volume, made = read(write_study(spec, tmp_path)), make_volume(spec).volume
    np.testing.assert_allclose(volume.pixels, made.pixels, rtol=1e-5, atol=1e-6)
    assert volume.frames == made.frames and volume.unit == made.unit == "{SUVbw}g/ml"


def test_the_uptake_follows_from_dose_weight_and_times(tmp_path: Path) -> None:
    header = dcmread(write_study(SMALL, tmp_path)[2])
    drug = header.RadiopharmaceuticalInformationSequence[0]
    began = datetime.strptime(header.SeriesDate + header.SeriesTime, "%Y%m%d%H%M%S")
    injected = datetime.strptime(drug.RadiopharmaceuticalStartDateTime, "%Y%m%d%H%M%S")
    left = float(drug.RadionuclideTotalDose) * 2 ** (-(began - injected).total_seconds() / 6586.2)
    activity = header.pixel_array * float(header.RescaleSlope)
    np.testing.assert_allclose(activity * float(header.PatientWeight) * 1000 / left, make_volume(SMALL).volume.pixels[2], rtol=1e-5, atol=1e-6)
    assert (header.Units, header.DecayCorrection, float(drug.RadionuclideHalfLife)) == ("BQML", "START", 6586.2)
    assert {"ATTN", "DECY", "SCAT"} <= set(header.CorrectedImage)
    assert header.SOPClassUID == PositronEmissionTomographyImageStorage and header.SpecificCharacterSet == "ISO_IR 100"


def test_every_slice_has_its_own_slope_and_bed_positions_follow_each_other() -> None:
    study = make_study(replace(SMALL, slices=70))
    assert len({float(dataset.RescaleSlope) for dataset in study}) > 35
    assert all(dataset.NumberOfSlices == 70 and dataset.ImageIndex == number for number, dataset in enumerate(study, start=1))
    times = [dataset.AcquisitionTime for dataset in study]
    assert times == sorted(times) and len(set(times)) == 3
    assert times[0] == study[0].SeriesTime
    for dataset in study:
        away = (datetime.strptime(dataset.AcquisitionTime, "%H%M%S") - datetime.strptime(dataset.SeriesTime, "%H%M%S")).total_seconds()
        assert 0 < float(dataset.FrameReferenceTime) / 1000 - away < dataset.ActualFrameDuration / 1000


def test_organs_take_up_what_is_usual() -> None:
    phantom = make_volume(PhantomSpec(modality="PT", slices=160, rows=64, seed=2))
    smooth = ndimage.uniform_filter(phantom.healthy, 3)
    highest = smooth.max(axis=(1, 2))  # from the thighs to the head
    assert highest[15:35].max() > 5  # bladder
    assert highest[130:].max() > 4  # brain
    assert 1.5 < np.median(smooth[60:80][smooth[60:80] > 1.5]) < 3.5  # liver, spleen, kidneys
    assert phantom.healthy[:, :4, :4].mean() < 0.1  # outside


@pytest.mark.parametrize("lesion", ["ellipsoid", "mass_effect"])
def test_no_uptake_is_negative(lesion: str) -> None:
    assert make_volume(replace(SMALL, lesion=lesion, contrast=6)).volume.pixels.min() >= 0
