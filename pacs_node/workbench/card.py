"""``CARD.md`` of a bundle: generated from its manifest, its calibration and tables of evaluations, with a few small pictures.

The tables are files of ``pacs-node evaluate --json`` in the bundle's folder ``card``; those of sets whose weights may not be shipped come from
recipes of their own and stand there too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pacs_node.analysis.bundle import Bundle
from pacs_node.analysis.calibration_file import described
from pacs_node.analysis.manifest import CARD, WEIGHTS, Manifest, Scope
from pacs_node.analysis.statement import lifetime
from pacs_node.autoencoder import scoring
from pacs_node.errors import InputError
from pacs_node.workbench import evaluation, gating, material
from pacs_node.workbench import evaluation_words as words
from pacs_node.workbench.evaluation_sets import FAMILIES, PHANTOMS, Case

PICTURES = "card"
GATE = "gate.json"
_ZOOM = 2
_SHOWN = Case(0, None, contrast=3.0, size=0.05)

Table = dict[str, Any]


def write_card(bundle: Bundle, result: Table | None = None) -> Path:
    """Write ``CARD.md`` beside ``model.yaml`` from every table in the bundle's folder ``card``; returns the path.

    ``result`` is put there first, in place of an earlier table of the same set. Pictures of planted lesions are made anew where the recipe
    has phantoms. Raises `InputError` where a table cannot be read.
    """
    folder = bundle.folder / PICTURES
    folder.mkdir(exist_ok=True)
    if result is not None:
        (folder / f"{slug(result['set'])}.json").write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    if bundle.manifest.recipe.phantoms is not None:
        _draw_families(bundle, folder)
    path = bundle.folder / CARD
    path.write_text("\n".join(_lines(bundle, read_tables(folder))) + "\n", encoding="utf-8")
    return path


def write_gate(bundle: Bundle, found: Table) -> Path:
    """Put the table of the gate into the card; returns the path of the card."""
    folder = bundle.folder / PICTURES
    folder.mkdir(exist_ok=True)
    (folder / GATE).write_text(json.dumps(gating.for_the_card(found), indent=1) + "\n", encoding="utf-8")
    return write_card(bundle)


def slug(name: str) -> str:
    """Return a file name for a set: letters, digits and hyphens."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def read_tables(folder: Path) -> list[Table]:
    """Return the tables of evaluations in a folder, phantoms first, then by the names of their files; raises `InputError` where one is damaged."""
    tables: list[Table] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no table of an evaluation ({error}): make it again with `pacs-node evaluate --json`, or remove it") from error
        if isinstance(found, dict) and "score" in found:
            tables += [found, *found.get("others", [])]
    return sorted(tables, key=lambda table: table["set"] != PHANTOMS)


def _draw_families(bundle: Bundle, folder: Path) -> None:
    for index, family in enumerate(FAMILIES):
        seed = material.SEEDS["evaluate"] + 500_000 + index  # shown, but not counted
        Image.fromarray(picture(bundle, Case(seed, family, _SHOWN.contrast, _SHOWN.size))).quantize(128).save(folder / f"{family}.png", optimize=True)


def picture(bundle: Bundle, case: Case) -> NDArray[np.uint8]:
    """Return an RGB picture of the slice that holds most of the lesion: original, reconstruction, z map, and the lesion's true place."""
    planted = evaluation.make(bundle, case)
    seen = scoring.look(bundle.network, planted.prepared.x)
    z = evaluation.judged(bundle, planted).z.numpy()
    index = int(planted.lesion.sum((1, 2)).argmax())
    reconstruction = bundle.manifest.preprocessing.intensity.to_physical(seen.mean[index].numpy())
    view = np.nan_to_num(planted.prepared.resampled.view[index], nan=-2000.0)
    greys = [windowed(image, bundle.manifest.window) for image in (view, reconstruction)]
    panels = [*greys, np.clip(z[index] / 6, 0, 1), planted.lesion[index].astype(np.float32)]
    row = np.concatenate([np.kron(panel, np.ones((_ZOOM, _ZOOM))) for panel in panels], axis=1)
    return np.repeat((255 * row).astype(np.uint8)[..., None], 3, axis=2)


def windowed(image: NDArray[np.float32], window: tuple[float, float]) -> NDArray[np.float32]:
    """Map physical values to 0…1 by a display window (centre, width)."""
    centre, width = window
    result: NDArray[np.float32] = np.clip((image - centre) / width + 0.5, 0, 1).astype(np.float32)
    return result


def _lines(bundle: Bundle, tables: Sequence[Table]) -> list[str]:
    manifest = bundle.manifest
    return [
        f"# {manifest.title} ({manifest.name} {manifest.version})",
        "",
        "**An example bundle, for research use only.** A score says how unlike its training studies a series is; it is no diagnosis.",
        "",
        manifest.purpose,
        "",
        *_scope(bundle),
        "",
        *_tables(bundle, tables),
        *_gate(bundle),
        *_recipes(bundle.folder / PICTURES),
        *_calibration(bundle, tables),
        "",
        *_pictures(bundle),
        f"Licence of the weights: {manifest.licence}. This file is generated by `pacs-node evaluate`; the numbers belong to the weights with the SHA-256",
        f"`{manifest.files.get(WEIGHTS, '')}`.",
    ]


