"""From the files of a series to what the network gets, by the same lines as in the node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pacs_node.analysis import familiar, nifti, pictures
from pacs_node.analysis.manifest import Manifest
from pacs_node.analysis.pipeline import Prepared, prepare, read_series
from pacs_node.autoencoder.normals import Example
from pacs_node.errors import InputError, NotAnalysable
from pacs_node.records import Volume
from pacs_node.workbench.material.folders import NIFTI, PICTURES, SeriesFiles, labelled_series_in
from pacs_node.workbench.material.masks import mask_of, on_grid

Report = Callable[[str, float], None]
"""Called with what is being done and the fraction of it that is over."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled study: ``label`` as in the table (lower case), ``mask`` (S, P, P) on the analysis grid, None where none was drawn.

    ``prepared.volume`` has lost its pixels, so that thousands of studies find room in memory; all else is as in the node.
    """

    name: str
    patient: str
    label: str
    prepared: Prepared
    mask: NDArray[np.bool_] | None


def volume_of(series: SeriesFiles, manifest: Manifest) -> Volume:
    """Read a series of any kind; raises `NotAnalysable`."""
    if series.kind == PICTURES:
        return pictures.read(series.files[0], manifest.modality)
    if series.kind == NIFTI:
        return nifti.read(series.files[0], manifest.modality)
    return read_series(series.files, manifest)


def prepared_series(series: SeriesFiles, manifest: Manifest) -> Prepared:
    """Read and prepare one series; raises `NotAnalysable`."""
    return prepare(volume_of(series, manifest), manifest)


def example(prepared: Prepared) -> Example:
    """Return what training needs of a prepared study."""
    portrait = familiar.portray(prepared.seen, prepared.stratum, synthetic=prepared.volume.synthetic)
    return Example(prepared.x, torch.from_numpy(prepared.foreground), prepared.stratum, portrait)


def usable(series: Sequence[SeriesFiles], manifest: Manifest, report: Report, refused: list[str]) -> Iterator[tuple[SeriesFiles, Example]]:
    """Prepare one series after the other and give those in scope; each other is added to ``refused``, by its UID and the reason."""
    for done, one in enumerate(series, start=1):
        try:
            yield one, example(prepared_series(one, manifest))
        except NotAnalysable as reason:
            refused.append(f"{one.series_uid}: {reason}")
        report("reading studies", done / len(series))


def labelled(folders: Sequence[Path], manifest: Manifest, labels: Path, report: Report, refused: list[str] | None = None) -> list[Labelled]:
    """Read and prepare every study below ``folders`` that the table lists.

    Each study that cannot be used is added to ``refused``, by name and reason. Raises `InputError` where the labels or folders are not
    usable, or no study is.
    """
    left: list[str] = [] if refused is None else refused
    found = list(each_labelled(folders, manifest, labels, report, left))
    if not found:
        raise InputError(f"none of the studies that {labels} lists can be used ({left[0]}): check the bundle's modality and scope")
    return found


def each_labelled(folders: Sequence[Path], manifest: Manifest, labels: Path, report: Report, refused: list[str]) -> Iterator[Labelled]:
    """Do the same one by one: no more than one study is in memory."""
    series = labelled_series_in(folders, manifest.modality, labels)
    for done, one in enumerate(series, start=1):
        try:
            yield _labelled(one, manifest)
        except NotAnalysable as reason:
            refused.append(f"{one.series_uid}: {reason}")
        report("reading studies", done / len(series))


def _labelled(series: SeriesFiles, manifest: Manifest) -> Labelled:
    volume = volume_of(series, manifest)
    drawn = mask_of(series, volume)
    prepared = prepare(volume, manifest)
    mask = None if drawn is None else on_grid(drawn, prepared.resampled.places, manifest.preprocessing.pixels)
    without_pixels = replace(prepared.volume, pixels=np.empty((len(prepared.x), 0, 0), dtype=np.float32))
    return Labelled(series.series_uid, series.patient, series.label, replace(prepared, volume=without_pixels), mask)
