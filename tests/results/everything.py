"""Requests for every kind of result of any series, and every judge that looks at what is built from them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_node.analysis.modalities import READERS
from pacs_node.config import Equipment
from pacs_node.dicom import values
from pacs_node.dicom.header import has_pixels, text_of
from pacs_node.errors import NotAnalysable
from pacs_node.records import Calibration, Notice, NoticeStatus, Population, ResultObject, Sources, Verdict
from pacs_node.results import BUILDERS, BuildRequest, build, check_all, dciodvfy, save
from pacs_node.workbench.studies import studies_below
from tests.results import modalities
from tests.results.studies import RUN

KINDS = tuple(kind for kind in BUILDERS if kind not in ("notice", "raw"))  # `raw` needs the files of a whole series, and has tests of its own
GRID = 64
# What DCMTK says about every such object, whatever is in it: character sets that it cannot check, and the template of key objects that it does not know
DCMTK_LACKS = re.compile(r"(VR checker does not support|unknown/unsupported SpecificCharacterSet|Check for template constraints not yet supported)")
SEVERAL_SETS = "SpecificCharacterSet (0008,0005) element absent but extended characters"  # of several values, of which it knows the first only


def judgeable(files: Sequence[Path], modality: str, *, calibrated: bool = True) -> BuildRequest:
    """Return a request for all kinds of a series as the node reads it, with two regions in its map; raises `NotAnalysable` where it cannot be read."""
    volume = READERS[modality](files, lambda fraction: None)
    rows, columns = volume.pixels.shape[1:]
    frame = volume.frames[0]
    spacing = (frame.plane.spacing if frame.plane is not None else frame.spacing) or (1.0, 1.0)
    made = modalities.real(modality, files, kinds=KINDS, millimetres=max(rows * spacing[0], columns * spacing[1]) / GRID)
    if not calibrated:
        return made
    heat = np.zeros_like(made.finding.heat)
    middle = len(heat) // 2
    heat[middle : middle + 2, 20:34, 30:44] = 3.7
    heat[0, 40:52, 10:24] = 3.3
    heat[~np.isfinite(made.finding.view)] = 0.0  # as the pipeline leaves it
    population = Population.SYNTHETIC if volume.synthetic else Population.SITE
    finding = replace(
        made.finding,
        heat=heat,
        heat_calibrated=True,
        verdict=Verdict.ABOVE,
        calibration=Calibration(population, 120, 2.5, 0.1, date(2026, 1, 15)),
        percentile=99.2,
        p_value=0.0083,
    )
    return replace(made, finding=finding)


def notice_about(headers: Sequence[Dataset], reason: str) -> BuildRequest:
    """Return a request for the notice that a series was not analysed."""
    notice = Notice(NoticeStatus.NOT_ATTEMPTED, reason)
    return BuildRequest(None, notice, Sources(tuple(headers)), replace(RUN, pipeline="any"), Equipment(), None, "UTC", ("notice",))


def requests_below(folder: Path) -> Iterator[tuple[str, Path, BuildRequest]]:
    """Yield (name, a source file, request) for every series below a folder: its results, or a notice where it cannot be read."""
    for study in studies_below(folder):
        series: dict[str, list[int]] = {}
        known = set[str]()
        for index, header in enumerate(study.headers):
            if text_of(header, "SOPInstanceUID") in known:
                continue  # the node keeps a repeat aside
            known.add(text_of(header, "SOPInstanceUID"))
            series.setdefault(text_of(header, "SeriesInstanceUID"), []).append(index)
        for indices in series.values():
            files, headers = [study.files[index] for index in indices], [study.headers[index] for index in indices]
            modality = text_of(headers[0], "Modality")
            name = f"{files[0].relative_to(folder)} ({len(files)}, {modality or 'no modality'})"
            try:
                if modality not in READERS or not has_pixels(headers[0]):
                    raise NotAnalysable(f"no model judges {modality}")
                yield name, files[0], judgeable(files, modality)
            except NotAnalysable as error:
                yield name, files[0], notice_about(headers, error.reason)


# --- judges ------------------------------------------------------------------------------------------------------------


def verdicts(request: BuildRequest, folder: Path, source: Path | None = None) -> list[str]:
    """Build and store a request, and return what any judge finds wrong with its objects."""
    objects = build(request)
    said = list(check_all(objects, request.sources, request.finding))
    for one in objects:
        path = folder / f"{one.kind}.dcm"
        save(one, path)
        said += [f"{one.kind}: dciodvfy: {line}" for line in dciodvfy(path, source)[0]]
        faults = [*rendered(one, path, inherits=source is not None), *read_back(one, path), *beside_its_source(one, request)]
        said += [f"{one.kind}: {fault}" for fault in faults]
    return said


def rendered(one: ResultObject, path: Path, *, inherits: bool) -> list[str]:
    """Return what dsr2html complains about; with ``inherits`` not what it says of modules that are copied as received."""
    if one.kind not in ("sr", "ko", "notice") or shutil.which("dsr2html") is None:
        return []
    ended = subprocess.run(["dsr2html", str(path)], capture_output=True, timeout=120, check=False)
    if SEVERAL_SETS in ended.stderr.decode("utf-8", "replace") and one.dataset["SpecificCharacterSet"].VM > 1:
        return []
    lines = [line for line in ended.stderr.decode("utf-8", "replace").splitlines() if line and not DCMTK_LACKS.search(line)]
    copied = ("in PatientModule", "in GeneralStudyModule", "in PatientStudyModule") if inherits else ()
    said = [f"dsr2html: {line}" for line in lines if not line.endswith(copied)]
    return said if ended.returncode == 0 else [*said, f"dsr2html ended with {ended.returncode}"]


def read_back(one: ResultObject, path: Path) -> list[str]:
    """Read an object with pydicom and highdicom, and return what differs from what was built."""
    read, faults = dcmread(path), list[str]()
    if read.SOPInstanceUID != one.sop_uid or str(read.get("PatientName") or "") != str(one.dataset.get("PatientName") or ""):
        faults.append("pydicom reads another object")
    if one.kind in ("sc", "denoised", "seg") and len(read.pixel_array.reshape(-1, read.Rows * read.Columns * read.SamplesPerPixel)) != read.NumberOfFrames:
        faults.append("pydicom reads another number of frames")
    if one.kind == "sr":
        content = hd.sr.Comprehensive3DSR.from_dataset(read).content
        groups = [*content.get_image_measurement_groups(), *content.get_planar_roi_measurement_groups(), *content.get_volumetric_roi_measurement_groups()]
        faults += [] if groups and all(group.tracking_uid for group in groups) else ["highdicom reads no measurement group"]
    elif one.kind == "seg" and "FrameOfReferenceUID" in read:
        faults += [] if hd.seg.segread(path).number_of_segments == len(one.dataset.SegmentSequence) else ["highdicom reads other segments"]
    elif one.kind == "pm":
        stored = np.frombuffer(one.dataset.FloatPixelData, dtype="<f4").reshape(-1, read.Rows, read.Columns)
        faults += [] if np.array_equal(hd.imread(path).get_frames(apply_real_world_transform=True), stored) else ["highdicom reads other values"]
    elif one.kind == "ko":
        faults += [] if hd.ko.KeyObjectSelectionDocument.from_dataset(read).content.get_references() else ["highdicom reads no key object"]
    return faults


def beside_its_source(one: ResultObject, request: BuildRequest) -> list[str]:
    """Return which frames of an object do not lie on their source slices to 0.01 mm, by the corners of the frame and the source's own header."""
    faults, headers = [], {text_of(header, "SOPInstanceUID"): header for header in request.sources.analysed}
    shared = one.dataset.SharedFunctionalGroupsSequence[0] if "SharedFunctionalGroupsSequence" in one.dataset else Dataset()
    for number, frame in enumerate(one.dataset.get("PerFrameFunctionalGroupsSequence") or (), start=1):
        if "PlanePositionSequence" not in frame:
            continue
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        index = int(source.get("ReferencedFrameNumber") or 1) - 1
        header = headers[source.ReferencedSOPInstanceUID]
        position, orientation = (_place(header, keyword, index) for keyword in ("ImagePositionPatient", "ImageOrientationPatient"))
        corners = _corners(frame, shared, one.dataset.Rows, one.dataset.Columns)
        if np.abs((corners - position) @ np.cross(orientation[:3], orientation[3:])).max() > 0.01:
            faults.append(f"frame {number} lies beside its source slice")
    return faults


def _place(header: Dataset, keyword: str, index: int) -> np.ndarray:
    found = values.places(header, values.parse_key(keyword))
    return np.array([float(value) for value in found[index if len(found) > 1 else 0]])


def _corners(frame: Dataset, shared: Dataset, rows: int, columns: int) -> np.ndarray:
    def group(keyword: str) -> Dataset:
        return (frame.get(keyword) or shared[keyword].value)[0]

    first = np.array(group("PlanePositionSequence").ImagePositionPatient, dtype=float)
    axes = np.array(group("PlaneOrientationSequence").ImageOrientationPatient, dtype=float)
    down, right = (float(value) for value in group("PixelMeasuresSequence").PixelSpacing)
    steps = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1)]
    return np.array([first + axes[:3] * right * column + axes[3:] * down * row for row, column in steps])
