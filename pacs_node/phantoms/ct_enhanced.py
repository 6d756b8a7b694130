"""What an Enhanced CT Image says about itself (PS3.3 A.38, C.8.15)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.valuerep import DSfloat

from pacs_node.phantoms import ct, groups
from pacs_node.phantoms.codes import coded
from pacs_node.phantoms.groups import item
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.phantoms.volume import uid
from pacs_node.records import Volume

_REGIONS = {"head": groups.HEAD, "body": groups.CHEST_AND_ABDOMEN}
_FRAME = 1000.0  # ms that a slice takes
_DISTANCES = (1000.0, 550.0)  # source to detector, source to centre, mm


def describe(spec: PhantomSpec, dataset: Dataset, volume: Volume) -> None:
    """Set the modules and functional groups of the object; its frames are those of the volume."""
    groups.describe(dataset, volume, uid(spec, "dimensions"))
    protocol = ct.PROTOCOLS[spec.region]
    dataset.ManufacturerModelName = ct.scanner(spec).model
    dataset.ProtocolName = f"Phantom {spec.region}"
    dataset.PatientPosition = "HFS"
    dataset.BodyPartExamined = protocol.body_part
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    if ct.padded(spec):
        dataset.PixelPaddingValue = ct.PADDING
    dataset.AcquisitionDuration = _FRAME / 1000 * spec.slices
    dataset.SharedFunctionalGroupsSequence = [_shared(spec, volume)]
    begun = dataset.AcquisitionDateTime
    dataset.PerFrameFunctionalGroupsSequence = [groups.frame(place, begun, _FRAME) for place in volume.frames]


def _shared(spec: PhantomSpec, volume: Volume) -> Dataset:
    centre, width, name = ct.PROTOCOLS[spec.region].windows[0]
    found = groups.shared(volume, groups.region(_REGIONS[spec.region]))
    found.PixelValueTransformationSequence = [item(RescaleIntercept=ct.INTERCEPT, RescaleSlope=1, RescaleType="HU")]
    found.FrameVOILUTSequence = [groups.window(centre, width, name)]
    found.CTImageFrameTypeSequence = [groups.frame_type()]
    found.CTAcquisitionTypeSequence = [item(AcquisitionType="SEQUENCED", ConstantVolumeFlag="NO", FluoroscopyFlag="NO")]
    found.IrradiationEventIdentificationSequence = [item(IrradiationEventUID=uid(spec, "irradiation"))]
    _acquisition(spec, volume, found)
    return found


def _acquisition(spec: PhantomSpec, volume: Volume, found: Dataset) -> None:
    """Set the groups about tube, table and reconstruction."""
    machine, plane = ct.scanner(spec), volume.frames[0].plane
    assert plane is not None
    wide, thick = plane.spacing[0] * spec.rows, plane.thickness or 0.0
    found.CTAcquisitionDetailsSequence = [
        item(
            RotationDirection="CW",
            RevolutionTime=1.0,
            SingleCollimationWidth=thick,
            TotalCollimationWidth=thick,
            TableHeight=0.0,
            GantryDetectorTilt=DSfloat(spec.tilt, auto_format=True),
            DataCollectionDiameter=DSfloat(wide, auto_format=True),
        )
    ]
    found.CTTableDynamicsSequence = [item(TableSpeed=0.0)]
    found.CTPositionSequence = [item(TablePosition=0.0, DataCollectionCenterPatient=[0.0, 0.0, 0.0], ReconstructionTargetCenterPatient=[0.0, 0.0, 0.0])]
    found.CTGeometrySequence = [item(DistanceSourceToDetector=_DISTANCES[0], DistanceSourceToDataCollectionCenter=_DISTANCES[1])]
    found.CTReconstructionSequence = [
        item(
            ReconstructionAlgorithm="FILTER_BACK_PROJ",
            ConvolutionKernel=machine.kernel,
            ConvolutionKernelGroup="BRAIN" if spec.region == "head" else "SOFT_TISSUE",
            ReconstructionDiameter=DSfloat(wide, auto_format=True),
            ReconstructionPixelSpacing=[plane.spacing[0], plane.spacing[1]],
            ReconstructionAngle=360.0,
            ImageFilter="NONE",
        )
    ]
    found.CTExposureSequence = [
        item(
            ExposureTimeInms=_FRAME,
            XRayTubeCurrentInmA=float(machine.current),
            ExposureInmAs=float(machine.current) * _FRAME / 1000,
            ExposureModulationType="NONE",
            CTDIvol=None,
            CTDIPhantomTypeCodeSequence=[coded("113690", "DCM", "IEC Head Dosimetry Phantom")],
        )
    ]
    found.CTXRayDetailsSequence = [
        item(
            KVP=machine.kvp,
            FocalSpots=[1.0],
            FilterType="FLAT",
            FilterMaterial="ALUMINUM",
        )
    ]
