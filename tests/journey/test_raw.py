"""A rule that asks for the compressed representation: it goes with the other results, and never holds them up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import RawDataStorage

from pacs_node.database import alerts
from pacs_node.errors import InputError
from pacs_node.journey import build
from pacs_node.results import open_raw
from tests.journey.support import RULES, Town, ct_study

WITH_RAW = RULES.replace("    pipeline: ct-test\n", "    pipeline: ct-test\n    results: [sr, sc, raw]\n")


def test_the_destination_gets_the_analysed_series_to_decode(make_town: Callable[..., Town]) -> None:
    town, study = make_town(rules=WITH_RAW), ct_study()
    town.send(study)
    town.settle()
    assert sorted(result.Modality for result in town.results()) == ["OT", "OT", "SR"]
    [file] = [path for path in (town.folder / "out").rglob("*.dcm") if dcmread(path, stop_before_pixels=True).SOPClassUID == RawDataStorage]
    raw, unpacked = open_raw(dcmread(file), file.name)
    found = {str(image.header.SOPInstanceUID): image.values[0] for image in unpacked.images}
    assert found.keys() == {str(one.SOPInstanceUID) for one in study} and unpacked.near == 0
    assert all(np.array_equal(found[str(one.SOPInstanceUID)], one.pixel_array) for one in study)
    assert raw.embedding is not None and raw.embedding.slices.shape == (len(study), 128) and raw.model_uid


def test_what_cannot_be_encoded_leaves_the_other_results_alone_and_is_said(make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> bytes:
        raise InputError("values from 0 to 4294967295")

    monkeypatch.setattr(build.results, "pack", refuse)
    town = make_town(rules=WITH_RAW)
    town.send(ct_study())
    town.settle()
    assert sorted(result.Modality for result in town.results()) == ["OT", "SR"]
    with town.house.store.read() as session:
        assert any("without the compressed representation" in alert.message for alert in alerts.open_alerts(session))
