"""Functional groups that all enhanced multi-frame images have in common (PS3.3 C.7.6.16), and their dimensions (C.7.6.17)."""

from __future__ import annotations

from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pydicom.valuerep import DSfloat

from pacs_node.phantoms.codes import coded
from pacs_node.records import Frame, Volume

_DIMENSIONS = ("StackID", "InStackPositionNumber")


def decimals(values: tuple[float, ...]) -> list[DSfloat]:
    """Return decimal strings of at most 16 characters."""
    return [DSfloat(value, auto_format=True) for value in values]


def item(**values: object) -> Dataset:
    """Return a dataset with the given attributes."""
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def describe(dataset: Dataset, volume: Volume, organization_uid: str) -> None:
    """Set what the enhanced objects of all modalities say alike: equipment, content, dimensions, pixel presentation."""
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    dataset.ContentQualification = "RESEARCH"
    dataset.PixelPresentation = "MONOCHROME"
    dataset.VolumetricProperties = "VOLUME"
    dataset.VolumeBasedCalculationTechnique = "NONE"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.AcquisitionDateTime = dataset.AcquisitionDate + dataset.AcquisitionTime
    dataset.AcquisitionContextSequence = []
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionOrganizationSequence = [item(DimensionOrganizationUID=UID(organization_uid))]
    dataset.DimensionIndexSequence = [
        item(
            DimensionOrganizationUID=UID(organization_uid),
            DimensionIndexPointer=Tag(keyword),
            FunctionalGroupPointer=Tag("FrameContentSequence"),
            DimensionDescriptionLabel=keyword,
        )
        for keyword in _DIMENSIONS
    ]
    for keyword in ("AcquisitionDate", "AcquisitionTime"):
        del dataset[keyword]


def shared(volume: Volume, region: Dataset, laterality: str = "U") -> Dataset:
    """Return the shared groups: pixel measures, orientation and anatomy (a code of ``region``)."""
    plane = volume.frames[0].plane
    assert plane is not None
    return item(
        PixelMeasuresSequence=[item(PixelSpacing=decimals(plane.spacing), SliceThickness=DSfloat(plane.thickness or 0.0, auto_format=True))],
        PlaneOrientationSequence=[item(ImageOrientationPatient=decimals(plane.orientation))],
        FrameAnatomySequence=[item(FrameLaterality=laterality, AnatomicRegionSequence=[region])],
    )


def frame(place: Frame, begun: str, milliseconds: float) -> Dataset:
    """Return the groups of a frame: its content, with begin (DICOM date and time) and duration of its acquisition, and its position."""
    assert place.plane is not None and place.number is not None
    content = item(
        StackID="1",
        InStackPositionNumber=place.number,
        DimensionIndexValues=[1, place.number],
        FrameAcquisitionNumber=1,
        FrameReferenceDateTime=begun,
        FrameAcquisitionDateTime=begun,
        FrameAcquisitionDuration=milliseconds,
    )
    position = item(ImagePositionPatient=decimals(place.plane.position))
    return item(FrameContentSequence=[content], PlanePositionSequence=[position])


def frame_type(**more: object) -> Dataset:
    """Return what each modality's frame type macro says alike."""
    return item(
        FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "NONE"],
        PixelPresentation="MONOCHROME",
        VolumetricProperties="VOLUME",
        VolumeBasedCalculationTechnique="NONE",
        **more,
    )


def window(centre: float, width: float, explanation: str) -> Dataset:
    """Return the Frame VOI LUT item."""
    return item(WindowCenter=DSfloat(centre, auto_format=True), WindowWidth=DSfloat(width, auto_format=True), WindowCenterWidthExplanation=explanation)


HEAD = ("69536005", "SCT", "Head")
BRAIN = ("12738006", "SCT", "Brain")
CHEST_AND_ABDOMEN = ("416550000", "SCT", "Chest and Abdomen")
TRUNK = ("22943007", "SCT", "Trunk")


def region(code: tuple[str, str, str]) -> Dataset:
    """Return an anatomic region code (PS3.16 CID 4030, 4031)."""
    return coded(*code)
