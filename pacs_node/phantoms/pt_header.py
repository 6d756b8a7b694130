"""What a PET Image says about itself: series, isotope, orientation and image modules (PS3.3 C.8.9), with times and doses that agree.

::

    injection ──── uptake time ────► series = first bed position ──► next bed position … (decay is corrected to the series' start)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from pacs_node.phantoms.codes import coded
from pacs_node.phantoms.spec import PhantomSpec

HALF_LIFE = 6586.2  # s, fluorine-18
_POSITRON_FRACTION = 0.97
_BED_SLICES, BED_SECONDS = 32, 120
_TRACER = "Fluorodeoxyglucose"

FLUORINE_18 = ("77004003", "SCT", "^18^Fluorine")
FDG = ("35321007", "SCT", "Fluorodeoxyglucose F^18^")


@dataclass(frozen=True, slots=True)
class Injection:
    """What was given to whom, when; everything follows from the seed."""

    weight: float  # kg
    height: float  # m
    dose: float  # Bq at the time of the injection
    wait: int  # s from the injection to the start of the series

    @property
    def decayed(self) -> float:
        """Activity left at the start of the series, Bq."""
        return self.dose * 2 ** (-self.wait / HALF_LIFE)

    @property
    def activity_per_suv(self) -> float:
        """Bq/ml that are a SUVbw of 1 g/ml."""
        return self.decayed / (self.weight * 1000)


def injection(spec: PhantomSpec) -> Injection:
    """Return the injection of the seed."""
    weight = 55.0 + spec.seed * 17 % 45
    return Injection(weight, 1.58 + spec.seed * 7 % 30 / 100, round(3.7e6 * weight, -5), 3300 + spec.seed * 61 % 900)


def series_start(dataset: Dataset) -> datetime:
    """Return the start of the series."""
    return datetime.strptime(dataset.SeriesDate + dataset.SeriesTime, "%Y%m%d%H%M%S")


def bed(index: int) -> int:
    """Return how many seconds after the series' start the bed position of a slice was begun."""
    return index // _BED_SLICES * BED_SECONDS


def average_time(index: int) -> float:
    """Return when the activity of a slice was its mean over the bed position, seconds after the series' start (PS3.3 C.8.9.4.1.5)."""
    rate = math.log(2) / HALF_LIFE
    lived = rate * BED_SECONDS
    return bed(index) + math.log(lived / (1 - math.exp(-lived))) / rate


def radiopharmaceutical(spec: PhantomSpec, start: datetime) -> Dataset:
    """Return the item of the Radiopharmaceutical Information Sequence (PS3.3 C.8.9.2)."""
    given, item = injection(spec), Dataset()
    when = start - timedelta(seconds=given.wait)
    item.Radiopharmaceutical = _TRACER
    item.RadiopharmaceuticalStartTime = f"{when:%H%M%S}"
    item.RadiopharmaceuticalStartDateTime = f"{when:%Y%m%d%H%M%S}"
    item.RadionuclideTotalDose = DSfloat(given.dose, auto_format=True)
    item.RadionuclideHalfLife = HALF_LIFE
    item.RadionuclidePositronFraction = _POSITRON_FRACTION
    item.RadionuclideCodeSequence = [coded(*FLUORINE_18)]
    item.RadiopharmaceuticalCodeSequence = [coded(*FDG)]
    return item


def describe_patient(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set weight and height, without which there is no SUV."""
    given = injection(spec)
    dataset.PatientWeight, dataset.PatientSize = given.weight, DSfloat(given.height, auto_format=True)


def describe_position(dataset: Dataset) -> None:
    """Set the NM/PET Patient Orientation module, which stands in place of Patient Position (PS3.3 C.8.4.6)."""
    lying = coded("102538003", "SCT", "recumbent")
    lying.PatientOrientationModifierCodeSequence = [coded("40199007", "SCT", "supine")]
    dataset.PatientOrientationCodeSequence = [lying]
    dataset.PatientGantryRelationshipCodeSequence = [coded("102540001", "SCT", "headfirst")]


def describe_series(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set the PET Series and PET Isotope modules."""
    dataset.Units = "BQML"
    dataset.CountsSource = "EMISSION"
    dataset.SeriesType = ["STATIC", "IMAGE"] if spec.slices <= _BED_SLICES else ["WHOLE BODY", "IMAGE"]
    dataset.NumberOfSlices = spec.slices
    dataset.CorrectedImage = ["DECY", "ATTN", "SCAT", "DTIM", "RAN", "DCAL", "NORM"]
    dataset.DecayCorrection = "START"
    dataset.RandomsCorrectionMethod = "DLYD"
    dataset.AttenuationCorrectionMethod = "synthetic"
    dataset.ScatterCorrectionMethod = "synthetic"
    dataset.ReconstructionMethod = "synthetic"
    dataset.CollimatorType = "NONE"
    dataset.TypeOfDetectorMotion = "NONE"
    dataset.RadiopharmaceuticalInformationSequence = [radiopharmaceutical(spec, series_start(dataset))]


def describe_slice(dataset: Dataset, index: int, slope: float) -> None:
    """Set what differs from image to image: rescale slope in Bq/ml, index and times."""
    begun = series_start(dataset) + timedelta(seconds=bed(index))
    dataset.AcquisitionDate, dataset.AcquisitionTime = f"{begun:%Y%m%d}", f"{begun:%H%M%S}"
    dataset.RescaleSlope, dataset.RescaleIntercept = DSfloat(slope, auto_format=True), 0
    dataset.ImageIndex = index + 1
    dataset.ActualFrameDuration = BED_SECONDS * 1000
    dataset.FrameReferenceTime = DSfloat(round(average_time(index) * 1000, 1), auto_format=True)
    dataset.DecayFactor = DSfloat(round(2 ** (average_time(index) / HALF_LIFE), 6), auto_format=True)
