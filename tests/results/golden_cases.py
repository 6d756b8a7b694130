"""The golden pages: fixed inputs, drawn, looked at by eye, and kept as PNG files in ``tests/results/golden``.

When a page was changed on purpose: ``python -m tests.results.golden_cases`` draws them anew; look at every one that git shows as changed.
Nothing in them comes from a model or from a file: an asymmetric head, so that no flip goes unseen, with heat of three strengths.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from pacs_node.analysis.grid import Grid, resample
from pacs_node.records import Finding, Frame, Verdict
from pacs_node.results import BuildRequest, lettering
from pacs_node.results.capture import heading_of, summary_page
from pacs_node.results.denoised import frames_of_model
from pacs_node.results.drawing import slice_page
from pacs_node.results.regions import regions_of
from pacs_node.results.wording import top_slices
from tests.results import modalities
from tests.results.similarity import least
from tests.results.studies import Shape, request

FOLDER = Path(__file__).with_name("golden")

AXIAL, SAGITTAL, CORONAL = (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1)
OBLIQUE = (0.7071, 0.7071, 0.0, -0.4082, 0.4082, -0.8165)
TOP = 3  # index of the slice that the cases draw

Page = NDArray[np.uint8]


# --- inputs ------------------------------------------------------------------------------------------------------------


def head(rows: int, columns: int) -> NDArray[np.float32]:
    """Return a head in HU with a nose above, a bright spot on the right of the picture and a dark bar below: no mirror gives it back."""
    y, x = np.mgrid[:rows, :columns].astype(float)
    across, down = (x - columns / 2 + 0.5) / columns, (y - rows / 2 + 0.5) / rows
    radius = np.hypot(across / 0.36, down / 0.44)
    pixels = np.where(radius > 1, -1000.0, np.where(radius > 0.92, 900.0, 30.0 + 6 * np.cos(x / 5) * np.cos(y / 9)))
    pixels[np.hypot(across / 0.05, (down + 0.44) / 0.05) < 1] = 60.0
    pixels[np.hypot((across - 0.2) / 0.06, (down - 0.05) / 0.08) < 1] = 70.0
    pixels[(np.abs(across + 0.08) < 0.04) & (np.abs(down - 0.2) < 0.1)] = 5.0
    return pixels.astype(np.float32)


def seen(made: BuildRequest, *, calibrated: bool = True, millimetres: float = 4.0, orientation: tuple[float, ...] = AXIAL, hot: bool = True) -> BuildRequest:
    """Return a request whose slices show the head, analysed on a grid of 64 × 64, with heat of three strengths on the slice `TOP`."""
    found = made.finding
    assert found is not None
    low, high = found.window[0] - found.window[1] / 2, found.window[0] + found.window[1] / 2
    one = head(*found.volume.pixels.shape[1:])
    pixels = np.stack([np.clip(one / 80, 0, 1) * (high - low) + low if found.volume.modality != "CT" else one] * len(found.volume.frames))
    frames = tuple(_turned(frame, orientation) for frame in found.volume.frames)
    volume = replace(found.volume, pixels=pixels.astype(np.float32), frames=frames)
    grid = resample(volume, Grid(64, millimetres, low + 0.02 * (high - low)))
    reconstruction = gaussian_filter(np.nan_to_num(grid.view, nan=low), (0, 1.5, 1.5))
    heat = _heat(len(frames), (4.0 if calibrated else 1.0) if hot else 0.0)
    return replace(
        made, finding=replace(found, volume=volume, heat=heat, planes=grid.planes, places=grid.places, view=grid.view, reconstruction=reconstruction)
    )


def _turned(frame: Frame, orientation: tuple[float, ...]) -> Frame:
    return frame if frame.plane is None else replace(frame, plane=replace(frame.plane, orientation=orientation))


def _heat(slices: int, top: float) -> NDArray[np.float32]:
    y, x = np.mgrid[:64, :64]
    heat = np.zeros((slices, 64, 64), dtype=np.float32)
    for row, column, share in ((26, 38, 1.0), (42, 24, 0.7), (20, 24, 0.5)):
        heat[min(TOP, slices - 1)] += top * share * np.exp(-(((x - column) / 4) ** 2 + ((y - row) / 3) ** 2))
    return heat


def chest() -> BuildRequest:
    """Return a request of a slice through lungs, of a bundle for soft tissue, with heat in the left lung and in the muscle of the back."""
    y, x = np.mgrid[:96, :128].astype(float)
    pixels = np.where(np.hypot((x - 64) / 56, (y - 48) / 40) < 1, 40.0, -1000.0)
    for column in (40, 88):
        pixels[np.hypot((x - column) / 17, (y - 46) / 27) < 1] = -820.0
    pixels[np.hypot(x - 64, y - 74) < 8] = 600.0
    pixels[np.hypot(x - 92, y - 38) < 5] = 30.0
    made = seen(request(), millimetres=4.0)
    volume = replace(made.finding.volume, pixels=np.stack([pixels.astype(np.float32)] * len(made.finding.volume.frames)))
    grid = resample(volume, Grid(64, 4.0, -300.0))
    heat = np.zeros_like(made.finding.heat)
    for row, column, height, width, value in ((24, 42, 7, 7, 3.9), (46, 22, 3, 9, 3.4), (30, 16, 3, 3, 3.2), (20, 52, 2, 2, 3.1)):
        heat[TOP, row : row + height, column : column + width] = value
    model = gaussian_filter(np.nan_to_num(grid.view, nan=-1000.0), (0, 1.5, 1.5))
    facts = {"volume": volume, "heat": heat, "view": grid.view, "reconstruction": model, "planes": grid.planes, "places": grid.places}
    return changed(made, window=(40.0, 400.0), **facts)


# --- pages -------------------------------------------------------------------------------------------------------------


def summary(made: BuildRequest) -> Page:
    """Draw the page of text."""
    assert made.finding is not None
    return summary_page(made, made.finding)


def a_slice(made: BuildRequest) -> Page:
    """Draw the page of the slice that stands out most."""
    assert made.finding is not None
    return slice_page(made.finding, top_slices(made.finding, made.sources.analysed)[0], heading_of(made), regions_of(made.finding))


def denoised(made: BuildRequest) -> Page:
    """Draw the denoised reconstruction of one slice."""
    assert made.finding is not None
    return np.repeat(frames_of_model(made.finding)[TOP][..., None], 3, axis=-1)


def changed(made: BuildRequest, **facts: object) -> BuildRequest:
    """Return a request with other facts in its finding."""
    finding: Finding = replace(made.finding, **facts)
    return replace(made, finding=finding)


def _below() -> Page:
    long_name = replace(request().finding.algorithm, name="chest-and-abdomen-low-dose-experimental-v2", version="12.10.3-rc1+build.7")
    scores = np.abs(np.sin(np.arange(60) / 7)).astype(np.float32) + 0.2
    made = changed(request(), verdict=Verdict.NOT_ABOVE, score=1.2, percentile=41.2, p_value=0.5879, slice_scores=scores, algorithm=long_name)
    run = replace(made.run, number=2, partial=True, complete_reason="the deadline of 2 h came before all expected series were there: 3 of 5")
    remarks = tuple(f"remark {number} about slices that were left out, at some length" for number in range(20))
    return summary(replace(changed(made, remarks=remarks), run=run))


def _romanised() -> Page:
    texts = {"SpecificCharacterSet": "ISO_IR 192", "StudyDescription": "頭部単純CT検査 アタマ", "SeriesDescription": "КТ головного мозга"}
    with mock.patch.object(lettering, "wide_font", return_value=None):
        lettering.lettering.cache_clear()
        page = summary(request(Shape(attributes=texts), calibrated=False))
    lettering.lettering.cache_clear()
    return page


def _ultrasound() -> Page:
    made = modalities.ultrasound((6,))
    return a_slice(seen(made, millimetres=0.5))


GOLDEN: Mapping[str, Callable[[], Page]] = {
    "summary-above": lambda: summary(request()),
    "summary-partial-not-above": _below,
    "summary-romanised-uncalibrated": _romanised,
    "slice-ct": lambda: a_slice(seen(request())),
    "slice-ct-uncalibrated": lambda: a_slice(seen(request(calibrated=False), calibrated=False)),
    "slice-ct-no-heat": lambda: a_slice(seen(request(), hot=False)),
    "slice-ct-oblique-wide": lambda: a_slice(seen(request(Shape(rows=64, columns=192)), orientation=OBLIQUE)),
    "slice-mr-sagittal": lambda: a_slice(seen(modalities.CASES["enhanced MR"](), orientation=SAGITTAL)),
    "slice-pet-coronal": lambda: a_slice(seen(modalities.pet(), orientation=CORONAL)),
    "slice-ultrasound": _ultrasound,
    "slice-ct-lung-regions": lambda: a_slice(chest()),
    "denoised-ct-lung": lambda: denoised(chest()),
    "denoised-mr-sagittal": lambda: denoised(seen(modalities.CASES["enhanced MR"](), orientation=SAGITTAL)),
    "denoised-pet": lambda: denoised(seen(modalities.pet())),
}
"""Name of the file to what draws it."""


def saved(page: Page, path: Path) -> None:
    """Keep a page; a page of text in 256 colours, which is smaller and looks the same."""
    picture = Image.fromarray(page)
    few = picture.quantize(256, dither=Image.Dither.NONE)
    same = least(np.asarray(few.convert("RGB")), page)[0] > 0.999
    (few if same else picture).save(path, optimize=True)


def main() -> None:
    """Draw all golden pages anew."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in GOLDEN.items():
        saved(draw(), FOLDER / f"{name}.png")
        print(f"drew {name}")


if __name__ == "__main__":
    main()
