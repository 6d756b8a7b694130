"""The tables of a card: files of ``evaluate --json``, ``evaluate --gate --json`` and ``tune --json`` in a bundle's folder ``card``, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.manifest import WEIGHTS
from pacs_node.errors import InputError
from pacs_node.workbench import evaluation_words as words
from pacs_node.workbench import gating
from pacs_node.workbench.evaluation_sets import PHANTOMS

PICTURES = "card"
GATE = "gate.json"
_TOLD = {
    "roc": "ROC of the study score, its best part and the baselines",
    "calibration": "promised rate against the share of normal studies with such a p-value",
    "scores": "study scores of normal and other studies",
    "maps": "example heat maps",
    "latents": "latents on their main axes, with k-means prototypes",
}
"""Pictures of a set, as `evaluation_drawings` names them, to what they show."""

Table = dict[str, Any]


def slug(name: str) -> str:
    """Return a file name for a set: letters, digits and hyphens."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def read_tables(folder: Path) -> list[Table]:
    """Return the tables of evaluations in a folder, phantoms first, then by the names of their files; raises `InputError` where one is damaged."""
    found = [table for _, one in _read(folder) if "score" in one for table in (one, *one.get("others", []))]
    return sorted(found, key=lambda table: table["set"] != PHANTOMS)


def _read(folder: Path) -> list[tuple[Path, Table]]:
    tables = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no table ({error}): make it again with `pacs-node evaluate --json`, or remove it") from error
        if isinstance(found, dict):
            tables.append((path, found))
    return tables


def tables_of(bundle: Bundle, tables: Sequence[Table]) -> list[str]:
    """Return the sections of evaluated sets, each with the command that made it and its pictures."""
    lines: list[str] = []
    for table in tables:
        lines += [f"## {_title(table)}", "", *_made_with(bundle, table), *_paragraphs(words.sentences(table))]
        for listing in words.listings(table):
            lines += [*listing.markdown(), ""]
        lines += _drawn(bundle, table)
    return lines


def _drawn(bundle: Bundle, table: Table) -> list[str]:
    """The pictures of a set that lie beside its table."""
    prefix = slug(table["set"])
    found = [(kind, told) for kind, told in _TOLD.items() if (bundle.folder / PICTURES / f"{prefix}-{kind}.png").is_file()]
    return [line for kind, told in found for line in (f"![{told}]({PICTURES}/{prefix}-{kind}.png)", "")]


def _title(table: Table) -> str:
    planted = " (planted lesions)" if "strata" in table else ""
    return f"{table['set'][:1].upper()}{table['set'][1:]}{planted}"


def _made_with(bundle: Bundle, table: Table) -> list[str]:
    lines = [f"Made by `{table['command']}`.", ""] if table.get("command") else []
    if table["weights_sha256"] == bundle.manifest.files.get(WEIGHTS):
        return lines
    if table["bundle"] == bundle.name:
        return [*lines, f"**Made with former weights (`{table['weights_sha256'][:12]}`): evaluate again.**", ""]
    told = f"Not of these weights: of the recipe *{table['bundle']}*, trained on studies whose licence lets no weights be shipped."
    return [*lines, told, ""]


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    return [line for sentence in sentences for line in (sentence, "")]


def gate_of(bundle: Bundle) -> list[str]:
    """Return the section of the gate, empty where its table was not made with these weights."""
    found: Table = next((one for path, one in _read(bundle.folder / PICTURES) if path.name == GATE), {})
    if found.get("weights_sha256") != bundle.manifest.files.get(WEIGHTS, ""):
        return []
    real = f"Of {found['real_series']} real series {found['real_in']} are in scope." if "real_series" in found else ""
    note = "A local artefact changes no more of a series than a lesion does: the gate, which must let lesions in, does not tell the two apart."
    return ["## The gate", "", "Made by `pacs-node evaluate --gate`.", *gating.lines(found), "", note, real, ""]


def recipes_in(folder: Path) -> list[str]:
    """Return the sections of the tables of `pacs-node tune --json` in a folder: what each ingredient is worth."""
    lines: list[str] = []
    for path, found in _read(folder):
        if "cells" in found:
            told = "Every recipe was trained anew for this table, on a short schedule; none of them is what is shipped."
            lines += [f"## Recipes compared ({path.stem})", "", told, "", str(found["markdown"]), ""]
    return lines
