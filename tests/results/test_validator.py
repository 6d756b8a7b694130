"""The validator of dicom3tools from outside: absent, silent, stuck."""

import subprocess
from pathlib import Path

import pytest

from pacs_node.results import dciodvfy, validator


def program(folder: Path, script: str) -> None:
    """Put a program called dciodvfy into a folder."""
    path = folder / "dciodvfy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    return tmp_path


def test_where_the_program_is_not_installed_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert dciodvfy(tmp_path / "object.dcm") == ((), ())


def test_only_error_lines_count_and_each_once(folder):
    program(folder, "echo 'Warning - one' >&2; echo 'Error - two' >&2; echo 'Error - two' >&2; echo CTImage; exit 1")
    assert dciodvfy(folder / "object.dcm") == (("Error - two",), ())


@pytest.mark.parametrize(
    ("line", "inherited"),
    [
        ("Error - </PatientSex(0010,0040)[1]> - Unrecognized enumerated value = <X>", True),
        ("Error - </(0008,001c)> - Attribute with an even group number is not a recognized standard attribute", True),
        ("Error - </Rows(0028,0010)> - Missing attribute", False),
        ("Error - something else", False),
    ],
)
def test_what_both_files_get_is_inherited_only_where_we_take_it_over(folder, line, inherited):
    program(folder, f"echo '{line}' >&2")
    own, taken = dciodvfy(folder / "object.dcm", folder / "source.dcm")
    assert (own, taken) == (((), (line,)) if inherited else ((line,), ()))


@pytest.mark.parametrize(
    ("uid", "place", "inherited"),
    [
        ("999.999.2.7", "SourceImageSequence(0008,2112)[1]/ReferencedSOPInstanceUID(0008,1155)", True),
        ("888.1.2.7", "SourceImageSequence(0008,2112)[1]/ReferencedSOPInstanceUID(0008,1155)", False),
        ("999.999.2.7", "SOPInstanceUID(0008,0018)", False),
    ],
)
def test_a_reference_to_an_odd_uid_of_the_source_is_inherited(folder, uid, place, inherited):
    ours = f"Error - </{place}> - Illegal root for UID = <{uid}>"
    theirs = "Error - </SOPInstanceUID(0008,0018)> - Illegal root for UID = <999.999.2.1>"
    program(folder, f"case $2 in *object.dcm) echo '{ours}' >&2;; *) echo '{theirs}' >&2;; esac")
    own, taken = dciodvfy(folder / "object.dcm", folder / "source.dcm")
    assert (own, taken) == (((), (ours,)) if inherited else ((ours,), ()))


def test_what_only_our_object_gets_is_ours(folder):
    line = "Error - </PatientSex(0010,0040)[1]> - Unrecognized enumerated value = <X>"
    program(folder, f"case $2 in *object.dcm) echo '{line}' >&2;; esac")
    assert dciodvfy(folder / "object.dcm", folder / "source.dcm") == ((line,), ())


def test_a_program_that_does_not_end_is_a_fault(folder, monkeypatch):
    def stuck(*args, **kwargs):
        raise subprocess.TimeoutExpired(args[0], kwargs["timeout"])

    program(folder, "true")
    monkeypatch.setattr(validator.subprocess, "run", stuck)
    own, inherited = dciodvfy(folder / "object.dcm")
    assert "did not end within" in own[0] and inherited == ()
