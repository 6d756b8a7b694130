"""The report on the spot: one page of HTML about one series, for the person who ran the analysis.

Self-contained (pictures are inside, no script), made by Jinja2 with autoescape. It may show training slices that the bundle keeps, which
are patient data of their site: nothing of that goes into a DICOM object.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from pacs_node.analysis.bundle import Bundle
from pacs_node.autoencoder.reference import nearest, usual_distance
from pacs_node.dicom.header import text_of
from pacs_node.journey.run_job import summary
from pacs_node.monitoring import why
from pacs_node.records import Finding
from pacs_node.results import panels, wording
from pacs_node.results.drawing import colour_key, lettered, window_line

REPORT = "report.html"
NEAREST = 4  # training slices shown beside each slice that stands out

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """One slice as the page shows it; grey (rows, columns) or colour (rows, columns, 3)."""

    original: Pixels
    reconstruction: Pixels
    heat: Pixels

    @property
    def named(self) -> dict[str, Pixels]:
        """The three by the word that stands in their files' names."""
        return {"original": self.original, "reconstruction": self.reconstruction, "heat": self.heat}


def pictures(finding: Finding, index: int) -> Pictures:
    """Draw one slice: as it is, as the model reconstructs it, and its heat."""
    original = panels.anatomy(finding, index)
    drawn = panels.overlay(original, panels.heat(finding, index), panels.SCALES[finding.heat_calibrated])
    return Pictures(original, panels.reconstruction(finding, index), drawn)


def write_pictures(finding: Finding, folder: Path) -> list[Path]:
    """Write the three pictures of each slice that stands out as ``slice-<number>-<what>.png``; returns the files."""
    written = []
    for index in finding.top_slices:
        for what, pixels in pictures(finding, index).named.items():
            path = folder / f"slice-{index + 1:04d}-{what}.png"
            Image.fromarray(pixels).save(path)
            written.append(path)
    return written


def write_report(finding: Finding, bundle: Bundle, headers: Sequence[Dataset], folder: Path) -> Path:
    """Write the page about a finding of ``bundle``; ``headers`` are those of the analysed objects. Returns the path."""
    environment = Environment(loader=PackageLoader("pacs_node.workbench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template(REPORT).render(_content(finding, bundle, headers))
    path = folder / REPORT
    path.write_text(page, encoding="utf-8")
    return path


def _content(finding: Finding, bundle: Bundle, headers: Sequence[Dataset]) -> dict[str, Any]:
    said = summary(finding)
    return {
        "research_use": wording.RESEARCH_USE,
        "score_line": wording.score_line(finding),
        "standing_line": wording.standing_line(finding),
        "facts": _facts(finding, headers),
        "parts": bars(said),
        "slices": _slices(finding, bundle, headers),
        "caption": panels.SCALES[finding.heat_calibrated].caption,
        "key": data_uri(colour_key(panels.SCALES[finding.heat_calibrated])),
        "usual": _usual(bundle),
        "remarks": list(dict.fromkeys((*finding.volume.remarks, *finding.remarks))),
    }


def _facts(finding: Finding, headers: Sequence[Dataset]) -> list[tuple[str, str]]:
    header = headers[0] if headers else Dataset()
    series = " · ".join(part for part in (text_of(header, "SeriesNumber"), text_of(header, "SeriesDescription")) if part)
    facts = [
        ("Study", " · ".join(part for part in (text_of(header, "StudyDate"), text_of(header, "StudyDescription")) if part)),
        ("Series", series or finding.volume.series_uid),
        ("Analysed", wording.images_line(finding.volume)),
        ("Algorithm", f"{wording.algorithm_line(finding.algorithm)} · {finding.algorithm.manufacturer}"),
        ("Calibration", wording.calibration_line(finding.calibration) if finding.calibration else wording.UNCALIBRATED_HERE),
    ]
    return [(name, value) for name, value in (*facts, ("Head of the labels", why.head_line(summary(finding)))) if value]


def bars(said: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return a bar for each part of the score: where it begins and how wide it is, in percent of the width, around zero at ``zero``."""
    shares = {name: float(share) for name, share in (said.get("contributions") or {}).items()}
    low, high = min(0.0, *shares.values(), 0.0), max(0.0, *shares.values(), 0.0)
    scale = 100 / max(high - low, 1e-9)
    return [
        {
            "name": name.replace("_", " "),
            "words": why.words(name),
            "share": f"{share:+.2f}",
            "left": round((min(share, 0.0) - low) * scale, 2),
            "width": round(abs(share) * scale, 2),
            "less": share < 0,
            "zero": round(-low * scale, 2),
        }
        for name, share in shares.items()
    ]


def _slices(finding: Finding, bundle: Bundle, headers: Sequence[Dataset]) -> list[dict[str, object]]:
    hottest = {one.index: one for one in finding.hottest}
    shown: list[dict[str, object]] = []
    for top in wording.top_slices(finding, headers):
        hot = hottest.get(top.index)
        shown.append(
            {
                "line": top.line,
                "window": window_line(finding, top.index),
                "pictures": {what: data_uri(lettered(pixels, finding, top.index)) for what, pixels in pictures(finding, top.index).named.items()},
                "hot": f"z {hot.z:.2f} at the hottest place: {why.largest(hot.contributions)}" if hot is not None else "",
                "nearest": _nearest(finding, bundle, top.index),
            }
        )
    return shown


def _nearest(finding: Finding, bundle: Bundle, index: int) -> list[dict[str, object]]:
    """The training slices nearest to one slice, with their distances."""
    kept = bundle.reference
    if kept is None:
        return []
    embedding = torch.from_numpy(finding.embedding[index].astype(np.float32))[None]
    (found,) = nearest(embedding, kept, bundle.normals.embedding_white, NEAREST)
    return [
        {
            "picture": data_uri(kept.picture[one.row].numpy()),
            "words": f"training study {int(kept.study[one.row]) + 1}, slice {int(kept.position[one.row]) + 1}",
            "distance": f"{one.distance:.2f}",
        }
        for one in found
    ]


def _usual(bundle: Bundle) -> str:
    """How far apart neighbours are among the training slices, "" where that is not known."""
    if bundle.reference is None:
        return ""
    usual = usual_distance(bundle.reference, bundle.normals.embedding_white)
    return "" if math.isnan(usual) else f"{usual:.2f}"


def data_uri(pixels: Pixels) -> str:
    """Return a picture as a PNG inside an address."""
    held = BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
