"""Which scanner made a series, of which region."""

from pathlib import Path

from pydicom.dataset import Dataset

from pacs_node.analysis import origin, pipeline
from pacs_node.analysis.manifest import read_manifest
from pacs_node.records import Origin
from tests.analysis.conftest import ct_slice


def test_spaces_and_case_make_no_other_scanner() -> None:
    header = Dataset()
    header.BodyPartExamined, header.Manufacturer, header.ManufacturerModelName, header.StationName = "Head ", " acme  Corp", "Scan 3", "ct1"
    assert origin.origin_of(header) == Origin("HEAD", "ACME CORP", "SCAN 3", "CT1")
    assert origin.words(origin.origin_of(header)) == "ACME CORP SCAN 3, station CT1, HEAD"


def test_a_header_without_equipment_names_no_scanner() -> None:
    header = Dataset()
    header.BodyPartExamined = "HEAD"
    assert not origin.is_known(origin.origin_of(header))
    assert origin.origin_of(Dataset()) == Origin()
    assert origin.words(Origin()) == "an unnamed scanner"


def test_a_series_that_is_read_knows_its_scanner_although_a_file_of_it_is_damaged(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"damaged")
    files = [tmp_path / "a.dcm"]
    for index in range(5):
        image = ct_slice(index)
        image.Manufacturer, image.StationName = "ACME", "CT1"
        files.append(tmp_path / f"b{index}.dcm")
        image.save_as(files[-1], enforce_file_format=True)
    read = pipeline.read_series(files, read_manifest(tiny))
    assert (read.origin.manufacturer, read.origin.station) == ("ACME", "CT1")
