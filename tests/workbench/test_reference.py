"""The configuration reference: as the models say, and complete."""

from __future__ import annotations

import re

import yaml

from pacs_node.workbench.reference import keys, reference
from tests.conftest import ROOT

TEXT = (ROOT / "config" / "REFERENCE.md").read_text(encoding="utf-8")


def test_the_reference_in_the_repository_is_that_of_the_models() -> None:
    assert reference() == TEXT, "run: pacs-node reference --out config/REFERENCE.md"


def test_every_key_of_the_shipped_configuration_stands_in_the_reference() -> None:
    shipped = yaml.safe_load((ROOT / "config" / "node.yaml").read_text())
    known = set(keys())
    for section, values in shipped.items():
        assert section in known
        if section != "destinations":
            assert {f"{section}.{key}" for key in values or ()} <= known
    for key in ("reception.senders.results_to", "destinations, kind dicom.accepts_research", "destinations, kind stow.auth.basic.user"):
        assert key in known


def test_defaults_limits_and_meanings_stand_beside_the_keys() -> None:
    rows = {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", TEXT, re.MULTILINE)}
    assert "1 to 64" in rows["processes"] and "`2`" in rows["processes"]
    assert "`14d`" in rows["keep"] and "finished studies" in rows["keep"]
    assert "AE title" in rows["ae_titles"] and "`[PACS_NODE]`" in rows["ae_titles"]
    assert "must be given" in rows["ae_title"]
    assert "0 to 65535, or null" in rows["tls_port"]
    assert "Annotated" not in TEXT and "NoneType" not in TEXT and "PydanticUndefined" not in TEXT


def test_the_readme_leads_to_the_reference() -> None:
    assert "config/REFERENCE.md" in (ROOT / "README.md").read_text(encoding="utf-8")
