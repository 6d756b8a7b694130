"""Times, spans and sizes as the status page writes them. Functions of values only."""

from __future__ import annotations

from datetime import datetime, timedelta

from markupsafe import Markup

_UNITS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def span(of: timedelta | float | None) -> str:
    """Write a time span (or seconds) with its two largest units: ``0.42 s``, ``3 min 5 s``, ``2 d 4 h``; ``""`` for None."""
    if of is None:
        return ""
    seconds = max(of.total_seconds() if isinstance(of, timedelta) else of, 0.0)
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for name, size in _UNITS:
        if left >= size or (parts and name == "s"):
            parts.append((left // size, name))
        left %= size
    return " ".join(f"{count} {name}" for count, name in parts[:2] if count)


def ago(moment: datetime | None, now: datetime) -> str:
    """Write how long ago something was."""
    return "" if moment is None else f"{span(max(now - moment, timedelta()))} ago"


def until(moment: datetime | None, now: datetime) -> str:
    """Write in how long something will be."""
    if moment is None:
        return ""
    return f"in {span(moment - now)}" if moment > now else "now"


def when(moment: datetime | None) -> Markup:
    """Write a moment in the time of this machine, for programs too; nothing for None."""
    if moment is None:
        return Markup("")
    return Markup('<time datetime="{}">{}</time>').format(moment.isoformat(timespec="seconds"), moment.astimezone().strftime("%Y-%m-%d %H:%M:%S"))


def size(count: float | None) -> str:
    """Write a number of bytes: ``512 B``, ``1.4 GB``."""
    if count is None:
        return ""
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def counted(count: int, one: str, many: str = "") -> str:
    """Write a number with its noun: ``1 study``, ``2 studies``."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}".replace(",", " ")
