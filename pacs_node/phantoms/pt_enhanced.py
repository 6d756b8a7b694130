"""What an Enhanced PET Image says about itself (PS3.3 A.56, C.8.22)."""

from __future__ import annotations

from datetime import timedelta

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from pacs_node.phantoms import groups, pt, pt_header
from pacs_node.phantoms.codes import coded
from pacs_node.phantoms.groups import item
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.phantoms.volume import uid
from pacs_node.records import Volume

_CORRECTED = (
    "DecayCorrected",
    "AttenuationCorrected",
    "ScatterCorrected",
    "DeadTimeCorrected",
    "SensitivityCalibrated",
    "RandomsCorrected",
)
_UNCORRECTED = ("GantryMotionCorrected", "PatientMotionCorrected", "CountLossNormalizationCorrected")
_LARGEST = 32767


def describe(spec: PhantomSpec, dataset: Dataset, volume: Volume) -> None:
    """Set the modules and functional groups of the object; its frames are those of the volume."""
    groups.describe(dataset, volume, uid(spec, "dimensions"))
    start = pt_header.series_start(dataset)
    dataset.ManufacturerModelName = pt.scanner(spec).model
    dataset.ProtocolName = f"Phantom {spec.region}"
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = "CHESTABDOMEN"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    pt_header.describe_patient(spec, dataset)
    drug = pt_header.radiopharmaceutical(spec, start)
    del drug.Radiopharmaceutical, drug.RadiopharmaceuticalStartTime  # the enhanced object has codes and a date with the time
    drug.RadiopharmaceuticalAgentNumber = 1
    drug.AdministrationRouteCodeSequence = [coded("47625008", "SCT", "Intravenous route")]
    dataset.RadiopharmaceuticalInformationSequence = [drug]
    _acquisition(spec, dataset)
    dataset.SharedFunctionalGroupsSequence = [_shared(spec, volume)]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(spec, dataset, volume, index) for index in range(spec.slices)]


def _acquisition(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set the Enhanced PET Acquisition and Enhanced PET Image modules (PS3.3 C.8.22.2, C.8.22.3)."""
    dataset.AcquisitionDuration = float(pt_header.bed(spec.slices - 1) + pt_header.BED_SECONDS)
    dataset.CollimatorType = "NONE"
    dataset.TypeOfDetectorMotion = "STATIONARY"
    dataset.DetectorGeometry = "CYLINDRICAL_RING"
    dataset.TransverseDetectorSeparation = dataset.AxialDetectorDimension = 4.0  # mm
    dataset.CoincidenceWindowWidth = 4.5  # ns
    dataset.EnergyWindowRangeSequence = [item(EnergyWindowLowerLimit=435, EnergyWindowUpperLimit=650)]
    dataset.AcquisitionStartCondition, dataset.AcquisitionTerminationCondition = "MANU", "TIME"
    dataset.TerminationTimeThreshold = float(pt_header.BED_SECONDS)
    dataset.DetectorNormalizationCorrection = "YES"
    dataset.ViewCodeSequence = [coded("62824007", "SCT", "Transverse")]
    dataset.TableMotion = "STATIC"
    dataset.TimeOfFlightInformationUsed = "FALSE"
    dataset.DecayCorrectionDateTime = dataset.AcquisitionDateTime
    dataset.CountsSource = "EMISSION"
    for keyword in _CORRECTED:
        setattr(dataset, keyword, "YES")
    for keyword in _UNCORRECTED:
        setattr(dataset, keyword, "NO")
    dataset.NonUniformRadialSamplingCorrected = "NO"
    dataset.AttenuationCorrectionSource = "CT"
    dataset.AttenuationCorrectionTemporalRelationship = "SEPARATE"
    dataset.ScatterCorrectionMethod = "synthetic"
    dataset.RandomsCorrectionMethod = "DLYD"


def _shared(spec: PhantomSpec, volume: Volume) -> Dataset:
    plane = volume.frames[0].plane
    assert plane is not None
    found = groups.shared(volume, groups.region(groups.TRUNK))
    found.PETFrameTypeSequence = [groups.frame_type()]
    found.PETFrameAcquisitionSequence = [
        item(TableHeight=150.0, GantryDetectorTilt=DSfloat(0.0), GantryDetectorSlew=DSfloat(0.0), DataCollectionDiameter=DSfloat(700.0))
    ]
    found.PETPositionSequence = [item(TablePosition=0.0, DataCollectionCenterPatient=[0.0, 0.0, 0.0], ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0])]
    found.PETReconstructionSequence = [
        item(
            ReconstructionType="3D",
            ReconstructionAlgorithm="MLEM",
            IterativeReconstructionMethod="YES",
            NumberOfIterations=3,
            NumberOfSubsets=21,
            ReconstructionDiameter=DSfloat(plane.spacing[0] * spec.rows, auto_format=True),
        )
    ]
    found.RadiopharmaceuticalUsageSequence = [item(RadiopharmaceuticalAgentNumber=1)]
    found.PETFrameCorrectionFactorsSequence = [
        item(PrimaryPromptsCountsAccumulated=1, SliceSensitivityFactor=1.0, DecayFactor=1.0, ScatterFractionFactor=0.3, DeadTimeFactor=1.0)
    ]
    return found


def _frame(spec: PhantomSpec, dataset: Dataset, volume: Volume, index: int) -> Dataset:
    """Return the groups of a frame: its bed position's time, its own slope, the range that is usually shown."""
    begun = pt_header.series_start(dataset) + timedelta(seconds=pt_header.bed(index))
    found = groups.frame(volume.frames[index], f"{begun:%Y%m%d%H%M%S}", pt_header.BED_SECONDS * 1000.0)
    slope = pt.slope(spec, volume.pixels[index])
    found.FrameContentSequence[0].TemporalPositionIndex = 1
    found.PixelValueTransformationSequence = [item(RescaleIntercept=0, RescaleSlope=DSfloat(slope, auto_format=True), RescaleType="US")]
    found.RealWorldValueMappingSequence = [
        item(
            RealWorldValueFirstValueMapped=0,
            RealWorldValueLastValueMapped=_LARGEST,
            RealWorldValueIntercept=0.0,
            RealWorldValueSlope=float(DSfloat(slope, auto_format=True)),
            LUTExplanation="Activity concentration",
            LUTLabel="BQML",
            MeasurementUnitsCodeSequence=[coded("Bq/ml", "UCUM", "Becquerels/milliliter")],
        )
    ]
    shown = 7 * pt_header.injection(spec).activity_per_suv
    found.FrameVOILUTSequence = [groups.window(shown / 2, shown, "SUV 0 TO 7")]
    return found
