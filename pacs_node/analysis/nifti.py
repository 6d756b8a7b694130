"""NIfTI files as volumes, to train and to evaluate on: slices as a scanner would show them, exactly placed, values as they are.

::

    voxels (i, j, k), affine in RAS ─► patient system LPS ─► slices along the coarsest axis (the third of equals)
      ─► turned and mirrored by whole axes until rows and columns run as in DICOM images ─► planes

Axial and coronal slices have their rows to the left, sagittal ones to the back; columns run to the back in axial slices, else to the feet.
Nothing is interpolated. Values count as the modality's unit: HU of CT, SUV of PET. NIfTI-1 is described at https://nifti.nimh.nih.gov/nifti-1.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pacs_node.analysis import ct, geometry, mr, pt, us
from pacs_node.dicom.uids import derive_uid
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.records import Frame, Plane, Volume

SUFFIXES = (".nii", ".nii.gz")
UNITS = {"CT": ct.UNIT, "MR": mr.UNIT, "PT": pt.KIND.unit, "US": us.UNIT}
WEIGHTINGS = {"t1": "T1", "t1w": "T1", "t1c": "T1", "t1ce": "T1", "t1gd": "T1", "t2": "T2", "t2w": "T2", "flair": "FLAIR", "dwi": "DWI"}
"""Parts of a file's name to the weighting that they mean, as in BIDS and in public collections."""

