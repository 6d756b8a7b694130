"""A grid of recipes: which keys of ``model.yaml`` are tried with which values.

::

    always:                             # set in every cell; the winner's keys do not hold it
      recipe.phantoms.train: 60
    variants:                           # each a set of keys with a name
      plain:     {network.gates: {skips: none, bottom: open}, recipe.corruptions: []}
      denoising: {network.gates: open}
    recipe.rate: [0.001, 0.002]         # every other key: its values, all combined with all, and with each variant

``network.gates`` may be one kind for every level, or one for the ``skips`` and one for the ``bottom``, whatever the depth of the network.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pacs_node.analysis.manifest import Manifest
from pacs_node.analysis.recipe import NetworkPart
from pacs_node.errors import InputError

GATES = "network.gates"
MOST_CELLS = 500

Settings = Mapping[str, Any]
"""Dotted keys of ``model.yaml`` and their values."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One recipe to try: what it is called, and the keys that make it differ from the bundle's own."""

    name: str
    settings: Settings


@dataclass(frozen=True, slots=True)
class Grid:
    """What a grid file says; ``source`` is named in errors."""

    source: str
    axes: Mapping[str, list[Any]] = field(default_factory=dict)
    variants: Mapping[str, Settings] = field(default_factory=dict)
    always: Settings = field(default_factory=dict)


def read_grid(path: Path) -> Grid:
    """Read a grid file; raises `InputError` naming the key at fault."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"the grid {path} cannot be read ({' '.join(str(error).split())}): give a YAML file of keys and lists of values") from error
    if not isinstance(content, dict) or not content:
        raise InputError(f"the grid {path} holds no keys: write, for example, 'recipe.rate: [0.001, 0.002]'")
    variants, always = content.pop("variants", None) or {}, content.pop("always", None) or {}
    _must_be_settings(path, {"variants": variants, "always": always})
    _must_be_settings(path, variants)
    for key, values in content.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"the grid {path}: {key}: must be a list of values to try, such as [0.001, 0.002]")
    return Grid(str(path), content, variants, always)


def _must_be_settings(path: Path, parts: Mapping[str, Any]) -> None:
    for name, settings in parts.items():
        if not isinstance(settings, dict):
            raise InputError(f"the grid {path}: {name}: must hold keys of model.yaml and their values, such as 'recipe.rate: 0.001'")


def usual_grid(manifest: Manifest) -> Grid:
    """Return the grid that is tried where none is given: half, the same and twice the recipe's learning rate."""
    rate = manifest.recipe.rate
    return Grid("the usual grid", {"recipe.rate": [rate / 2, rate, 2 * rate]})


def cells(grid: Grid) -> list[Cell]:
    """Return every variant combined with every combination of the axes' values; raises `InputError` for more than `MOST_CELLS`."""
    combinations = [dict(zip(grid.axes, values, strict=True)) for values in product(*grid.axes.values())]
    named = [(name, dict(settings)) for name, settings in grid.variants.items()] or [("", {})]
    if len(named) * len(combinations) > MOST_CELLS:
        raise InputError(f"the grid {grid.source} has {len(named) * len(combinations)} cells, more than {MOST_CELLS}: try fewer values at a time")
    return [Cell(_name(name, chosen), settings | chosen) for name, settings in named for chosen in combinations]


def _name(variant: str, chosen: Settings) -> str:
    parts = [variant, *(f"{key.rsplit('.', 1)[-1]} {_short(value)}" for key, value in chosen.items())]
    return ", ".join(part for part in parts if part) or "as it is"


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).replace("'", "")


def manifest_of(content: Mapping[str, Any], grid: Grid, cell: Cell, forced: Settings | None = None) -> tuple[dict[str, Any], Manifest]:
    """Return ``model.yaml``'s ``content`` with a cell's keys, as it is written and as it is read.

    ``forced`` keys win over the cell's, those over ``always``. Raises `InputError` naming the cell and the key that do not fit.
    """
    changed = {key: value for key, value in copy.deepcopy(dict(content)).items() if key != "files"}
    settings = {**grid.always, **cell.settings, **(forced or {})}
    for key, value in settings.items():
        _set(changed, key, value, f"the grid {grid.source}, {cell.name}")
    gates = settings.get(GATES)
    if isinstance(gates, str | dict):
        changed["network"]["gates"] = _gates(gates, changed["network"], f"the grid {grid.source}, {cell.name}")
    try:
        return changed, Manifest.model_validate(changed)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "contradiction"
        raise InputError(f"the grid {grid.source}, {cell.name}: {where}: {fault['msg'][:1].lower()}{fault['msg'][1:]}: correct that line") from error


def nested(written: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """Return only the dotted ``keys`` of a written ``model.yaml``, as they stand in it."""
    result: dict[str, Any] = {}
    for key in keys:
        value: Any = written
        for part in key.split("."):
            value = value[part]
        _set(result, key, value, key)
    return result


def _set(content: dict[str, Any], key: str, value: Any, where: str) -> None:
    *path, last = str(key).split(".")
    place: Any = content
    for part in path:
        if place.get(part) is None:
            place[part] = {}
        place = place[part]
        if not isinstance(place, dict):
            raise InputError(f"{where}: {key}: {part} of model.yaml holds no further keys: check its spelling")
    place[last] = copy.deepcopy(value)


def _gates(gates: str | Mapping[str, str], network: Mapping[str, Any], where: str) -> list[str]:
    """Spell a short form out for a network of its depth."""
    if isinstance(gates, dict) and set(gates) != {"skips", "bottom"}:
        raise InputError(f"{where}: {GATES}: give one kind for all levels, a list of one a level, or both of skips and bottom")
    skips, bottom = (gates, gates) if isinstance(gates, str) else (gates["skips"], gates["bottom"])
    return [*[skips] * (_levels(network) - 1), bottom]


def _levels(network: Mapping[str, Any]) -> int:
    return len(NetworkPart.model_validate({key: value for key, value in network.items() if key != "gates"}).channels)
