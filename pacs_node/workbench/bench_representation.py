"""`pacs-node bench representation`: bits per pixel, quality and speed of our stream beside other codecs, series by series.

::

    folders, phantoms ─► series ─► stacks, the middle slices ─► for each k: ours, JPEG-LS, JPEG 2000, HTJ2K ─► rows
                                                                     └─► each pixel within k? not larger than JPEG-LS? ─► faults

Images that were compressed with loss before are left out (a codec would find its own traces), and so are repeats of an image.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.originals import read_images
from pacs_node.autoencoder.threads import alone
from pacs_node.dicom.header import text_of
from pacs_node.errors import InputError
from pacs_node.phantoms import PhantomSpec
from pacs_node.phantoms.study import write_study
from pacs_node.records import StoredImage
from pacs_node.results.lossiness import is_lossy
from pacs_node.workbench.bench_analysis import processor
from pacs_node.workbench.bench_codecs import Coded, Stack, at_equal_quality, jpegls, ours, quality_of, wavelets
from pacs_node.workbench.studies import studies_below

NEARS = (0, 1, 2, 4, 8)
OURS, JPEG_LS = "ours", "JPEG-LS"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Series:
    """A stack to be coded, and where it is from: ``thickness`` in mm as the header says it, "" where it does not; ``of``: frames that there are."""

    name: str
    modality: str
    thickness: str
    photometric: str
    of: int
    stack: Stack


def bench_representation(series: Sequence[Series], nears: Sequence[int] = NEARS, said: Say = lambda what: None) -> dict[str, Any]:
    """Measure every codec on every series with every error bound; each in one thread.

    Returns the processor, one entry for each series with its rates, and ``faults``: a sentence for each pixel bound that was broken and each stream
    that was larger than JPEG-LS. Raises `InputError` where there is nothing to measure.
    """
    if not series:
        raise InputError("there is no series to measure: name folders with integer images that were not compressed with loss, or a bundle")
    measured = []
    with threadpool_limits(1), alone():
        for number, one in enumerate(series, start=1):
            said(f"series {number} of {len(series)}: {one.name}")
            measured.append(_facts(one) | {"rates": [rate for near in nears for rate in _rates(one.stack, near)]})
    faults = [f"{one['name']}: {fault}" for one in measured for fault in faults_of(one["rates"])]
    return {"processor": processor(), "threads": 1, "codecs": [OURS, JPEG_LS, *(one.name for one in wavelets())], "series": measured, "faults": faults}


def _facts(series: Series) -> dict[str, Any]:
    values = series.stack.values
    facts = {one: getattr(series, one) for one in ("name", "modality", "thickness", "photometric")}
    return facts | {
        "frames": len(values),
        "of_frames": series.of,
        "rows": values.shape[1],
        "columns": values.shape[2],
        "planes": (*values.shape, 1)[3],
        "type": values.dtype.name,
        "bits_stored": series.stack.bits,
        "range": [series.stack.least, series.stack.least + series.stack.span],
        "mb": values.nbytes / 1e6,
    }


def _rates(stack: Stack, near: int) -> Iterator[dict[str, Any]]:
    made = ours(stack, near)
    first = _rate(stack, near, OURS, made)
    yield first
    other = jpegls(stack, near)
    if other is not None:
        yield _rate(stack, near, JPEG_LS, other)
    for wavelet in wavelets():
        equal = at_equal_quality(wavelet, stack, math.inf if first["psnr"] is None else first["psnr"])
        if equal is not None:
            yield _rate(stack, near, wavelet.name, equal)


def _rate(stack: Stack, near: int, codec: str, made: Coded) -> dict[str, Any]:
    quality, mega = quality_of(stack, made.values), stack.values.nbytes / 1e6
    facts = {"near": near, "codec": codec, "way": made.way, "bytes": made.size, "bits_per_pixel": 8 * made.size / stack.pixels}
    speeds = {"encode_mb_s": mega / made.encode_s, "decode_mb_s": mega / made.decode_s}
    return facts | asdict(quality) | {"psnr": None if math.isinf(quality.psnr) else quality.psnr} | speeds


def faults_of(rates: Sequence[dict[str, Any]]) -> list[str]:
    """Return what was promised of our stream and not kept."""
    faults = []
    jpeg = {rate["near"]: rate["bytes"] for rate in rates if rate["codec"] == JPEG_LS}
    for rate in (rate for rate in rates if rate["codec"] == OURS):
        near = rate["near"]
        if rate["largest_error"] > near:
            faults.append(f"k = {near}: a pixel is {rate['largest_error']} off")
        if rate["bytes"] > jpeg.get(near, math.inf):
            faults.append(f"k = {near}: {rate['bytes']} bytes, JPEG-LS takes {jpeg[near]}")
    return faults


def gains_of(rates: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Return by which part our stream is smaller than JPEG-LS, for each k at which both are there."""
    sizes = {(rate["codec"], rate["near"]): rate["bytes"] for rate in rates}
    return {near: 1 - size / sizes[JPEG_LS, near] for (codec, near), size in sizes.items() if codec == OURS and (JPEG_LS, near) in sizes}


