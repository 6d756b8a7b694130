"""Lesions planted into real healthy series: the four families of the phantoms in anatomy and noise that no phantom has.

::

    Volume ─► pieces (a part of its slices each) ─┬─► as it is: normal
                                                  └─► foreground, eroded ─► site ─► + change of a family ─► with a lesion

The foreground is what the bundle's own rules call body. There are no drawn structures, so ``missing_structure`` fills a place with what is
around it. The series must be no part of the bundle's training or calibration. Good for finding out what a detector misses; no clinical evidence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pacs_node.analysis import geometry
from pacs_node.analysis.grid import foreground_of
from pacs_node.analysis.intensity import SCALINGS
from pacs_node.analysis.manifest import Manifest
from pacs_node.analysis.pipeline import prepare, read_series
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.phantoms import lesions
from pacs_node.phantoms.grid import Grid
from pacs_node.phantoms.shapes import Anatomy
from pacs_node.records import Volume
from pacs_node.workbench import material
from pacs_node.workbench.evaluation_sets import STRATA, Sample, Stratum, Subject
from pacs_node.workbench.material.masks import on_grid

LEAST, MOST = 10, 24
"""Slices of a piece."""

_SHOWING = 0.5  # of the foreground of the slice that shows most: near the ends of a body part a lesion would be too small for the grid
_INSET = 0.15  # of the largest distance to the border in a slice: skin and skull are no place for a lesion


@dataclass(frozen=True, slots=True)
class _Lesion:
    """What is asked for; see `lesions.Wanted`."""

    lesion: str
    contrast: float
    size: float
    region: str = "real"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a real series, judged as a series of its own."""

    name: str
    volume: Volume
    digest: str


def pieces(name: str, volume: Volume, manifest: Manifest) -> list[Piece]:
    """Cut a series into pieces of `LEAST` to `MOST` slices where the bundle's scope allows, so that some stay without a lesion.

    Thin slices are dealt out in turn, so that each piece shows the whole body part; where that would part them too far, neighbouring
    slices stay together. A series that allows neither is one piece.
    """
    count = max(math.ceil(len(volume.frames) / MOST), 2)
    spacing, scope = _spacing(volume), manifest.scope
    least = max(LEAST, scope.min_slices)
    if len(volume.frames) < least * count:
        chosen = [range(len(volume.frames))]
    elif spacing * count <= scope.max_slice_spacing_mm:
        chosen = [range(first, len(volume.frames), count) for first in range(count)]
    else:
        chosen = _slabs(len(volume.frames), max(least, math.ceil(scope.coverage_mm[0] / max(spacing, 1e-6)) + 1))
    return [_piece(f"{name}/{number}", volume, part) for number, part in enumerate(chosen)]


