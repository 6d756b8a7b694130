"""Writing Markdown: headings that make a table of contents, paragraphs, lists and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

_CONTENTS = "\0contents"


class Page:
    """A document that grows from top to bottom."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._headings: list[tuple[int, str]] = []

    def heading(self, level: int, text: str) -> None:
        """Begin a section; level 1 is the title, which the table of contents leaves out."""
        self._headings.append((level, text))
        self._parts.append(f"{'#' * level} {text}")

    def text(self, *paragraphs: str) -> None:
        """Add paragraphs."""
        self._parts.extend(paragraphs)

    def bullets(self, items: Iterable[str]) -> None:
        """Add a list."""
        self._parts.append("\n".join(f"* {item}" for item in items))

    def drawing(self, lines: str) -> None:
        """Add a drawing made of letters."""
        self._parts.append(f"```text\n{lines.strip(chr(10))}\n```")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str = "None.") -> None:
        """Add a table, or ``empty`` where it has no rows."""
        made = [_row(row) for row in rows]
        if not made:
            self._parts.append(empty)
            return
        self._parts.append("\n".join((_row(columns), _row(["---"] * len(columns)), *made)))

    def contents(self) -> None:
        """Put the table of contents here, with what comes later, too."""
        self._parts.append(_CONTENTS)

    def __str__(self) -> str:
        """Return the document."""
        lines = [f"{'  ' * (level - 2)}* {text}" for level, text in self._headings if 2 <= level <= 3]
        return "\n\n".join("\n".join(lines) if part == _CONTENTS else part for part in self._parts) + "\n"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(value: object) -> str:
    """Write a value so that it stays in its cell, and so that nothing in it (a title, an address) is taken for markup."""
    text = " ".join(str("" if value is None else value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
