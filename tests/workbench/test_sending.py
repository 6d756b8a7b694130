"""`pacs-node send`: what is in a file is what is sent."""

from __future__ import annotations

from pathlib import Path

from pydicom import dcmread

from pacs_node.delivery.archive import FolderArchive
from pacs_node.phantoms import PhantomSpec, write_study
from pacs_node.workbench.sending import send_folder


def test_files_whose_meta_information_kept_old_names_are_sent_by_the_names_in_their_datasets(tmp_path: Path) -> None:
    first, second = write_study(PhantomSpec(slices=2, rows=64), tmp_path / "in")
    renamed = dcmread(second)
    renamed.SOPInstanceUID = "1.2.3.4"  # as a tool does that knows nothing of the file meta information
    renamed.save_as(second, enforce_file_format=False)
    assert dcmread(second).file_meta.MediaStorageSOPInstanceUID != "1.2.3.4"
    archive = FolderArchive(tmp_path / "archive", "ARCHIVE")
    archive.start()
    try:
        report = send_folder(tmp_path / "in", f"127.0.0.1:{archive.port}", "ARCHIVE", "TEST")
    finally:
        archive.stop()
    assert report.sentence() == "2 instances sent"
    for source in (first, second):
        sent = dcmread(source)
        stored = dcmread(archive.path_of(str(sent.SOPInstanceUID)))
        assert stored == sent
        assert stored.file_meta.MediaStorageSOPInstanceUID == sent.SOPInstanceUID
    assert dcmread(second).file_meta.MediaStorageSOPInstanceUID != "1.2.3.4"  # the file itself stays as it is
