"""What an evaluation leaves behind: tables on the console, pictures in a folder, and the bundle's card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.table import Table

from pacs_node.analysis.bundle import Bundle
from pacs_node.workbench import card, evaluation_drawings, evaluation_words
from pacs_node.workbench.card_tables import PICTURES, slug
from pacs_node.workbench.evaluation import Evaluated
from pacs_node.workbench.evaluation_sets import PHANTOMS


def shown(done: Sequence[Evaluated]) -> Iterator[Table | str]:
    """Yield what the console shows: every set's tables and sentences, and who was not judged."""
    yield from evaluation_words.shown([one.table for one in done])
    for one in done:
        yield from (f"not used: {line}" for line in one.refused)


def written(bundle: Bundle, done: Sequence[Evaluated], out: Path | None) -> Iterator[Path]:
    """Draw pictures into ``out`` where a folder is given, and write the card anew for phantoms; yields what was written.

    The card's pictures of phantoms are drawn where matplotlib is installed, and left as they are where it is not.
    """
    for one in done:
        if out is not None:
            yield from evaluation_drawings.draw(bundle, one, out, slug(one.known.name))
        if one.known.name == PHANTOMS:
            if find_spec("matplotlib") is not None:
                evaluation_drawings.draw(bundle, one, bundle.folder / PICTURES, slug(PHANTOMS), examples=False)
            yield card.write_card(bundle, one.table)
