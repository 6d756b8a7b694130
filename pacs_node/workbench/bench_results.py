"""`pacs-node bench results`: from a finding to its objects on the disk, kind by kind. No model runs: the finding is made up.

::

    headers and values of a CT series, heat with regions ─► build ─► file, synced      counted
                                                        └─► the gate, dciodvfy         shown beside it
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from pacs_node import results
from pacs_node.config import Equipment
from pacs_node.dicom.uids import derive_uid
from pacs_node.records import Algorithm, Calibration, Finding, Frame, Plane, Population, ResultObject, Run, Sources, Verdict, Volume
from pacs_node.results.regions import regions_of
from pacs_node.workbench.bench import work_folder

_FIELD = 256.0  # mm, width and height of a slice
_SLICE = 2.5  # mm

Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """What is built: a series of ``slices`` × ``rows``², judged on a grid of ``grid``², with so many regions."""

    slices: int = 135
    rows: int = 512
    grid: int = 128
    regions: int = 10


def bench_results(size: Size, rounds: int = 3, *, work: Path | None = None, say: Say = lambda what: None) -> dict[str, Any]:
    """Measure building and writing all kinds of results of a made-up finding.

    Returns for each kind the median seconds to build and to write it and its size in MB, the seconds of all kinds together (median, lowest,
    highest), and those of the gate and of ``dciodvfy``, which are None where that is not installed.
    """
    say("making the series")
    request = made_up_request(size)
    with work_folder(work) as folder:
        measured = []
        for number in range(rounds + 1):  # the first warms up
            say(f"round {number} of {rounds}")
            measured.append(_round(request, folder))
        gate, outside = _judged(request, folder)
    totals = [sum(build + write for build, write, _ in one.values()) for one in measured[1:]]
    return {
        "slices": size.slices,
        "rows": size.rows,
        "grid": size.grid,
        "regions": len(regions_of(request.finding)) if request.finding is not None else 0,
        "kinds": {kind: _median([one[kind] for one in measured[1:]]) for kind in measured[0]},
        "seconds": {"median": float(np.median(totals)), "lowest": min(totals), "highest": max(totals)},
        "gate_seconds": gate,
        "dciodvfy_seconds": outside,
    }


def _round(request: results.BuildRequest, folder: Path) -> dict[str, tuple[float, float, int]]:
    """Build and write each kind; returns seconds for both and bytes. Finding the regions is counted with the first."""
    begun, found, made = time.perf_counter(), {}, dict[str, Dataset]()
    if request.finding is not None:
        request = replace(request, regions=regions_of(request.finding))
    for kind in sorted(request.kinds, key=lambda name: results.BUILDERS[name].order):
        row = results.BUILDERS[kind]
        made[kind] = row.build(request, dict(made))
        built = time.perf_counter()
        path = folder / f"{kind}.dcm"
        results.save(ResultObject(kind, made[kind], row.order), path)
        written = time.perf_counter()
        found[kind] = (built - begun, written - built, path.stat().st_size)
        begun = time.perf_counter()
    return found


def _median(rounds: Sequence[tuple[float, float, int]]) -> dict[str, float]:
    build, write, size = (float(np.median([one[index] for one in rounds])) for index in range(3))
    return {"build_s": build, "write_s": write, "mb": size / 1e6}


def _judged(request: results.BuildRequest, folder: Path) -> tuple[float, float | None]:
    """Return the seconds that the gate takes over all objects of a build, and the program from outside over their files."""
    objects = results.build(request)
    begun = time.perf_counter()
    results.check_all(objects, request.sources, request.finding)
    gate = time.perf_counter() - begun
    if shutil.which("dciodvfy") is None:
        return gate, None
    begun = time.perf_counter()
    for one in objects:
        results.dciodvfy(folder / f"{one.kind}.dcm")
    return gate, time.perf_counter() - begun


# --- a finding without a model -----------------------------------------------------------------------------------------


def made_up_request(size: Size) -> results.BuildRequest:
    """Return a request for all kinds that can be made of a calibrated finding on a CT series that nobody took: not `raw`, which is made of its files."""
    headers = tuple(_header(size, index) for index in range(size.slices))
    finding = _finding(size, headers)
    kinds = tuple(kind for kind in results.BUILDERS if kind in results.possible_kinds(finding) and kind not in ("notice", "raw"))
    run = Run(0, 1, "bench", "bench", datetime(2026, 1, 1, tzinfo=UTC), "+".join(sorted(kinds)), "made up", partial=False)
    return results.BuildRequest(finding, None, Sources(headers), run, Equipment(), None, "UTC", kinds)


def _plane(size: Size, index: int, side: int) -> Plane:
    spacing = _FIELD / side
    first = (spacing - _FIELD) / 2
    return Plane((first, first, _SLICE * index), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (spacing, spacing), _SLICE)


def _header(size: Size, index: int) -> Dataset:
    made, plane = Dataset(), _plane(size, index, size.rows)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, derive_uid("bench results", size.slices, index)
    made.StudyInstanceUID, made.SeriesInstanceUID = derive_uid("bench results study"), derive_uid("bench results series")
    made.FrameOfReferenceUID, made.SyntheticData = derive_uid("bench results frame"), "YES"
    made.PatientName, made.PatientID, made.Modality, made.BodyPartExamined = "Made^Up", "BENCH", "CT", "CHEST"
    made.StudyDate, made.StudyTime, made.AccessionNumber, made.StudyID = "20260101", "120000", "1", "1"
    made.SeriesNumber, made.InstanceNumber, made.Rows, made.Columns = 1, index + 1, size.rows, size.rows
    made.ImagePositionPatient, made.ImageOrientationPatient = list(plane.position), list(plane.orientation)
    made.PixelSpacing, made.SliceThickness = list(plane.spacing), _SLICE
    return made


def _finding(size: Size, headers: Sequence[Dataset]) -> Finding:
    heat = _heat(size)
    slices = heat.max(axis=(1, 2))
    model = np.broadcast_to(np.linspace(-100, 100, size.grid, dtype=np.float32), heat.shape)
    frames = tuple(Frame(str(one.SOPInstanceUID), str(CTImageStorage), None, _plane(size, index, size.rows)) for index, one in enumerate(headers))
    pixels = np.broadcast_to(np.linspace(-100, 100, size.rows, dtype=np.float32), (size.slices, size.rows, size.rows))
    return Finding(
        volume=Volume(pixels, "[hnsf'U]", frames, "CT", str(headers[0].SeriesInstanceUID), str(headers[0].FrameOfReferenceUID), synthetic=True),
        algorithm=Algorithm("bench", "1", "nobody", "0" * 64, "0" * 64, "0" * 64, derive_uid("bench results device")),
        score=3.0,
        verdict=Verdict.ABOVE,
        calibration=Calibration(Population.SYNTHETIC, 100, 2.0, 0.05, date(2026, 1, 1)),
        percentile=99.0,
        p_value=0.01,
        parts={"made up": 3.0},
        slice_scores=slices,
        top_slices=tuple(int(index) for index in np.argsort(-slices, kind="stable")[:5]),
        heat=heat,
        heat_calibrated=True,
        planes=tuple(_plane(size, index, size.grid) for index in range(size.slices)),
        view=model,
        reconstruction=model,
        embedding=np.zeros((size.slices, 8), dtype=np.float16),
        window=(40.0, 400.0),
    )


def _heat(size: Size) -> NDArray[np.float32]:
    """Return a map with regions of 4 × 4 pixels on up to three slices, spread so that none touches another."""
    heat = np.zeros((size.slices, size.grid, size.grid), dtype=np.float32)
    across, along = max(1, size.grid // 6), max(1, size.slices // 4)
    for number in range(size.regions):
        row, column = divmod(number // along, across)
        first = 4 * (number % along)
        heat[first : first + 3, 6 * row : 6 * row + 4, 6 * column : 6 * column + 4] = 3.1 + 0.8 * number / size.regions
    return heat