def _scope(bundle: Bundle) -> list[str]:
    manifest, recipe = bundle.manifest, bundle.manifest.recipe
    scope, grid = manifest.scope, manifest.preprocessing
    learnt = f"{recipe.phantoms.train} procedural phantoms ({recipe.phantoms.held_out} more held out)" if recipe.phantoms else "the studies of its training run"
    return [
        "## What it is for",
        "",
        f"* Judges: {_seen(manifest)} of {', '.join(manifest.regions)}{_slices(scope)}.",
        f"* Grid: {grid.pixels} × {grid.pixels} pixels of {grid.spacing_mm:g} mm in the plane of each slice: what is smaller than about "
        f"{3 * grid.spacing_mm:g} mm is not seen.",
        f"* Learnt from: {learnt}, seed {recipe.seed}.",
        f"* Refuses: {_refused(bundle)}.",
        "* Good for: demonstrations, tests, and as the recipe with which a site trains on its own studies.",
        "* Not good for: statements about patients. It never saw one in training, so real anatomy, noise and devices look unusual to it, and with",
        "  its synthetic calibration a patient's study is reported as uncalibrated.",
    ]


def _refused(bundle: Bundle) -> str:
    """What the gate keeps out."""
    fitted = bundle.familiarity
    rules = "series of another size, tissue or weighting than its region has, and what its limits of quality keep out"
    if fitted is None:
        return rules
    kind, other = ("synthetic", "patients'") if fitted.synthetic else ("patients'", "synthetic")
    return f"{rules}; of {kind} series also those unlike the {fitted.studies} that the gate was fitted on, which says nothing about {other} ones"


def _seen(manifest: Manifest) -> str:
    return " ".join([manifest.modality, *([f"({', '.join(manifest.scope.weightings)})"] if manifest.scope.weightings else [])])


def _slices(scope: Scope) -> str:
    return f"; at least {scope.min_slices} slices, no more than {scope.max_slice_spacing_mm:g} mm apart" if scope.min_slices > 1 else ""


def _tables(bundle: Bundle, tables: Sequence[Table]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        lines += [f"## {_title(table)}", "", *_made_with(bundle, table), *_paragraphs(words.sentences(table))]
        for listing in words.listings(table):
            lines += [*listing.markdown(), ""]
    return lines


def _gate(bundle: Bundle) -> list[str]:
    """The table of the gate, where one was made with these weights."""
    path = bundle.folder / PICTURES / GATE
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if found.get("weights_sha256") != bundle.manifest.files.get(WEIGHTS, ""):
        return []
    real = f"Of {found['real_series']} real series {found['real_in']} are in scope." if "real_series" in found else ""
    note = "A local artefact changes no more of a series than a lesion does: the gate, which must let lesions in, does not tell the two apart."
    return ["## The gate", "", "Made by `pacs-node evaluate --gate`.", *gating.lines(found), "", note, real, ""]


def _recipes(folder: Path) -> list[str]:
    """The tables of `pacs-node tune --json` in a folder: what each ingredient is worth."""
    lines: list[str] = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and "cells" in found:
            told = "Every recipe was trained anew for this table, on a short schedule; none of them is what is shipped."
            lines += [f"## Recipes compared ({path.stem})", "", told, "", str(found["markdown"]), ""]
    return lines


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


def _calibration(bundle: Bundle, tables: Sequence[Table]) -> list[str]:
    found = bundle.calibration
    if found is None:
        return ["## Calibration", "", "None: every study is reported as uncalibrated."]
    rates = [table["false_positive_rate"] for table in tables if table["set"] == PHANTOMS and table["false_positive_rate"] is not None]
    threshold = "too few studies for a threshold" if found.threshold is None else f"threshold {found.threshold:.3f}"
    seen = f"; {100 * rates[0]:.1f} % of the phantoms without a lesion above were flagged" if rates else ""
    return [
        "## Calibration",
        "",
        f"{found.studies} {found.population} studies, {threshold}, promised false-positive rate {100 * found.alpha:g} % with "
        f"{100 * found.confidence:g} % confidence{seen}.",
        "",
        *(f"* {line[:1].upper()}{line[1:]}." for line in (lifetime(found), *described(found)) if line),
    ]


def _pictures(bundle: Bundle) -> list[str]:
    folder = bundle.folder / PICTURES
    lines = ["## Pictures", ""]
    families = [family for family in FAMILIES if (folder / f"{family}.png").is_file()]
    if families:
        told = "Original, reconstruction, z map (white: 6 and more), and where the lesion was planted (contrast 3 σ, 5 % of the slice's body)."
        lines += [told, "", *(f"![{family.replace('_', ' ')}]({PICTURES}/{family}.png)" for family in families), ""]
    return lines if families else []
