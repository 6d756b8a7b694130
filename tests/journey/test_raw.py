"""A rule that asks for the compressed representation: it goes with the other results, and never holds them up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import RawDataStorage

from pacs_node.autoencoder.codec_pace import OutOfTime, Pace
from pacs_node.database import alerts, jobs
from pacs_node.errors import InputError
from pacs_node.journey import build
from pacs_node.records import DEFAULT_KINDS
from pacs_node.results import open_raw
from pacs_node.results.raw import read_raw
from tests.journey.support import RULES, Town, ct_study

WITH_RAW = RULES.replace("    pipeline: ct-test\n", "    pipeline: ct-test\n    results: [sr, sc, raw]\n")


PATIENT = {"encode_within": "10min"}


def representations(town: Town) -> list[Dataset]:
    return [dataset for path in (town.folder / "out").rglob("*.dcm") if (dataset := dcmread(path)).SOPClassUID == RawDataStorage]


def the_finding(town: Town) -> dict[str, object]:
    with town.house.store.read() as session:
        return dict(jobs.list_jobs(session)[0].finding)


def test_a_folder_gets_it_unless_a_rule_says_otherwise_and_an_archive_only_where_a_rule_says_so(make_town: Callable[..., Town]) -> None:
    town = make_town(executor=PATIENT)
    town.send(ct_study())
    town.settle()
    [found] = representations(town)
    assert open_raw(found, "x")[1].images and "raw" in DEFAULT_KINDS["folder"]
    assert "raw" not in DEFAULT_KINDS["dicom"] and "raw" not in DEFAULT_KINDS["stow"]
    assert "smaller than" in str(the_finding(town)["representation"])


def test_without_time_to_encode_it_holds_the_embedding_and_the_job_says_why(make_town: Callable[..., Town]) -> None:
    town = make_town(executor={"encode_within": "0s"})
    town.send(ct_study())
    town.settle()
    assert sorted(result.Modality for result in town.results()) == ["CT", "OT", "OT", "SR"]
    [found] = representations(town)
    raw = read_raw(found, "x")
    assert raw.embedding is not None and raw.content == b"" and "executor.encode_within" in raw.lacking
    assert str(the_finding(town)["representation"]).startswith("embedding only: the images could not be encoded")
    with town.house.store.read() as session:
        assert alerts.open_alerts(session) == []


def test_encoding_takes_no_more_than_half_of_what_is_left_until_the_deadline(make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def refuse(images: object, near: int, model: str, pace: Pace, note: object) -> bytes:
        given.append(pace.left)
        raise OutOfTime

    monkeypatch.setattr(build.results, "pack", refuse)
    town = make_town(executor={"encode_within": "1h", "job_deadline": "4min"})
    town.send(ct_study())
    town.settle()
    assert len(given) == 1 and 0 < given[0] <= 120
    assert [read_raw(found, "x").content for found in representations(town)] == [b""]


def test_without_memory_to_encode_the_other_results_go_out_all_the_same(make_town: Callable[..., Town], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(build.results, "pack", refuse)
    town = make_town()
    town.send(ct_study())
    town.settle()
    assert sorted(result.Modality for result in town.results()) == ["CT", "OT", "OT", "SR"]
    assert [read_raw(found, "x").lacking for found in representations(town)] == ["there was no memory to encode the images"]


def test_the_destination_gets_the_analysed_series_to_decode(make_town: Callable[..., Town]) -> None:
    town, study = make_town(rules=WITH_RAW, executor=PATIENT), ct_study()
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


def two_places(make_town: Callable[..., Town], tmp_path: Path, first: str, second: str) -> Town:
    """A house with two folders, each with its own kinds of result of the same pipeline."""
    asked = "".join(
        f"  - name: {name}\n    when: {{Modality: CT}}\n    pipeline: ct-test\n    results: [{kinds}]\n    send_to: [{name}]\n"
        for name, kinds in (("one", first), ("two", second))
    )
    places = {name: {"kind": "folder", "path": str(tmp_path / name)} for name in ("one", "two")}
    return make_town(rules=f"rules:\n{asked}", destinations=places)


def uids_in(folder: Path) -> list[str]:
    return sorted(str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.rglob("*.dcm"))


def test_the_same_kinds_in_another_order_are_one_set_of_objects_for_both_destinations(make_town: Callable[..., Town], tmp_path: Path) -> None:
    town = two_places(make_town, tmp_path, "sr, sc", "sc, sr")
    town.send(ct_study())
    town.settle()
    assert len(uids_in(tmp_path / "one")) == 2 and uids_in(tmp_path / "one") == uids_in(tmp_path / "two")


def test_a_set_that_lacks_the_representation_has_other_uids_than_the_set_that_never_had_one(
    make_town: Callable[..., Town], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def refuse(*args: object) -> bytes:
        tried.append(args)
        raise InputError("values from 0 to 4294967295")

    monkeypatch.setattr(build.results, "pack", refuse)
    town = two_places(make_town, tmp_path, "sr, sc, raw", "sr, sc")
    town.send(ct_study())
    town.settle()
    one, two = uids_in(tmp_path / "one"), uids_in(tmp_path / "two")
    assert len(one) == len(two) == 2 and not set(one) & set(two)
    assert len(tried) == 1


def test_where_only_the_representation_was_asked_for_the_notice_says_why_there_is_none(
    make_town: Callable[..., Town], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> bytes:
        raise InputError("values from 0 to 4294967295")

    monkeypatch.setattr(build.results, "pack", refuse)
    town = make_town(rules=RULES.replace("    pipeline: ct-test\n", "    pipeline: ct-test\n    results: [raw, notice]\n"))
    town.send(ct_study())
    town.settle()
    [notice] = (town.folder / "out").rglob("*.dcm")
    assert b"cannot be encoded as a compressed representation" in notice.read_bytes()
