"""`pacs-node conformance`: a DICOM Conformance Statement in the structure of PS3.2 Annex N, from the tables and the configuration.

::

    facts.py      what is accepted, proposed and answered, as tables
    overview.py   1 Overview, 3 Introduction, 4 Implementation model
    service.py    5 Service and interoperability description, 6 Configuration
    network.py    7 Network and media communication details, 8 Security
    objects.py    Annexes: IODs created, structured reports, codes, private attributes
"""

from __future__ import annotations

from pacs_node.config import Settings
from pacs_node.workbench.conformance import network, objects, overview, service
from pacs_node.workbench.conformance.markdown import Page

__all__ = ["statement"]


def statement(settings: Settings) -> str:
    """Return the statement for a node with this configuration, as Markdown."""
    page = Page()
    for chapter in (overview.write, service.write, network.write, objects.write):
        chapter(page, settings)
    return str(page)