# --- what is measured ----------------------------------------------------------------------------------------------------


def series_in(folder: Path, most: int, name: str = "") -> Iterator[Series]:
    """Give the series below a folder, at most ``most`` frames of each, from its middle; frames of another size or type are a series of their own."""
    seen: set[bytes] = set()
    for study in studies_below(folder):
        images = [image for image in read_images(study.files)[0] if not is_lossy(image.header) and _is_new(image, seen)]
        groups: dict[tuple[object, ...], list[StoredImage]] = {}
        for image in images:
            groups.setdefault((text_of(image.header, "SeriesInstanceUID"), image.values.dtype.str, image.values.shape[1:]), []).append(image)
        for alike in groups.values():
            yield _series(alike, most, name or folder.name)


def _is_new(image: StoredImage, seen: set[bytes]) -> bool:
    digest = hashlib.sha256(image.values.tobytes()).digest()
    new = digest not in seen
    seen.add(digest)
    return new


def _series(images: Sequence[StoredImage], most: int, name: str) -> Series:
    header, count = images[0].header, sum(len(image.values) for image in images)
    first = max(0, count - most) // 2
    values = np.concatenate([image.values for image in images])[first : first + most]
    bits = max(int(image.header.get("BitsStored") or 8 * values.dtype.itemsize) for image in images)
    number = text_of(header, "SeriesNumber")
    said = f"{name}, series {number}" if number else name
    stack = Stack(values, bits, rgb=images[0].photometric == "RGB")
    return Series(said, text_of(header, "Modality"), text_of(header, "SliceThickness"), images[0].photometric, count, stack)


def write_phantom(bundle: Bundle, folder: Path, most: int) -> Path:
    """Write a phantom as the bundle was trained on into a folder of its own; raises `InputError` where it was trained on none."""
    part = bundle.manifest.recipe.phantoms
    if part is None:
        raise InputError(f"the bundle {bundle.manifest.name} was not trained on phantoms: name others with --bundle")
    spec = PhantomSpec(modality=bundle.manifest.modality, region=part.region, seed=1, slices=most, sequence=part.sequences[0], plane=part.planes[0])
    write_study(spec, folder / bundle.manifest.name)
    return folder / bundle.manifest.name


# --- as tables -----------------------------------------------------------------------------------------------------------


def heading(one: dict[str, Any]) -> str:
    """Return a line about a series: what it is, how thick its slices are, how many of them were coded, and in which range they lie."""
    planes = f" × {one['planes']} {one['photometric']}" if one["planes"] > 1 else ""
    thick = f", {float(one['thickness']):g} mm" if one["thickness"] else ""
    size = f"{one['frames']} of {one['of_frames']} × {one['columns']} × {one['rows']}{planes}"
    return f"{one['name']} ({one['modality']}{thick}): {size}, {one['type']}, {one['bits_stored']} bits stored, values {one['range'][0]} … {one['range'][1]}"


RATE_COLUMNS = ("k", "codec", "bits a pixel", "PSNR, dB", "SSIM", "max error", "encode, MB/s", "decode, MB/s", "way")


def rate_rows(one: dict[str, Any]) -> list[list[str]]:
    """Return the table of one series."""
    rows = []
    for rate in one["rates"]:
        psnr = "∞" if rate["psnr"] is None else f"{rate['psnr']:.2f}"
        speeds = [f"{rate[name]:.3g}" for name in ("encode_mb_s", "decode_mb_s")]
        figures = [f"{rate['bits_per_pixel']:.3f}", psnr, f"{rate['ssim']:.5f}", str(rate["largest_error"]), *speeds]
        rows.append([str(rate["near"]), rate["codec"], *figures, rate["way"]])
    return rows


def gain_rows(found: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return how much smaller our stream is than JPEG-LS: a row a series, a column for each k."""
    nears = sorted({rate["near"] for one in found["series"] for rate in one["rates"]})
    rows = []
    for one in found["series"]:
        gains = gains_of(one["rates"])
        thick = f"{float(one['thickness']):g}" if one["thickness"] else ""
        rows.append([one["name"], one["modality"], thick, *(f"{100 * gains[near]:.1f} %" if near in gains else "" for near in nears)])
    return ["series", "modality", "slices, mm", *(f"k = {near}" for near in nears)], rows


def as_markdown(found: dict[str, Any]) -> str:
    """Return all tables for a document."""
    parts = ["Smaller than JPEG-LS by:", _markdown(*gain_rows(found))]
    for one in found["series"]:
        parts += [f"{heading(one)}:", _markdown(RATE_COLUMNS, rate_rows(one))]
    return "\n\n".join(parts) + "\n"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows))
