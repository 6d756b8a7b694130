"""Small charts as shapes in the coordinates of an SVG, which templates draw: no script, no library. Functions of values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar, in user units from the top left, and what it says."""

    x: float
    y: float
    width: float
    height: float
    label: str


def bars(values: Sequence[float], labels: Sequence[str], width: float, height: float) -> list[Bar]:
    """Return one bar for each value, side by side; the largest is as high as the chart, and nothing is no bar."""
    if not values:
        return []
    step, highest = width / len(values), max(max(values), 1e-9)
    made = []
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall = max(height * value / highest, 2.0) if value > 0 else 0.0
        made.append(Bar(round(index * step + step * 0.1, 2), round(height - tall, 2), round(step * 0.8, 2), round(tall, 2), label))
    return made


@dataclass(frozen=True, slots=True)
class Dot:
    """One score: its place, whether it lies above the threshold, and what it says."""

    x: float
    y: float
    above: bool
    label: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """Scores in the order of time; ``line``: the height of the threshold, None without one. ``low`` and ``high``: the values at the lower and upper edge."""

    dots: tuple[Dot, ...]
    line: float | None
    low: float
    high: float
    width: float
    height: float


def scatter(points: Sequence[tuple[datetime, float]], threshold: float | None, width: float, height: float) -> Scatter:
    """Place scores, oldest first, at equal distances: what counts is the order, and nights leave no gaps. At least one point."""
    ordered = sorted(points)
    values = [score for _, score in ordered] + ([threshold] if threshold is not None else [])
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def tall(value: float) -> float:
        return round(height * (high - value) / (high - low), 2)

    dots = tuple(
        Dot(
            round(width * (index + 0.5) / len(ordered), 2),
            tall(score),
            threshold is not None and score > threshold,
            f"{moment.astimezone():%Y-%m-%d %H:%M}: {score:.3f}",
        )
        for index, (moment, score) in enumerate(ordered)
    )
    return Scatter(dots, None if threshold is None else tall(threshold), low, high, width, height)


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a bar that shows where time went: ``start`` and ``width`` in hundredths of the whole."""

    name: str
    start: float
    width: float
    seconds: float


def stretches(parts: Sequence[tuple[str, float]]) -> list[Stretch]:
    """Return named spans (seconds) one after the other; what took no time is left out."""
    whole = sum(seconds for _, seconds in parts if seconds > 0)
    made: list[Stretch] = []
    start = 0.0
    for name, seconds in parts:
        if seconds > 0:
            width = 100 * seconds / whole
            made.append(Stretch(name, round(start, 3), round(width, 3), seconds))
            start += width
    return made
