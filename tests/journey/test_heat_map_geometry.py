"""Where the heat lies: the delivered map against the sources it names, both read from their DICOM attributes and by no code of the node.

::

    patient = position + column index · column spacing · row direction + row index · row spacing · column direction    (PS3.3 C.7.6.2.1.1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage
from scipy.ndimage import gaussian_filter, label

from pacs_node.database import jobs
from pacs_node.database.states import JobState
from pacs_node.executors.retry import LADDER, Effort
from pacs_node.journey.run_job import Bundles, Worker
from pacs_node.phantoms import PhantomSpec, make_study, make_volume
from pacs_node.records import Finding
from tests.journey.support import Town, shipped_bundles

pytestmark = pytest.mark.slow

OFF_PLANE = 0.01  # mm

RULES = "rules:\n  - name: all\n    when: {{Modality: {modality}}}\n    pipeline: {pipeline}\n    results: [pm]\n    send_to: [research]\n"

SPECS: dict[str, tuple[str, PhantomSpec]] = {
    "CT, axial": ("ct-body", PhantomSpec(region="body", slices=12, rows=128, seed=701)),
    "CT, gantry tilted": ("ct-head", PhantomSpec(region="head", slices=8, rows=128, tilt=17.5, seed=702)),
    "CT, enhanced, tilted the other way": ("ct-head", PhantomSpec(region="head", slices=8, rows=128, enhanced=True, tilt=-12.0, seed=703)),
    "MR, axial": ("mr-brain", PhantomSpec(modality="MR", slices=8, rows=128, seed=704)),
    "MR, sagittal": ("mr-brain", PhantomSpec(modality="MR", sequence="T2", plane="sagittal", slices=8, rows=128, seed=705)),
    "MR, coronal": ("mr-brain", PhantomSpec(modality="MR", sequence="FLAIR", plane="coronal", slices=8, rows=128, seed=706)),
    "MR, enhanced, sagittal": ("mr-brain", PhantomSpec(modality="MR", plane="sagittal", slices=8, rows=128, enhanced=True, seed=707)),
    "PET": ("pt-body", PhantomSpec(modality="PT", slices=12, rows=96, seed=708)),
    "PET, enhanced": ("pt-body", PhantomSpec(modality="PT", slices=12, rows=96, enhanced=True, seed=709)),
}


# --- geometry from attributes alone ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Image:
    """One frame as its attributes place it in the patient; lengths in millimetres."""

    position: NDArray[np.float64]  # of the centre of the first pixel
    along_row: NDArray[np.float64]  # unit vector in which the column index rises
    along_column: NDArray[np.float64]
    spacing: tuple[float, float]  # between rows, between columns
    shape: tuple[int, int]  # rows, columns
    thickness: float

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.cross(self.along_row, self.along_column)

    def at(self, row: float, column: float) -> NDArray[np.float64]:
        """Return where a pixel's centre lies."""
        return self.position + column * self.spacing[1] * self.along_row + row * self.spacing[0] * self.along_column

    def index_of(self, point: NDArray[np.float64]) -> tuple[float, float]:
        """Return row and column (fractions) of a point's projection on the plane."""
        offset = point - self.position
        return float(offset @ self.along_column / self.spacing[0]), float(offset @ self.along_row / self.spacing[1])

    def off_plane(self, point: NDArray[np.float64]) -> float:
        return abs(float((point - self.position) @ self.normal))

    @property
    def corners(self) -> list[NDArray[np.float64]]:
        rows, columns = self.shape
        return [self.at(row, column) for row in (0, rows - 1) for column in (0, columns - 1)]


def image_of(dataset: Dataset, number: int | None = None) -> Image:
    """Return a single-frame image, or frame ``number`` (from 1) of a multi-frame one by its functional groups."""
    groups: list[Dataset] = [dataset] * 3
    if number is not None:
        frame, shared = dataset.PerFrameFunctionalGroupsSequence[number - 1], dataset.SharedFunctionalGroupsSequence[0]
        names = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        groups = [(frame if name in frame else shared)[name].value[0] for name in names]
    place, orientation, measures = groups
    directions = np.array(orientation.ImageOrientationPatient, float).reshape(2, 3)
    spacing = tuple(map(float, measures.PixelSpacing))
    position = np.array(place.ImagePositionPatient, float)
    return Image(position, directions[0], directions[1], (spacing[0], spacing[1]), (dataset.Rows, dataset.Columns), float(measures.SliceThickness))