_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_MILLIMETRES = {"meter": 1000.0, "micron": 0.001}
_COARSER = 1.1  # times the spacing of the third axis: what is less counts as equal
_SQUARE = 0.01  # cosine of the angle between rows and columns
_ROWS_TO = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0]], dtype=np.float64)  # LPS direction of a row in slices across x, y and z
_COLUMNS_TO = np.array([[0, 0, -1], [0, 0, -1], [0, 1, 0]], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Grid:
    """Voxels as (slices, rows, columns) and ``affine``, from (slice, row, column) to LPS in millimetres."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]

    def plane(self, index: int) -> Plane:
        slices, rows, columns = self.affine[:3, :3].T
        position = self.affine[:3] @ (index, 0, 0, 1)
        spacing = float(np.linalg.norm(rows)), float(np.linalg.norm(columns))
        orientation = (*(columns / spacing[1]).tolist(), *(rows / spacing[0]).tolist())
        return Plane(tuple(position.tolist()), orientation, spacing, float(np.linalg.norm(slices)))


def read(path: Path, modality: str) -> Volume:
    """Read a file as a volume of ``modality``; of several time points the first. Raises `NotAnalysable`, `InputError` without nibabel."""
    remarks: list[str] = []
    grid = _oriented(_loaded(path, remarks))
    uid = derive_uid("nifti", path.resolve())
    planes = [grid.plane(index) for index in range(len(grid.values))]
    weighting = weighting_of(path.name) if modality == "MR" else ""
    return Volume(
        pixels=grid.values,
        unit=UNITS.get(modality, "1"),
        frames=tuple(Frame(derive_uid(uid, index), "", None, plane) for index, plane in enumerate(planes)),
        modality=modality,
        series_uid=uid,
        frame_of_reference_uid=derive_uid(uid, "frame of reference"),
        weighting=weighting,
        remarks=(*remarks, *geometry.stack(planes).remarks()),
    )


def weighting_of(name: str) -> str:
    """Tell from a file's name how MR images are weighted, ``unknown`` where it does not say."""
    found = {WEIGHTINGS[part] for part in re.split(r"[^a-z0-9]+", name.lower()) if part in WEIGHTINGS}
    return found.pop() if len(found) == 1 else "unknown"


def read_mask(path: Path, volume: Volume) -> NDArray[np.bool_]:
    """Read a mask onto the pixels of ``volume``: true where the nearest voxel is more than one half; outside the mask's voxels false.

    Raises `NotAnalysable` where the file is damaged or no slice of the volume meets it, `InputError` without nibabel.
    """
    grid = _loaded(path, [])
    to_voxel: NDArray[np.float64] = np.asarray(np.linalg.inv(grid.affine), dtype=np.float64)
    result = np.zeros(volume.pixels.shape, dtype=np.bool_)
    met = False
    for index, frame in enumerate(volume.frames):
        if frame.plane is None:
            raise NotAnalysable(f"the mask {path.name} lies in the patient, the images do not: give a PNG")
        voxels = _voxels(frame.plane, volume.pixels.shape[1:], to_voxel)
        inside = np.all((voxels >= 0) & (voxels < np.reshape(grid.values.shape, (3, 1, 1))), axis=0)
        met = met or bool(inside.any())
        result[index][inside] = grid.values[tuple(voxels[:, inside])] > 0.5
    if not met:
        raise NotAnalysable(f"the mask {path.name} lies elsewhere than the images: its affine is not theirs")
    return result


def _voxels(plane: Plane, shape: tuple[int, ...], to_voxel: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices (3, rows, columns) of the voxel that each pixel's centre lies in."""
    along_row, along_column, _ = geometry.axes(plane)
    steps = np.stack([along_column * plane.spacing[0], along_row * plane.spacing[1]], axis=1)  # LPS for one row and one column on
    first = to_voxel @ (*plane.position, 1.0)
    places = np.tensordot(to_voxel[:3, :3] @ steps, np.indices(shape, dtype=np.float64), axes=1) + first[:3, None, None]
    return np.asarray(np.rint(places), dtype=np.int64)


def _loaded(path: Path, remarks: list[str]) -> _Grid:
    """Voxels along (k, j, i) as they are stored."""
    image = _opened(path)
    try:
        shape = image.shape
        if len(shape) not in (2, 3, 4) or 0 in shape:
            raise NotAnalysable(f"the file has {len(shape)} dimensions ({' × '.join(map(str, shape))}), a series of slices has three")
        source = np.asarray(image.dataobj[..., 0] if len(shape) == 4 else image.dataobj)
        if source.dtype.names or np.iscomplexobj(source):
            raise NotAnalysable("the voxels are colours or complex numbers, not grey values")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise NotAnalysable(f"the file cannot be read ({' '.join(str(error).split())})") from error
    if len(shape) == 4 and shape[3] > 1:
        remarks.append(f"the file holds {shape[3]} volumes; the first was used")
    values = np.atleast_3d(source).astype(np.float32).transpose(2, 1, 0)
    values[~np.isfinite(values)] = np.nan
    return _Grid(values, _affine(image)[:, [2, 1, 0, 3]])


def _affine(image: Any) -> NDArray[np.float64]:
    """From (i, j, k) to LPS, millimetres."""
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise NotAnalysable("the file does not say where its voxels lie (its affine has no inverse)")
    unit = image.header.get_xyzt_units()[0] if hasattr(image.header, "get_xyzt_units") else "mm"
    affine[:3] *= _MILLIMETRES.get(unit, 1.0)
    return np.asarray(_TO_LPS @ affine)


def _opened(path: Path) -> Any:
    try:
        import nibabel
        from nibabel.filebasedimages import ImageFileError
    except ImportError as error:
        raise InputError("reading NIfTI needs nibabel: install the extra with pip install 'pacs-node[train]'") from error
    try:
        return nibabel.load(path)
    except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        raise NotAnalysable(f"the file is no readable NIfTI ({' '.join(str(error).split())})") from error


def _oriented(grid: _Grid) -> _Grid:
    """Turn whole axes so that the slices lie across the coarsest and show the patient as DICOM images do."""
    directions = grid.affine[:3, :3]
    spacing = np.linalg.norm(directions, axis=0)
    across = int(spacing.argmax()) if spacing.max() > _COARSER * spacing[0] else 0
    others = [axis for axis in range(3) if axis != across]
    units = directions / spacing
    normal = np.cross(units[:, others[0]], units[:, others[1]])
    kind = int(np.abs(normal).argmax())  # slices across x, y or z
    by_row = np.abs(units[:, others].T @ _ROWS_TO[kind])
    columns = others[int(by_row.argmax())]
    rows = next(axis for axis in others if axis != columns)
    if abs(units[:, rows] @ units[:, columns]) > _SQUARE:
        raise NotAnalysable("rows and columns of the voxels are not at right angles: resample the file")
    right = np.array([1.0, 1.0, 1.0])
    right[2] = 1.0 if units[:, columns] @ _ROWS_TO[kind] > 0 else -1.0
    right[1] = 1.0 if units[:, rows] @ _COLUMNS_TO[kind] > 0 else -1.0
    upward = np.cross(right[2] * units[:, columns], right[1] * units[:, rows])
    right[0] = 1.0 if units[:, across] @ upward > 0 else -1.0
    return _flipped(_Grid(grid.values.transpose(across, rows, columns), grid.affine[:, [across, rows, columns, 3]]), right)


def _flipped(grid: _Grid, signs: NDArray[np.float64]) -> _Grid:
    """Reverse the axes whose sign is negative."""
    reverse = np.diag([*signs, 1.0])
    reverse[:3, 3] = np.where(signs < 0, np.asarray(grid.values.shape) - 1, 0)
    steps = tuple(slice(None, None, int(sign)) for sign in signs)
    return _Grid(np.ascontiguousarray(grid.values[steps]), grid.affine @ reverse)
