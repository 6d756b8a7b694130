"""The table of multi-frame objects: for each modality the function that describes one, pixels left out."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset

from pacs_node.phantoms import ct_enhanced, mr_enhanced, pt_enhanced, us, us_header
from pacs_node.phantoms.spec import PhantomSpec
from pacs_node.records import Volume


def _loop(spec: PhantomSpec, dataset: Dataset, volume: Volume) -> None:
    """An ultrasound loop: no functional groups, one frame time (PS3.3 A.7)."""
    us.describe(spec, dataset)
    us_header.describe_loop(dataset)


MULTI_FRAME: dict[str, Callable[[PhantomSpec, Dataset, Volume], None]] = {
    "CT": ct_enhanced.describe,
    "MR": mr_enhanced.describe,
    "PT": pt_enhanced.describe,
    "US": _loop,
}