def sources_of_frames(heat: Dataset, sources: Sequence[Dataset]) -> list[tuple[str, int | None]]:
    """Return for each frame of a map the instance, and the frame in it, from which it says it was derived."""
    known = {str(source.SOPInstanceUID): source for source in sources}
    found = []
    for frame in heat.PerFrameFunctionalGroupsSequence:
        (item,) = frame.DerivationImageSequence[0].SourceImageSequence
        uid, number = str(item.ReferencedSOPInstanceUID), item.get("ReferencedFrameNumber")
        assert (number is not None) == ("NumberOfFrames" in known[uid])
        found.append((uid, None if number is None else int(number)))
    return found


# --- the journey -------------------------------------------------------------------------------------------------------


class MarkerEngine(Bundles):
    """Reads, scales and resamples as the bundles do, but gives the image itself as heat: what is bright in it is hot."""

    def analyse(self, files: Sequence[Path], name: str, folders: Mapping[str, Path], beat: Callable[[float], None], effort: Effort = LADDER[0]) -> Finding:
        finding = super().analyse(files, name, folders, beat, effort)
        view = np.nan_to_num(finding.view, nan=float(np.nanmin(finding.view)))
        return replace(finding, heat=((view - view.min()) / (view.max() - view.min())).astype(np.float32), heat_calibrated=False)


@pytest.fixture(scope="module")
def engine() -> MarkerEngine:
    """Keep the bundles warm from test to test."""
    return MarkerEngine("cpu")


def map_of(make_town: Callable[..., Town], engine: Bundles, pipeline: str, sources: Sequence[Dataset]) -> Dataset:
    """Send a study through a town and return the map that was delivered."""
    rules = RULES.format(modality=sources[0].Modality, pipeline=pipeline)
    town = make_town(rules=rules, bundles=shipped_bundles(pipeline))
    town.worker = Worker("test:worker-0", engine)
    town.send(sources)
    town.settle()
    with town.house.store.read() as session:
        (job,) = jobs.list_jobs(session)
    assert job.state is JobState.DONE, job.reason
    (file,) = (town.folder / "out").rglob("*.dcm")
    heat = dcmread(file)
    assert heat.SOPClassUID == ParametricMapStorage
    return heat


def pixels_of(heat: Dataset) -> NDArray[np.float32]:
    return np.frombuffer(heat.FloatPixelData, "<f4").reshape(-1, heat.Rows, heat.Columns)


# --- what is planted in the pixels -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Marker:
    """A bright block in one frame: frame (from 0), first row and column, rows, columns."""

    frame: int
    row: int
    column: int
    rows: int
    columns: int

    @property
    def centre(self) -> tuple[float, float]:
        return self.row + (self.rows - 1) / 2, self.column + (self.columns - 1) / 2


def plant(sources: Sequence[Dataset], spec: PhantomSpec) -> Marker:
    """Plant a block, brighter than all else, off the middle of one frame, so that no symmetry hides a flip."""
    rows, columns = sources[0].Rows, sources[0].Columns
    marker = Marker(spec.slices // 2 - 1, int(rows * 0.46), int(columns * 0.56), rows // 32, rows // 16)
    source = sources[0] if spec.enhanced else sources[marker.frame]
    pixels = source.pixel_array.copy()
    image = pixels[marker.frame] if spec.enhanced else pixels
    if spec.modality == "PT":
        make_room_above(source, image, marker, spec)
    largest = (1 << (source.BitsStored - source.PixelRepresentation)) - 1
    image[marker.row : marker.row + marker.rows, marker.column : marker.column + marker.columns] = largest
    source.PixelData = pixels.tobytes()
    return marker


def make_room_above(source: Dataset, image: NDArray[np.int16], marker: Marker, spec: PhantomSpec) -> None:
    """Raise the slope of a PET frame, whose brightest pixel has the largest number, eightfold and lower its pixels as much: all values stay."""
    if spec.enhanced:
        frame = source.PerFrameFunctionalGroupsSequence[marker.frame]
        frame.RealWorldValueMappingSequence[0].RealWorldValueSlope *= 8
        source = frame.PixelValueTransformationSequence[0]
    source.RescaleSlope = f"{float(source.RescaleSlope) * 8:.10g}"
    image[...] = image // 8


# --- the map lies on its sources, and heat where it was caused ---------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_every_frame_lies_on_the_image_it_names_and_a_bright_marker_is_hot_at_its_place_in_the_patient(
    make_town: Callable[..., Town], engine: MarkerEngine, name: str
) -> None:
    pipeline, spec = SPECS[name]
    sources = make_study(spec)
    marker = plant(sources, spec)
    heat = map_of(make_town, engine, pipeline, sources)
    assert_frames_on_sources(heat, sources)
    assert_hot_at(heat, sources, marker)


