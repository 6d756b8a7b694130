"""What goes back to the PACS, a file a kind, built once, and the gate that it passes before it leaves.

::

    Finding, Notice ─┐
    Sources, Run ────┼─► build ─► pm ─► seg ─► sc ─► sr ─► ko ─► check, dciodvfy ─► save ─► (outbox)
    Equipment ───────┘            what is referenced comes before what refers to it
"""

from __future__ import annotations

from pacs_node.records import DEFAULT_KINDS
from pacs_node.results.builders import BUILDERS, PLANNED, build, possible_kinds, takeable
from pacs_node.results.check import check, check_all
from pacs_node.results.decoded import Origin, filed_with, rebuilt
from pacs_node.results.files import save
from pacs_node.results.latents import pack
from pacs_node.results.raw import open_raw
from pacs_node.results.references import Reference
from pacs_node.results.rejection import rejection_note
from pacs_node.results.request import BuildRequest, Representation
from pacs_node.results.stand_in import STAND_INS, header_of, redirected, refers_to, sources_as_stored, stand_ins
from pacs_node.results.validator import dciodvfy

__all__ = [
    "BUILDERS",
    "DEFAULT_KINDS",
    "PLANNED",
    "STAND_INS",
    "BuildRequest",
    "Origin",
    "Reference",
    "Representation",
    "build",
    "check",
    "check_all",
    "dciodvfy",
    "filed_with",
    "header_of",
    "open_raw",
    "pack",
    "possible_kinds",
    "rebuilt",
    "redirected",
    "refers_to",
    "rejection_note",
    "save",
    "sources_as_stored",
    "stand_ins",
    "takeable",
]
