"""The analysis of one series from top to bottom: read, check the scope, resample, look, judge, state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pacs_node.analysis import agreement, familiar, gate, pictures
from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.grid import Resampled, foreground_of, resample
from pacs_node.analysis.intensity import SCALINGS
from pacs_node.analysis.look import Look, look
from pacs_node.analysis.manifest import Manifest
from pacs_node.analysis.modalities import READERS
from pacs_node.analysis.origin import origin_in
from pacs_node.analysis.statement import Statement, state
from pacs_node.analysis.strata import stratum_of
from pacs_node.autoencoder import calibration, explanation, scoring, threads
from pacs_node.errors import OutOfScope
from pacs_node.records import Finding, HeadScore, Hottest, Volume

Beat = Callable[[float], None]

_READING = 0.6  # fraction of the work that is done when reading is over


@dataclass(frozen=True, slots=True)
class Prepared:
    """A series as the network gets it: the volume in the bundle's unit, resampled, ``x`` (S, P, P) in [0, 1] and ``foreground`` (S, P, P).

    ``stratum`` says by which healthy statistics it is judged.
    """

    volume: Volume
    resampled: Resampled
    x: Tensor
    foreground: NDArray[np.bool_]
    stratum: scoring.Stratum

    @property
    def seen(self) -> Look:
        """What the gate looks at; made anew each time, as it is larger than the slices themselves."""
        return look(self.resampled.view, self.x, self.foreground)


def read_series(files: Sequence[Path], manifest: Manifest, beat: Beat = lambda fraction: None) -> Volume:
    """Read the files of one series by the bundle's modality; raises `NotAnalysable`."""
    reader = READERS.get(manifest.modality)
    if reader is None:
        raise OutOfScope(f"this version reads {', '.join(READERS)}, the model {manifest.name} judges {manifest.modality}")
    return replace(reader(files, beat), origin=origin_in(files))


@threads.alone()
def prepare(volume: Volume, manifest: Manifest) -> Prepared:
    """Bring a volume to the bundle's unit, check the scope, and bring it to the network's grid and range: the same lines in training and in the node."""
    gate.check_modality(volume, manifest)
    volume = pictures.in_unit(volume, manifest) if volume.picture else SCALINGS[manifest.preprocessing.scaling](volume)
    gate.check(volume, manifest)
    resampled = resample(volume, manifest.preprocessing.grid)
    foreground = foreground_of(resampled.view, manifest.preprocessing.body_above)
    prepared = Prepared(
        volume, resampled, torch.from_numpy(_values(resampled.view, foreground, manifest, picture=volume.picture)), foreground, stratum_of(volume, manifest)
    )
    gate.check_quality(prepared.seen, foreground, manifest, picture=volume.picture)
    return prepared


def _values(view: NDArray[np.float32], foreground: NDArray[np.bool_], manifest: Manifest, *, picture: bool) -> NDArray[np.float32]:
    """Return the network's values. Beside the body there is 0, since a table is nobody's anatomy; pictures keep it.

    A picture is cropped to what it shows, and where its body ends is guessed from grey values: a cut in the wrong place would make an outline.
    """
    to_model = manifest.preprocessing.intensity.to_model
    return threads.by_slice(lambda values, inside: to_model(values) if picture else np.where(inside, to_model(values), np.float32(0)), view, foreground)


BATCH = 32  # slices that pass through the network at a time, unless memory is short


def analyse(files: Sequence[Path], bundle: Bundle, device: str = "cpu", *, beat: Beat = lambda fraction: None, today: date, batch: int = BATCH) -> Finding:
    """Read one series from ``files`` and judge it.

    ``beat`` hears the fraction done, at least once a slice in reading and once a batch in the network, and may raise to cancel.
    ``batch`` slices pass through the network at a time: fewer need less memory and say the same. Raises `NotAnalysable` or `OutOfScope`
    with the reason. The same files and bundle give the same finding.
    """
    volume = read_series(files, bundle.manifest, lambda fraction: beat(_READING * fraction))
    return analyse_volume(volume, bundle, device, beat=lambda fraction: beat(_READING + (1 - _READING) * fraction), today=today, batch=batch)


def analyse_volume(volume: Volume, bundle: Bundle, device: str = "cpu", *, beat: Beat = lambda fraction: None, today: date, batch: int = BATCH) -> Finding:
    """Judge a volume; see `analyse`."""
    prepared = prepare(volume, bundle.manifest)
    refuse_unfamiliar(prepared, bundle)
    beat(0.3)
    seen = pass_through(prepared, bundle, device, batch=batch, beat=lambda fraction: beat(0.3 + 0.5 * fraction))
    finding = conclude(prepared, seen, bundle, device, today=today)
    beat(1.0)
    return finding


