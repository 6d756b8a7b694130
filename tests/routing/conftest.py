"""Series made of headers that say just what a test needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from pacs_node.config import DicomDestination, FolderDestination
from pacs_node.routing import Rules, SeriesView, load, view

CT = "1.2.840.10008.5.1.4.1.1.2"


def make_header(**attributes: Any) -> Dataset:
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = CT, generate_uid()
    header.Rows = header.Columns = 512
    header.BitsAllocated = 16
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    return header


@pytest.fixture
def header() -> Callable[..., Dataset]:
    return make_header


@pytest.fixture
def series() -> Callable[..., SeriesView]:
    """Return a function that makes a series of equal instances, or one of given headers."""

    def make(*headers: Dataset, count: int = 3, called: str = "PACS_NODE", calling: str = "CT1", **attributes: Any) -> SeriesView:
        attributes = {"Modality": "CT", "SeriesInstanceUID": generate_uid(), **attributes}
        return view(headers or [make_header(**attributes) for _ in range(count)], called_ae=called, calling_ae=calling)

    return make


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., Rules]:
    """Return a function that loads rules from YAML text, with two bundles, two destinations and one sender."""

    def read(text: str, **known: Any) -> Rules:
        from pacs_node.config import AllowedSender

        file = tmp_path / "rules.yaml"
        file.write_text(dedent(text), encoding="utf-8")
        archive = DicomDestination(kind="dicom", ae_title="ARCHIVE", address="127.0.0.1", port=104)
        known.setdefault("destinations", {"archive": archive, "research": FolderDestination(kind="folder", path=tmp_path)})
        known.setdefault("pipelines", ["ct-head", "ct-body"])
        known.setdefault("senders", (AllowedSender(ae_title="CT1", results_to="archive"), AllowedSender(ae_title="CT2")))
        return load(file, **known)

    return read
