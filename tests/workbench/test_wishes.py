"""What is to be fetched, and what was."""

from pathlib import Path

import pytest

from pacs_node.errors import InputError
from pacs_node.workbench.wishes import LEDGER, Fetched, Ledger, read_accessions


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("accession\nA1\nA2\n", ["A1", "A2"]),
        ("\ufeffdate;Accession Number\n2026;A1\n2026; A2 \n2026;A1\n", ["A1", "A2"]),
        ("date,accession_number\n2026,A1\n", ["A1"]),
        ("A1,x\nA2,y\n\n", ["A1", "A2"]),
        ('accession,note\n"A1","a, b"\n', ["A1"]),
        ("note,accession\nonly a note\nx,A1\n", ["A1"]),
    ],
)
def test_accessions_stand_in_their_column_or_the_first_one_each_once(tmp_path: Path, text: str, found: list[str]) -> None:
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    assert read_accessions(tmp_path / "list.csv") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no accession number"),
        ("accession\n\n", "holds no accession number"),
        ("accession\nA*\n", "'A\\*' is no accession number"),
        ("accession\n?\n", "is no accession number"),
        ("accession\nA1\\A2\n", "is no accession number"),
        ("accession\n12345678901234567\n", "at most 16 characters"),
    ],
)
def test_what_would_match_other_studies_is_not_asked_for(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_accessions(tmp_path / "list.csv")


def test_a_list_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.csv cannot be read"):
        read_accessions(tmp_path / "gone.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00accession")
    with pytest.raises(InputError, match=r"list\.csv cannot be read"):
        read_accessions(tmp_path / "list.csv")


def test_the_ledger_forgets_a_line_that_was_not_written_to_its_end(tmp_path: Path) -> None:
    first, second = Fetched("A1", "CT", "1.2", "f1", 3), Fetched("A2", "CT", "1.3", "f2", 4)
    Ledger(tmp_path).add(first)
    with (tmp_path / LEDGER).open("ab") as file:
        file.write(b'{"accession": "A2", "moda')
    ledger = Ledger(tmp_path)
    assert (ledger.has("A1", "CT"), ledger.has("A2", "CT"), ledger.has("A1", "")) == (True, False, False)
    ledger.add(second)
    assert Ledger(tmp_path).done == {("A1", "CT"): first, ("A2", "CT"): second}


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("something else\n")
    with pytest.raises(InputError, match="remove it, and everything is fetched anew"):
        Ledger(tmp_path)
