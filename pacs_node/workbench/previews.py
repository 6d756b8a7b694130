"""Pictures of result objects, to look at."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from pydicom import dcmread


def write_previews(file: Path, folder: Path, name: str) -> list[Path]:
    """Write each frame of a secondary capture as ``<name>-<frame>.png``; returns the files (none for objects without colour frames)."""
    dataset = dcmread(file)
    if "PixelData" not in dataset or dataset.get("SamplesPerPixel") != 3:
        return []
    frames = dataset.pixel_array
    frames = frames[None] if frames.ndim == 3 else frames
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index, frame in enumerate(frames, 1):
        path = folder / f"{name}-{index}.png"
        Image.fromarray(frame).save(path)
        written.append(path)
    return written
