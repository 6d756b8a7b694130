"""Files off the disk: nothing outside the kept folders, empty folders too, and nothing while a backup holds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pacs_node.retention.sweep import Swept, pinned, remove, unpinned


def put(data: Path, *names: str) -> None:
    for name in names:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(b"12345678")


def test_files_go_with_the_folders_that_are_empty_then(tmp_path: Path) -> None:
    put(tmp_path, "studies/0000/1/1.1.dcm", "studies/0000/1/2.1.dcm", "studies/0000/2/3.1.dcm", "results/0000/7/1-1/sr/000-sr.dcm")
    assert remove(tmp_path, ["studies/0000/1/1.1.dcm", "studies/0000/1/2.1.dcm", "results/0000/7/1-1/sr/000-sr.dcm"]) == Swept(3, 24)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"studies", "studies/0000", "studies/0000/2", "studies/0000/2/3.1.dcm", "results", "results/0000"}


def test_removing_twice_changes_nothing(tmp_path: Path) -> None:
    put(tmp_path, "studies/0000/1/1.1.dcm")
    assert remove(tmp_path, ["studies/0000/1/1.1.dcm"]).files == 1
    assert remove(tmp_path, ["studies/0000/1/1.1.dcm"]) == Swept()


@pytest.mark.parametrize("name", ["spool/new/00/a.dcm", "node.db", "studies/../node.db", "../elsewhere/a.dcm", "/etc/passwd", "studies"])
def test_what_is_not_a_kept_file_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, "node.db", "spool/new/00/a.dcm")
    with pytest.raises(ValueError, match="no kept file"):
        remove(tmp_path, [name])
    assert (tmp_path / "node.db").exists()


def test_nothing_may_go_while_files_are_pinned(tmp_path: Path) -> None:
    with unpinned(tmp_path) as free:
        assert free
    with pinned(tmp_path), pinned(tmp_path), unpinned(tmp_path) as free:  # two backups do not mind one another
        assert not free
    with unpinned(tmp_path) as free:
        assert free