def _slabs(slices: int, least: int) -> list[range]:
    count = max(1, slices // max(least, 1))
    edges = [round(slices * number / count) for number in range(count + 1)]
    return [range(edges[number], edges[number + 1]) for number in range(count)]


def _piece(name: str, volume: Volume, part: Iterable[int]) -> Piece:
    indices = list(part)
    pixels = np.stack([volume.pixels[index] for index in indices])
    cut = replace(volume, pixels=pixels, frames=tuple(volume.frames[index] for index in indices))
    return Piece(name, cut, hashlib.sha256(pixels.tobytes()).hexdigest())


def _spacing(volume: Volume) -> float:
    """Distance of neighbouring slices in mm; 0 where nothing says where they lie."""
    planes = [frame.plane for frame in volume.frames if frame.plane is not None]
    if len(planes) < 2:
        return 0.0
    return geometry.stack(planes).spacing or 0.0


# --- planting --------------------------------------------------------------------------------------------------------------


def plant(volume: Volume, manifest: Manifest, stratum: Stratum, seed: int) -> tuple[Volume, NDArray[np.bool_]]:
    """Return the volume with a lesion, and where it lies, (slices, rows, columns); pixels beyond its soft border stay as they are.

    Raises `NotAnalysable` where no slice has room for a lesion of that size.
    """
    body, family = anatomy(volume, manifest), list(lesions.FAMILIES).index(stratum.family)
    rng = np.random.default_rng([seed, family, round(1000 * stratum.contrast), round(10_000 * stratum.size)])
    try:
        box, change, mask = lesions.plant(_Lesion(*stratum), body, body.image, rng)
    except InputError as error:
        raise NotAnalysable(f"no slice has room for a lesion of {100 * stratum.size:g} % of its foreground") from error
    pixels = np.array(volume.pixels, dtype=np.float32)
    pixels[box] += change
    lesion = np.zeros(pixels.shape, dtype=np.bool_)
    lesion[box] = mask
    return replace(volume, pixels=pixels), lesion


def anatomy(volume: Volume, manifest: Manifest) -> Anatomy:
    """Return what planting needs to know of a real body: its foreground by the bundle's rules, and the space within it."""
    scaled = SCALINGS[manifest.preprocessing.scaling](volume)
    foreground = foreground_of(np.asarray(scaled.pixels, dtype=np.float32), manifest.preprocessing.body_above)
    pixels = np.asarray(volume.pixels, dtype=np.float32)
    lowest = float(np.nanmin(pixels))
    image = np.nan_to_num(pixels, nan=lowest)
    frame = volume.frames[0]
    in_plane = (frame.plane.spacing if frame.plane else frame.spacing) or (1.0, 1.0)
    nowhere = np.zeros((1, 1, 1), dtype=np.float32)
    grid = Grid(nowhere, nowhere, nowhere, (_spacing(volume) or 1.0, *in_plane))
    return Anatomy(image, foreground, _inner(foreground), grid, lowest=lowest)


def _inner(foreground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where a lesion may lie: well inside the body, in slices that show much of it."""
    area = foreground.sum((1, 2))
    depth = [ndimage.distance_transform_edt(np.pad(plane, 1))[1:-1, 1:-1] for plane in foreground]
    return np.stack([(plane > _INSET * plane.max()) & (size >= _SHOWING * area.max()) for plane, size in zip(depth, area, strict=True)])


# --- as a set of an evaluation ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlantedSet:
    """Pieces of real series, each once as it is, and ``rounds`` lesions of every stratum in each series; a piece is what the bootstrap draws."""

    series: tuple[tuple[Piece, ...], ...]
    manifest: Manifest
    rounds: int
    name: str
    unit: str = "piece of a series"
    slow: bool = True

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Every piece without a lesion, then the lesions: those of one stratum lie in different pieces as far as there are any."""
        healthy = [Subject(name=piece.name, patient=piece.name, digest=piece.digest) for pieces in self.series for piece in pieces]
        planted = [
            _subject(pieces[(number + turn) % len(pieces)], stratum, turn)
            for pieces in self.series
            for turn in range(self.rounds)
            for number, stratum in enumerate(STRATA)
        ]
        return (*healthy, *planted)

    def make(self, subject: Subject) -> Sample:
        """Plant the lesion of a subject, and prepare the piece as the node would."""
        piece = next(one for pieces in self.series for one in pieces if one.name == subject.patient)
        if subject.planted is None:
            return Sample(prepare(piece.volume, self.manifest), None)
        volume, lesion = plant(piece.volume, self.manifest, subject.planted, int(subject.name.rsplit("#", 1)[1]))
        prepared = prepare(volume, self.manifest)
        return Sample(prepared, on_grid(lesion, prepared.resampled.places, self.manifest.preprocessing.pixels))


def _subject(piece: Piece, stratum: Stratum, turn: int) -> Subject:
    name = f"{piece.name} {stratum.family} {stratum.contrast:g} {stratum.size:g} #{turn}"
    return Subject(name=name, patient=piece.name, label=stratum.family, planted=stratum, digest=piece.digest)


def planted_set(places: Sequence[Path], manifest: Manifest, rounds: int, name: str, report: material.Report) -> PlantedSet:
    """Read the healthy series in folders (or a single file) and cut them; raises `InputError` where none is of use.

    Series that the bundle does not judge are passed over.
    """
    found, refused = [], []
    wanted = [(label, files) for place in places for label, files in _series(place, manifest)]
    for done, (label, files) in enumerate(wanted, start=1):
        try:
            cut = tuple(pieces(label, read_series(files, manifest), manifest))
            prepare(cut[0].volume, manifest)  # a series that the bundle does not judge, as it is, takes no lesion either
            found.append(cut)
        except NotAnalysable as reason:
            refused.append(f"{label}: {reason}")
        report("reading healthy series", done / len(wanted))
    if not found:
        raise InputError(f"no series can take planted lesions ({refused[0]}): give healthy series that the bundle {manifest.name} judges")
    return PlantedSet(tuple(found), manifest, rounds, name)


def _series(place: Path, manifest: Manifest) -> list[tuple[str, tuple[Path, ...]]]:
    if place.is_file():
        return [(place.name, (place,))]
    return [(f"{place.resolve().name}/{number}", one.files) for number, one in enumerate(material.series_in([place], manifest.modality))]