@threads.alone()
def refuse_unfamiliar(prepared: Prepared, bundle: Bundle) -> None:
    """Raise `OutOfScope` where a series is too unlike those that the bundle was made on."""
    if bundle.familiarity is not None:
        one = familiar.portray(prepared.seen, prepared.stratum, synthetic=prepared.volume.synthetic, findings=0)
        gate.check_familiar(one, bundle.familiarity, bundle.manifest)


def pass_through(
    prepared: Prepared, bundle: Bundle, device: str = "cpu", *, batch: int = BATCH, half: bool | None = None, beat: Beat = lambda fraction: None
) -> scoring.Seen:
    """Pass a prepared series through the bundle's network on ``device``; in ``half`` precision, or not, as `agreement.is_half` finds right."""
    network = bundle.network.to(device)
    half = agreement.is_half(bundle.folder, bundle.algorithm, device) if half is None else half
    return scoring.look(network, prepared.x, batch=batch, half=half, beat=beat)


@threads.alone()
def conclude(prepared: Prepared, seen: scoring.Seen, bundle: Bundle, device: str = "cpu", *, today: date) -> Finding:
    """Judge what the network saw, with the maps computed on ``device``, and state it."""
    foreground, fusion, volume = torch.from_numpy(prepared.foreground), bundle.manifest.scoring.fusion, prepared.volume
    scores = scoring.judge(prepared.x, seen, foreground, bundle.normals, fusion, prepared.stratum, device)
    said = state(scores.study, bundle.calibration, synthetic=volume.synthetic, today=today, origin=volume.origin)
    return _finding(bundle, prepared, seen, scores, said)


def _finding(bundle: Bundle, prepared: Prepared, seen: scoring.Seen, scores: scoring.Scores, said: Statement) -> Finding:
    volume, slices = prepared.volume, scores.slices.numpy()
    top = np.argsort(-slices, kind="stable")[: bundle.manifest.scoring.top_slices]
    view = prepared.resampled.view
    reconstruction = threads.by_slice(bundle.manifest.preprocessing.intensity.to_physical, seen.mean.numpy())
    return Finding(
        volume=volume,
        algorithm=bundle.algorithm,
        score=scores.study,
        verdict=said.verdict,
        calibration=said.calibration,
        percentile=said.percentile,
        p_value=said.p_value,
        parts=dict(scores.parts),
        slice_scores=slices,
        top_slices=tuple(int(index) for index in top),
        heat=_heat(scores.z.numpy(), prepared.foreground, said.pixel_tail),
        heat_calibrated=said.pixel_tail is not None,
        planes=prepared.resampled.planes,
        view=view,
        reconstruction=np.where(np.isfinite(view), reconstruction, np.float32(np.nan)),
        embedding=seen.embedding.numpy().astype(np.float16),
        window=bundle.manifest.window,
        remarks=(*volume.remarks, *said.remarks, *_head_remarks(bundle, scores)),
        places=prepared.resampled.places,
        contributions=explanation.study_contributions(scores, bundle.normals, bundle.manifest.scoring.fusion.on(prepared.stratum, bundle.normals)),
        hottest=_hottest(bundle, prepared, seen, scores, top.tolist()),
        head=_head_score(bundle, seen, scores),
    )


def _hottest(bundle: Bundle, prepared: Prepared, seen: scoring.Seen, scores: scoring.Scores, top: Sequence[int]) -> tuple[Hottest, ...]:
    foreground, fusion = torch.from_numpy(prepared.foreground), bundle.manifest.scoring.fusion
    found = explanation.hottest(prepared.x, seen, foreground, scores, bundle.normals, fusion, prepared.stratum, top)
    return tuple(Hottest(one.index, one.row, one.column, one.z, one.parts) for one in found)


def _head_score(bundle: Bundle, seen: scoring.Seen, scores: scoring.Scores) -> HeadScore | None:
    trained = bundle.head
    if trained is None or _head_remarks(bundle, scores):
        return None
    return HeadScore(trained.head.probability(scores.parts, seen.embedding.numpy()), trained.normal, trained.unusual, trained.auroc[0])


def _head_remarks(bundle: Bundle, scores: scoring.Scores) -> tuple[str, ...]:
    """Why a head says nothing, where its parts are not those of this version."""
    missing = [] if bundle.head is None else [str(name) for name in bundle.head.head.names if name not in scores.parts]
    return (f"the head of the labels needs the score part {missing[0]}, which there is none of: train it again",) if missing else ()


def _heat(z: NDArray[np.float32], foreground: NDArray[np.bool_], pixel_tail: tuple[float, ...] | None) -> NDArray[np.float32]:
    """The calibrated tail 0…4, or the relative map 0…1; zero outside the body."""
    heat = calibration.relative(z, foreground) if pixel_tail is None else threads.by_slice(lambda some: calibration.tail(some, pixel_tail), z)
    return np.where(foreground, heat, np.float32(0))
