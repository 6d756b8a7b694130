"""What an Enhanced MR Image says about itself (PS3.3 A.36, C.8.13)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from pacs_node.phantoms import groups, mr
from pacs_node.phantoms.groups import item
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.phantoms.volume import uid
from pacs_node.records import Volume

_CONTRAST = {"T1": "T1", "T2": "T2", "FLAIR": "FLUID_ATTENUATED"}  # Acquisition Contrast (0008,9209)


def describe(spec: PhantomSpec, dataset: Dataset, volume: Volume) -> None:
    """Set the modules and functional groups of the object; its frames are those of the volume."""
    groups.describe(dataset, volume, uid(spec, "dimensions"))
    mr.describe_series(spec, dataset)
    dataset.AcquisitionContrast = _CONTRAST[spec.sequence]
    dataset.ComplexImageComponent = "MAGNITUDE"
    _pulse_sequence(spec, dataset)
    dataset.SharedFunctionalGroupsSequence = [_shared(spec, volume)]
    begun, lasts = dataset.AcquisitionDateTime, dataset.AcquisitionDuration * 1000
    dataset.PerFrameFunctionalGroupsSequence = [groups.frame(place, begun, lasts) for place in volume.frames]


def _pulse_sequence(spec: PhantomSpec, dataset: Dataset) -> None:
    """Set the MR Pulse Sequence module (PS3.3 C.8.13.4) and the general values of the Enhanced MR Image module."""
    sequence = mr.SEQUENCES[spec.sequence]
    dataset.PulseSequenceName = f"phantom_{spec.sequence.lower()}"
    dataset.MRAcquisitionType = "2D"
    dataset.EchoPulseSequence = "SPIN"
    dataset.MultipleSpinEcho = "NO"
    dataset.MultiPlanarExcitation = "NO"
    dataset.PhaseContrast = "NO"
    dataset.TimeOfFlightContrast = "NO"
    dataset.SteadyStatePulseSequence = "NONE"
    dataset.EchoPlanarPulseSequence = "NO"
    dataset.SaturationRecovery = "NO"
    dataset.SpectrallySelectedSuppression = "NONE"
    dataset.OversamplingPhase = "NONE"
    dataset.GeometryOfKSpaceTraversal = "RECTILINEAR"
    dataset.RectilinearPhaseEncodeReordering = "LINEAR"
    dataset.SegmentedKSpaceTraversal = "SINGLE" if sequence.train == 1 else "PARTIAL"
    dataset.NumberOfKSpaceTrajectories = 1
    dataset.ResonantNucleus = "1H"
    dataset.KSpaceFiltering = "NONE"
    dataset.MagneticFieldStrength = mr.FIELD
    dataset.ApplicableSafetyStandardAgency = "IEC"
    dataset.AcquisitionDuration = sequence.repetition * spec.rows / sequence.train / 1000


def _shared(spec: PhantomSpec, volume: Volume) -> Dataset:
    found = groups.shared(volume, groups.region(groups.BRAIN))
    middle = mr.SEQUENCES[spec.sequence].white * mr.scanner(spec).gain
    found.PixelValueTransformationSequence = [item(RescaleIntercept=0, RescaleSlope=1, RescaleType="US")]
    found.FrameVOILUTSequence = [groups.window(round(middle), round(2 * middle), "BRAIN")]
    found.MRImageFrameTypeSequence = [
        groups.frame_type(AcquisitionContrast=_CONTRAST[spec.sequence], ComplexImageComponent="MAGNITUDE"),
    ]
    _timing(spec, found)
    _coils(spec, found)
    return found


def _timing(spec: PhantomSpec, found: Dataset) -> None:
    """Set the groups about echo, repetition and inversion."""
    sequence = mr.SEQUENCES[spec.sequence]
    found.MRTimingAndRelatedParametersSequence = [
        item(
            RepetitionTime=sequence.repetition,
            FlipAngle=sequence.flip,
            EchoTrainLength=sequence.train,
            RFEchoTrainLength=sequence.train,
            GradientEchoTrainLength=0,
            SpecificAbsorptionRateSequence=[item(SpecificAbsorptionRateDefinition="IEC_HEAD", SpecificAbsorptionRateValue=0.0)],
            GradientOutputType="DB_DT",
            GradientOutput=0.0,
            OperatingModeSequence=[item(OperatingModeType="STATIC FIELD", OperatingMode="IEC_NORMAL")],
        )
    ]
    found.MREchoSequence = [item(EffectiveEchoTime=float(sequence.echo))]
    modifier = item(
        InversionRecovery="NO" if sequence.inversion is None else "YES",
        FlowCompensation="NONE",
        Spoiling="NONE",
        T2Preparation="NO",
        SpectrallySelectedExcitation="NONE",
        SpatialPresaturation="NONE",
        PartialFourier="NO",
        ParallelAcquisition="NO",
    )
    if sequence.inversion is not None:
        modifier.InversionTimes = [float(sequence.inversion)]
    found.MRModifierSequence = [modifier]


def _coils(spec: PhantomSpec, found: Dataset) -> None:
    """Set the groups about field of view, coils and averages."""
    found.MRFOVGeometrySequence = [
        item(
            InPlanePhaseEncodingDirection="ROW",
            MRAcquisitionFrequencyEncodingSteps=spec.rows,
            MRAcquisitionPhaseEncodingStepsInPlane=spec.rows,
            PercentSampling=DSfloat(100.0),
            PercentPhaseFieldOfView=DSfloat(100.0),
        )
    ]
    found.MRImagingModifierSequence = [
        item(
            MagnetizationTransfer="NONE",
            BloodSignalNulling="NO",
            Tagging="NONE",
            TransmitterFrequency=mr.FREQUENCY,
            PixelBandwidth=DSfloat(150.0),
        )
    ]
    found.MRReceiveCoilSequence = [item(ReceiveCoilName="PHANTOM", ReceiveCoilManufacturerName="", ReceiveCoilType="VOLUME", QuadratureReceiveCoil="YES")]
    found.MRTransmitCoilSequence = [item(TransmitCoilName="PHANTOM", TransmitCoilManufacturerName="", TransmitCoilType="BODY")]
    found.MRAveragesSequence = [item(NumberOfAverages=DSfloat(1.0))]