def test_every_frame_lies_on_its_slice_in_a_real_tilted_head_of_uneven_spacing(
    make_town: Callable[..., Town], engine: MarkerEngine, dataset_folder: Callable[[str], Path]
) -> None:
    sources = [dcmread(path) for path in sorted((dataset_folder("ct-ge-head-tilt") / "In").rglob("*.dcm"))]
    assert_frames_on_sources(map_of(make_town, engine, "ct-head", sources), sources)


def assert_frames_on_sources(heat: Dataset, sources: Sequence[Dataset]) -> None:
    """Each frame names one image, no two the same, and lies in its plane, all over."""
    by_uid = {str(source.SOPInstanceUID): source for source in sources}
    named = sources_of_frames(heat, sources)
    assert len(set(named)) == len(named) == heat.NumberOfFrames == sum(int(source.get("NumberOfFrames", 1)) for source in sources)
    assert {str(source.FrameOfReferenceUID) for source in sources} == {str(heat.FrameOfReferenceUID)}
    for index, (uid, number) in enumerate(named):
        ours, source = image_of(heat, index + 1), image_of(by_uid[uid], number)
        assert max(map(source.off_plane, ours.corners)) <= OFF_PLANE, (uid, number)
        assert np.allclose([ours.along_row, ours.along_column], [source.along_row, source.along_column], atol=1e-5)
        assert ours.thickness == pytest.approx(source.thickness, abs=OFF_PLANE)
        row, column = source.index_of(ours.at((ours.shape[0] - 1) / 2, (ours.shape[1] - 1) / 2))
        assert 0 <= row < source.shape[0] and 0 <= column < source.shape[1]  # the middle of the map is in the picture


def assert_hot_at(heat: Dataset, sources: Sequence[Dataset], marker: Marker) -> None:
    """The hottest frame names the image that holds the marker, and its heat is centred there to a quarter of a pixel of the map."""
    pixels = pixels_of(heat)
    hottest = int(pixels.max(axis=(1, 2)).argmax())
    uid, number = (str(sources[marker.frame].SOPInstanceUID), None) if len(sources) > 1 else (str(sources[0].SOPInstanceUID), marker.frame + 1)
    assert sources_of_frames(heat, sources)[hottest] == (uid, number)
    ours, source = image_of(heat, hottest + 1), image_of(next(one for one in sources if one.SOPInstanceUID == uid), number)
    hot = np.maximum(pixels[hottest] - 0.5 * pixels[hottest].max(), 0)
    patches, _ = label(hot > 0)
    hot *= patches == patches.ravel()[hot.argmax()]  # other tissue may be half as bright
    row, column = (float((hot * index).sum() / hot.sum()) for index in np.mgrid[: hot.shape[0], : hot.shape[1]])
    assert np.linalg.norm(ours.at(row, column) - source.at(*marker.centre)) <= 0.25 * max(ours.spacing)


STRONG: dict[str, tuple[str, PhantomSpec]] = {
    "CT, tilted": ("ct-head", PhantomSpec(region="head", slices=12, tilt=15.0, lesion="ellipsoid", contrast=8.0, seed=721)),
    "MR, sagittal": ("mr-brain", PhantomSpec(modality="MR", plane="sagittal", slices=12, lesion="ellipsoid", contrast=8.0, seed=723)),
    "PET": ("pt-body", PhantomSpec(modality="PT", slices=12, lesion="ellipsoid", contrast=8.0, seed=724)),
}


@pytest.mark.parametrize("name", STRONG)
def test_the_hottest_place_of_the_shipped_bundles_is_a_strong_lesion(make_town: Callable[..., Town], name: str) -> None:
    pipeline, spec = STRONG[name]
    sources = make_study(spec)
    heat = map_of(make_town, Bundles("cpu"), pipeline, sources)
    lesion = make_volume(spec).lesion  # in the order of the sources
    places = np.array([image_of(sources[index]).at(row, column) for index, row, column in np.argwhere(lesion)])
    smooth = gaussian_filter(pixels_of(heat), (0, 2, 2))  # a place, not a pixel: the tail ends at 4, where many pixels are equal
    frame, row, column = np.unravel_index(smooth.argmax(), smooth.shape)
    found = image_of(heat, int(frame) + 1).at(float(row), float(column))
    assert np.linalg.norm(places - found, axis=1).min() <= 2 * max(image_of(heat, 1).spacing)
