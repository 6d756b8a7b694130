"""An evaluation's table in words: the same listings and sentences on the console and in the card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as RichTable

from pacs_node.workbench.evaluation_readings import STUDY

Table = dict[str, Any]
_KEYS = {"auroc": "AUROC", "pixel_ap": "pixel AP"}


@dataclass(frozen=True, slots=True)
class Listing:
    """A titled table of texts, with a sentence that explains it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> list[str]:
        """Return the lines of a Markdown table, with the note above it."""
        head = [f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|"]
        return [*([self.note, ""] if self.note else []), *head, *(f"| {' | '.join(row)} |" for row in self.rows)]

    def rich(self) -> RichTable:
        """Return the table for a console."""
        made = RichTable(title=self.title, caption=self.note or None)
        for column in self.columns:
            made.add_column(column, overflow="fold")  # a narrow console must not cut numbers off
        for row in self.rows:
            made.add_row(*row)
        return made


def listings(table: Table) -> list[Listing]:
    """Return every listing that the table of a set has numbers for."""
    made = [detectors(table), _differences(table), _labels(table), _matched(table), _families(table), _strata(table)]
    return [one for one in made if one is not None]


def sentences(table: Table) -> list[str]:
    """Return what is said of the set as a whole."""
    return [*_of_the_set(table), *_fusion(table), *_verdict(table), *_healthy(table), *_flagged(table)]


# --- cells -----------------------------------------------------------------------------------------------------------------


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _interval(row: Table, key: str, interval: str = "") -> str:
    """A value with its interval, ``–`` where there is none."""
    bounds = row.get(interval or f"{key}_ci95")
    if row.get(key) is None:
        return "–"
    return _number(row[key]) if bounds is None or None in bounds else f"{row[key]:.3f} ({bounds[0]:.3f}–{bounds[1]:.3f})"


def _signed(row: Table, key: str) -> str:
    bounds = row.get(f"{key}_ci95")
    if row.get(key) is None:
        return "–"
    return f"{row[key]:+.3f}" + ("" if bounds is None or None in bounds else f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.0f} %"


def _rows_of(table: Table) -> dict[str, Table]:
    own = {f"this bundle, {name}": row for name, row in table["score"].items()}
    return own | {f"baseline: {name}": row for name, row in table["baselines"].items()}


def _named(table: Table, name: str) -> str:
    return f"baseline: {name}" if name in table["baselines"] else f"this bundle, {name}"


# --- listings --------------------------------------------------------------------------------------------------------------


def detectors(table: Table) -> Listing:
    """Return one row for each score part and each baseline."""
    rows = _rows_of(table)
    columns = ["detector", "AUROC (study)", "AP (study)", "sensitivity at 95 % specificity"]
    with_maps = any("pixel_ap" in row for row in rows.values())
    if with_maps:
        columns += ["pixel AP", "hottest place is in the lesion", "oracle Dice", "Dice at p < 0.001"]
    cells = []
    for name, row in rows.items():
        line = [name, _interval(row, "auroc", "ci95"), _interval(row, "ap"), _interval(row, "sensitivity_at_95_specificity")]
        if with_maps:
            line += [_interval(row, "pixel_ap"), _share(row.get("hottest_place_in_lesion")), _interval(row, "oracle_dice"), _interval(row, "dice_at_p_0.001")]
        cells.append(tuple(line))
    return Listing(f"{table['set']}: detectors", tuple(columns), tuple(cells))


def _differences(table: Table) -> Listing | None:
    found = {name: row for name, row in table["differences"].items() if row.get("auroc") is not None}
    if not found:
        return None
    rows = tuple((_named(table, name), _signed(row, "auroc"), _signed(row, "pixel_ap")) for name, row in found.items())
    note = "Study score minus each part and baseline on the same studies (paired bootstrap): above zero, the study score is better."
    return Listing(f"{table['set']}: study score against the others", ("against", "AUROC", "pixel AP"), rows, note)


def _labels(table: Table) -> Listing | None:
    found = table.get("labels")
    if not found:
        return None
    names = list(next(iter(found.values()))["scores"])
    rows = tuple((label, str(one["n"]), *(_interval(one["scores"][name], "auroc", "ci95") for name in names)) for label, one in found.items())
    return Listing(f"{table['set']}: by label", ("label", "studies", *names), rows, "AUROC of each label against all normal studies.")


def _matched(table: Table) -> Listing | None:
    found = table.get("matched")
    if not found:
        return None
    rows = tuple((_named(table, name), _interval(row, "auroc", "ci95")) for name, row in found["scores"].items())
    note = (
        f"AUROC in the {found['n']} studies that are left when each normal study has another one of the same mean intensity "
        f"(within {found['caliper']:g} standard deviations): what brightness alone can tell is taken away."
    )
    return Listing(f"{table['set']}: matched by intensity", ("detector", "AUROC"), rows, note)


def _families(table: Table) -> Listing | None:
    found = table.get("families")
    if not found:
        return None
    names = [STUDY, *table["baselines"]]
    rows = []
    for family, row in found.items():
        cells = [f"{_number(row[name]['auroc'])}, {_number(row[name]['pixel_ap'])}, {_share(row[name]['hottest_place_in_lesion'])}" for name in names]
        rows.append((family.replace("_", " "), *cells))
    return Listing(f"{table['set']}: by family", ("family", *(f"{name}: AUROC, pixel AP, hit" for name in names)), tuple(rows))


def _strata(table: Table) -> Listing | None:
    found = table.get("strata")
    if not found:
        return None
    rows = []
    for one in found:
        own, cells = one["scores"][STUDY], [one["family"].replace("_", " "), f"{one['contrast']:g} σ", f"{100 * one['size']:g} %"]
        for key in _KEYS:
            best = max((name for name in one["scores"] if name != STUDY), key=lambda name, of=key: one["scores"][name][of] or 0.0)  # type: ignore[misc]
            cells += [_interval(own, key, "ci95" if key == "auroc" else ""), f"{_number(one['scores'][best][key])} ({best})"]
        rows.append(tuple(cells))
    columns = ("family", "contrast", "size", "AUROC", "best baseline", "pixel AP", "best baseline")
    note = "Contrast in standard deviations of the healthy pixels around the lesion, size as a share of the body in the slice that holds most of it."
    return Listing(f"{table['set']}: strata", columns, tuple(rows), note)


# --- sentences -------------------------------------------------------------------------------------------------------------


def _of_the_set(table: Table) -> list[str]:
    return [f"{table['n']} studies, {table['lesions']} of them not normal; in brackets 95 % bootstrap intervals, drawn by {table['unit']}."]


def _fusion(table: Table) -> list[str]:
    found = table["fusion"]
    if not found:
        return []
    if found["best"] == STUDY or found["below_best"] <= 0:
        return ["No single part and no baseline has a larger AUROC than the study score."]
    return [f"The best single score by AUROC is *{found['best']}* ({found['auroc']:.3f}); the study score is {found['below_best']:.3f} below it."]


def _verdict(table: Table) -> list[str]:
    if "verdict" not in table:
        return []
    return [_verdict_of(label, table["verdict"][key], len(table["strata"])) for key, label in _KEYS.items()]


def _verdict_of(label: str, found: Table, strata: int) -> str:
    below = [f"{one['stratum']} ({one['baseline']}, {one['difference']:+.3f})" for one in found["below_a_baseline"]]
    others = ", ".join(f"{name} {value:.3f}" for name, value in found["means"].items() if name != STUDY)
    mean = f"mean over {strata} strata {found['means'][STUDY]:.3f} ({'above' if found['above_all_on_the_mean'] else 'not above'} all baselines: {others})"
    worst = f"worst stratum {found['worst']['stratum']} with {_number(found['worst']['value'])}"
    said = f"below a baseline beyond the interval in {len(below)} of {strata} strata: {'; '.join(below)}" if below else "below no baseline beyond the interval"
    untold = f"; {found['untold']} of {strata} strata have too few lesions for an interval" if found["untold"] else ""
    return f"{label}: {mean}; {worst}; {said}{untold}."


def _healthy(table: Table) -> list[str]:
    found = table["healthy"]
    if not found:
        return []
    return [
        f"Reconstruction of the {found['n']} normal studies, within the body: error {_interval(found, 'error')} of the network's range, "
        f"PSNR {found['psnr_db']:.1f} dB, SSIM {_interval(found, 'ssim')}."
    ]


def _flagged(table: Table) -> list[str]:
    if table["false_positive_rate"] is None:
        return []
    return [f"Share of normal studies above the bundle's threshold: {_interval(table, 'false_positive_rate')}."]


def shown(tables: Sequence[Table]) -> list[RichTable | str]:
    """Return everything that the console shows of some sets, in order."""
    found: list[RichTable | str] = []
    for table in tables:
        found += [one.rich() for one in listings(table)]
        found += sentences(table)
    return found
