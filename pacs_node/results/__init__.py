"""What goes back to the PACS: SR, secondary capture, parametric map and notice, built once, and the gate they pass before they leave.

::

    Finding, Notice ─┐
    Sources, Run ────┼─► build ─► pm ─► sc ─► sr ─► check, dciodvfy ─► save ─► (outbox)
    Equipment ───────┘            what is referenced comes before what refers to it
"""

from __future__ import annotations

from pacs_node.records import DEFAULT_KINDS
from pacs_node.results.builders import BUILDERS, PLANNED, build
from pacs_node.results.check import check, check_all
from pacs_node.results.files import save
from pacs_node.results.references import Reference
from pacs_node.results.request import BuildRequest
from pacs_node.results.stand_in import STAND_INS, header_of, redirected, refers_to, sources_as_stored, stand_ins
from pacs_node.results.validator import dciodvfy

__all__ = [
    "BUILDERS",
    "DEFAULT_KINDS",
    "PLANNED",
    "STAND_INS",
    "BuildRequest",
    "Reference",
    "build",
    "check",
    "check_all",
    "dciodvfy",
    "header_of",
    "redirected",
    "refers_to",
    "save",
    "sources_as_stored",
    "stand_ins",
]
