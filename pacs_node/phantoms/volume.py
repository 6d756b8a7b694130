"""From a specification to a volume with its truth.

::

    grid ─► anatomy ─► + lesion ─► + noise ─► artefact ─► padding, rounding ─► Phantom
                  └──────────────► + noise ─► artefact ─► padding, rounding ─► (healthy)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pacs_node.dicom.uids import derive_uid
from pacs_node.phantoms import lesions
from pacs_node.phantoms import planes as laid_out
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.modalities import MODALITIES, Modality
from pacs_node.phantoms.spec import Phantom, PhantomSpec, require_one_of
from pacs_node.records import Frame, Plane, Volume

FORMAT = 1  # part of every UID: raise it when the same specification would give other bytes


def uid(spec: PhantomSpec, *facts: object) -> str:
    """Return the UID of something in the study of ``spec``."""
    return derive_uid("phantom", FORMAT, spec.identity, *facts)


def modality_of(spec: PhantomSpec) -> Modality:
    """Return the module that makes this modality; raises `InputError` where it has no such region, artefact or plane, or is unknown itself."""
    require_one_of("modality", spec.modality, MODALITIES)
    made = MODALITIES[spec.modality]
    require_one_of(f"region for {spec.modality}", spec.region, made.REGIONS)
    if spec.artefact is not None:
        require_one_of(f"artefact for {spec.modality}", spec.artefact, made.ARTEFACTS)
    require_one_of(f"plane for {spec.modality}", spec.plane, made.PLANES)
    return made


def planes(spec: PhantomSpec) -> tuple[Plane, ...]:
    """Return where the slices lie, in order of rising position along their normal."""
    region = modality_of(spec).REGIONS[spec.region]
    centre = (0.0, 0.0, region.CENTRE if spec.plane == "axial" else region.MIDDLE)
    return laid_out.planes(spec, spec.field_of_view or region.FIELD_OF_VIEW, spacing(spec), centre)


def spacing(spec: PhantomSpec) -> float:
    """Return the distance of neighbouring slices, mm."""
    return spec.spacing or modality_of(spec).REGIONS[spec.region].SPACING


def scan_grid(spec: PhantomSpec) -> Grid:
    """Return the coordinates of all voxels, in upright order."""
    return laid_out.upright(planes(spec), spec, spacing(spec))


def make_volume(spec: PhantomSpec) -> Phantom:
    """Make the volume of a phantom with its truth, without DICOM around it.

    Raises `InputError` where the modality is unknown or lacks the region, artefact or plane, or where the lesion does not fit.
    """
    made = modality_of(spec)
    streams = [np.random.default_rng([spec.seed, number]) for number in range(3)]  # anatomy, noise, lesion
    grid = scan_grid(spec)
    body = made.anatomy(spec, grid, streams[0]).turned(laid_out.ORIENTATIONS[spec.plane].axes)
    healthy = body.image + made.noise(spec, body, streams[1])
    lesion = np.zeros(body.image.shape, dtype=bool)
    image = healthy
    if spec.lesion is not None:
        box, change, mask = lesions.plant(spec, body, healthy, streams[2])
        image = healthy.copy()
        image[box] += change
        lesion[box] = mask
    healthy = _scanned(spec, healthy, body.foreground, grid)
    image = healthy.copy() if spec.lesion is None else _scanned(spec, image, body.foreground, grid)
    return Phantom(_volume(spec, made, image), lesion, healthy, body.foreground)


def _scanned(spec: PhantomSpec, image: Array, foreground: NDArray[np.bool_], grid: Grid) -> Array:
    """Add the artefact, round and cut as the scanner does; the same for the image with and without the lesion."""
    made = modality_of(spec)
    image = made.finish(made.degrade(spec, image.copy(), foreground, grid))
    blank = made.blank(spec, grid)
    if blank is not None:
        image[:, blank] = np.nan
    return image


def _volume(spec: PhantomSpec, made: Modality, image: Array) -> Volume:
    frames = tuple(_frame(spec, made, index, plane) for index, plane in enumerate(planes(spec)))
    return Volume(
        pixels=image,
        unit=made.UNIT,
        frames=frames,
        modality=spec.modality,
        series_uid=uid(spec, "series"),
        frame_of_reference_uid=uid(spec, "frame of reference") if made.LOCATED else None,
        weighting=spec.sequence if spec.modality == "MR" else "",
        synthetic=True,
    )


def _frame(spec: PhantomSpec, made: Modality, index: int, plane: Plane) -> Frame:
    """Return where a slice is stored: in an object of its own, or as a frame of the only one."""
    place, apart = (plane, None) if made.LOCATED else (None, plane.spacing)
    if spec.enhanced:
        return Frame(uid(spec, "instance", 0), made.MULTI_FRAME_UID, index + 1, place, apart)
    return Frame(uid(spec, "instance", index), made.SOP_CLASS_UID, None, place, apart)
