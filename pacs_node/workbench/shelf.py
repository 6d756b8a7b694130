"""Prepared studies in little memory: thousands of pictures, or hundreds of series, are on the shelf while a bundle is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Generic, TypeVar, overload

import torch
from torch import Tensor

from pacs_node.autoencoder.familiarity import Portrait
from pacs_node.autoencoder.fitting import Slices
from pacs_node.autoencoder.network import with_neighbours
from pacs_node.autoencoder.normals import Example

Source = TypeVar("Source")
Made = TypeVar("Made")


class Lazily(Sequence[Made], Generic[Source, Made]):
    """What ``make`` makes of each item of a sequence, made whenever it is asked for and never kept."""

    def __init__(self, source: Sequence[Source], make: Callable[[Source], Made]) -> None:
        self._source, self._make = source, make

    def __len__(self) -> int:
        return len(self._source)

    @overload
    def __getitem__(self, index: int) -> Made: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...
    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        if isinstance(index, slice):
            return Lazily(self._source[index], self._make)
        return self._make(self._source[index])


class Shelf:
    """Studies and their names. Pixels are kept as float16, which is finer than the noise of any image, and given out as float32."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._kept: list[Example] = []

    def add(self, name: str, study: Example) -> None:
        """Put a study on the shelf."""
        self._names.append(name)
        self._kept.append(replace(study, x=study.x.half()))

    def take(self, indices: Iterable[int]) -> Shelf:
        """Return a shelf with some of the studies, which share their memory."""
        result = Shelf()
        for index in indices:
            result._names.append(self._names[index])
            result._kept.append(self._kept[index])
        return result

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def names(self) -> Sequence[str]:
        """Names of the studies, in the order in which they came."""
        return self._names

    @property
    def studies(self) -> Sequence[Example]:
        """The studies in float32, each made when it is asked for."""
        return Lazily(self._kept, lambda one: replace(one, x=one.x.float()))

    @property
    def pictures(self) -> Sequence[Tensor]:
        """The slices (S, P, P) of each study in float32."""
        return Lazily(self._kept, lambda one: one.x.float())

    @property
    def pairs(self) -> Sequence[tuple[Tensor, Tensor]]:
        """The slices of each study and their foreground."""
        return Lazily(self._kept, lambda one: (one.x.float(), one.foreground))

    @property
    def portraits(self) -> Sequence[Portrait]:
        """What the gate looks at of the studies that have it."""
        return [one.portrait for one in self._kept if one.portrait is not None]

    def slices(self, inputs: int) -> Slices:
        """Return all slices for the training loop; where the network sees one slice at a time, they take no memory beside the shelf's."""
        if inputs != 1:
            pixels = torch.cat([with_neighbours(one.x.float(), inputs).half() for one in self._kept])
            return Slices(pixels, torch.cat([one.foreground for one in self._kept]))
        return self._packed()

    def _packed(self) -> Slices:
        """Move all studies into one piece of memory, one after the other, so that there are never two copies of all of them."""
        count, edge = sum(len(one.x) for one in self._kept), self._kept[0].x.shape[-1]
        pixels, foreground = torch.empty((count, 1, edge, edge), dtype=torch.half), torch.empty((count, edge, edge), dtype=torch.bool)
        start = 0
        for index, one in enumerate(self._kept):
            here = slice(start, start + len(one.x))
            pixels[here, 0], foreground[here] = one.x, one.foreground
            self._kept[index] = replace(one, x=pixels[here, 0], foreground=foreground[here])
            start = here.stop
        return Slices(pixels, foreground)


def shelved(studies: Iterable[Example]) -> Shelf:
    """Put studies without names on a shelf."""
    shelf = Shelf()
    for number, one in enumerate(studies):
        shelf.add(f"study {number}", one)
    return shelf
