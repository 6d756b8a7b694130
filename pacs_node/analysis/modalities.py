"""Which modalities can be read: one row each, one module each, all with the same ``read(files, beat) -> Volume``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pacs_node.analysis import ct, mr, pt, us
from pacs_node.records import Volume

Reader = Callable[[Sequence[Path], Callable[[float], None]], Volume]

READERS: dict[str, Reader] = {"CT": ct.read, "MR": mr.read, "PT": pt.read, "US": us.read}
"""Modality (0008,0060) to the function that reads a series of it."""
