"""From a specification to a volume with its truth.

::

    grid ─► anatomy ─► + lesion ─► + noise ─► artefact ─► padding, rounding ─► Phantom
                  └──────────────► + noise ─► artefact ─► padding, rounding ─► (healthy)
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pacs_node.dicom.uids import derive_uid
from pacs_node.phantoms import lesions
from pacs_node.phantoms.grid import Array, Grid
from pacs_node.phantoms.modalities import MODALITIES, Modality
from pacs_node.phantoms.spec import Phantom, PhantomSpec, require_one_of
from pacs_node.records import Frame, Plane, Volume

FORMAT = 1  # part of every UID: raise it when the same specification would give other bytes


def uid(spec: PhantomSpec, *facts: object) -> str:
    """Return the UID of something in the study of ``spec``."""
    return derive_uid("phantom", FORMAT, spec.identity, *facts)


def modality_of(spec: PhantomSpec) -> Modality:
    """Return the module that makes this modality; raises `InputError` where it has no such region or artefact, or is unknown itself."""
    require_one_of("modality", spec.modality, MODALITIES)
    made = MODALITIES[spec.modality]
    require_one_of(f"region for {spec.modality}", spec.region, made.REGIONS)
    if spec.artefact is not None:
        require_one_of(f"artefact for {spec.modality}", spec.artefact, made.ARTEFACTS)
    return made


def planes(spec: PhantomSpec) -> tuple[Plane, ...]:
    """Return where the slices lie, in order of rising z; the table moves along z, the gantry may be tilted (PS3.3 C.7.6.2)."""
    region = modality_of(spec).REGIONS[spec.region]
    wide, apart = spec.field_of_view or region.FIELD_OF_VIEW, spec.spacing or region.SPACING
    pixel, tilt = wide / spec.rows, math.radians(spec.tilt)
    down = (0.0, math.cos(tilt), -math.sin(tilt) or 0.0)
    half = pixel * (spec.rows - 1) / 2
    bottom = region.CENTRE - apart * (spec.slices - 1) / 2
    orientation = (1.0, 0.0, 0.0, *down)
    return tuple(
        Plane((-half, -half * down[1], bottom + apart * index - half * down[2]), orientation, (pixel, pixel), spec.thickness or apart)
        for index in range(spec.slices)
    )


def scan_grid(spec: PhantomSpec) -> Grid:
    """Return the coordinates of all voxels."""
    places = planes(spec)
    first, pixel = places[0], places[0].spacing[0]
    along = np.arange(spec.rows) * pixel
    x = (first.position[0] + along)[None, None, :]
    y = (first.position[1] + along * first.orientation[4])[None, :, None]
    z = np.array([place.position[2] for place in places])[:, None, None] + (along * first.orientation[5])[None, :, None]
    shape = (1, spec.rows, spec.rows)
    step = (spec.spacing or modality_of(spec).REGIONS[spec.region].SPACING, pixel, pixel)
    return Grid(np.broadcast_to(x, shape).astype(np.float32), np.broadcast_to(y, shape).astype(np.float32), z.astype(np.float32), step)


def make_volume(spec: PhantomSpec) -> Phantom:
    """Make the volume of a phantom with its truth, without DICOM around it.

    Raises `InputError` where the modality is unknown or lacks the region or artefact, or where the lesion does not fit.
    """
    made = modality_of(spec)
    streams = [np.random.default_rng([spec.seed, number]) for number in range(3)]  # anatomy, noise, lesion
    grid = scan_grid(spec)
    body = made.anatomy(spec, grid, streams[0])
    healthy = body.image + made.noise(spec, body, streams[1])
    lesion = np.zeros(grid.shape, dtype=bool)
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
    if made.padded(spec):
        half = grid.step[2] * spec.rows / 2
        image[:, (np.hypot(grid.x, grid.y / planes(spec)[0].orientation[4]) > half)[0]] = np.nan
    return image


def _volume(spec: PhantomSpec, made: Modality, image: Array) -> Volume:
    frames = tuple(Frame(uid(spec, "instance", index), made.SOP_CLASS_UID, None, plane) for index, plane in enumerate(planes(spec)))
    return Volume(
        pixels=image,
        unit=made.UNIT,
        frames=frames,
        modality=spec.modality,
        series_uid=uid(spec, "series"),
        frame_of_reference_uid=uid(spec, "frame of reference"),
        synthetic=True,
    )
