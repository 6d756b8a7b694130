"""Learning to see what does not belong: a second network beside the autoencoder says of each pixel whether something was changed there.

A residual tells a change only as far as the reconstruction refuses to follow it, and the longer a network is trained the better it
follows. So a `network.Detector` learns it directly: shapes of foreign content are blended into normal slices, and where they are visible
is known (DRAEM, Zavrtanik et al. 2021; foreign patch interpolation, Tan et al. 2020).

::

    clean ─► crops ─┬─► foreign shapes ─► spoilt ─► contrast channels ─► detector ─► change (logit a pixel)
                    │                       │                                            │
                    └───────────────────────┴─► visibility of the difference ─► target ─► cross-entropy, in the foreground

What a shape holds comes from other places of the same slice, from other slices of the batch or is flat; none of the families of planted
test lesions is imitated. How strong it is counts in units of the slice's own noise, so that faint and strong changes are equally
frequent whatever the modality. Slices are (B, inputs, P, P) float in [0, 1], foreground (B, P, P) boolean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.autoencoder.losses import box_mean
from pacs_node.autoencoder.network import Detector

STRENGTH = (1.0, 12.0)  # root mean square of a blended change in units of the noise, drawn evenly on a logarithmic scale
RADIUS = (2.5, 25.0)  # pixels, likewise
VISIBLE = 0.4  # local root mean square of a change, in units of the noise, at which its target is one half
_WINDOW = 5  # pixels of "local"
_REACH = 40  # pixels by which content of the same slice is moved
_FLAT = 0.3  # share of shapes that are filled evenly
_SOURCES = 0.35  # shares of shapes filled from another slice; the rest comes from elsewhere in the same one
_LEVEL = 0.3  # spread of an even filling about the shape's own mean
_BRIGHTEST = 24.0  # no pixel differs by more noise than this: the edge of a bone must not use up a shape's strength
_LEAST_NOISE = 0.003  # of the range of the input
_AGAIN = 0.55  # chance of each of two shapes a slice
_NORMAL = 1.4826 / 0.94  # median of absolute values to standard deviation; a 3 × 3 mean takes 6 % of white noise along


def noise_level(x: Tensor, foreground: Tensor) -> Tensor:
    """Return the noise of each middle slice: robust standard deviation of what a 3 × 3 mean takes away, (B, inputs, P, P) to (B)."""
    middle = x[:, x.shape[1] // 2]
    fine = (middle - box_mean(middle[:, None], 3)[:, 0]).abs()
    medians = torch.where(foreground, fine, torch.nan).flatten(1).nanmedian(1).values
    return (_NORMAL * medians).nan_to_num(nan=_LEAST_NOISE).clamp(min=_LEAST_NOISE)


def shapes(foreground: Tensor, generator: torch.Generator) -> Tensor:
    """Return one random shape a slice, (B, P, P) in [0, 1]: a turned ellipse with a waving outline and a soft edge, centred in the foreground."""
    batch, height, width = foreground.shape
    centre = torch.multinomial(foreground.flatten(1).float() + 1e-6, 1, generator=generator)
    draw = torch.rand(batch, 3, generator=generator)
    low, high = RADIUS
    radius = (low * (high / low) ** draw[:, 0])[:, None, None]
    angle, edge = math.pi * draw[:, 1, None, None], 0.05 + 0.3 * draw[:, 2, None, None]
    stretch = torch.exp(0.25 * torch.randn(batch, 1, 1, generator=generator))
    rows = torch.arange(height)[None, :, None] - (centre // width)[:, :, None]
    columns = torch.arange(width)[None, None, :] - (centre % width)[:, :, None]
    along = (columns * angle.cos() + rows * angle.sin()) / (radius * stretch)
    across = (rows * angle.cos() - columns * angle.sin()) * stretch / radius
    return torch.sigmoid(2 * (1 - (along.square() + across.square()).sqrt() + 0.35 * _waves(batch, height, width, generator)) / edge)


def _waves(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Smooth noise of unit variance on a coarse grid of 4 to 16 cells an edge."""
    cells = 2 + 2 ** int(torch.randint(2, 5, (1,), generator=generator))
    grid = torch.randn(batch, 1, cells, cells, generator=generator)
    return F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)[:, 0]


def _contents(x: Tensor, shape: Tensor, generator: torch.Generator) -> Tensor:
    """What the shapes are filled with, of the size of ``x``."""
    batch = x.shape[0]
    elsewhere = torch.roll(x.flip(3) if torch.rand(1, generator=generator) < 0.5 else x, _shift(generator), (2, 3))
    level = (x * shape).sum((1, 2, 3), keepdim=True) / (x.shape[1] * shape.sum((1, 2, 3), keepdim=True)).clamp(min=1e-6)
    even = level + _LEVEL * torch.randn(batch, 1, 1, 1, generator=generator)
    pick = torch.rand(batch, 1, 1, 1, generator=generator)
    other = x[torch.randperm(batch, generator=generator)]
    return torch.where(pick < _SOURCES, other, torch.where(pick < 1 - _FLAT, elsewhere, even.expand_as(x)))


def _shift(generator: torch.Generator) -> list[int]:
    found: list[int] = torch.randint(-_REACH, _REACH + 1, (2,), generator=generator).tolist()
    return found


def blend(x: Tensor, foreground: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Blend one shape of foreign content into each slice and its neighbours, at a random strength; ``noise`` (B) as of `noise_level`."""
    shape = shapes(foreground, generator)[:, None]
    limit = (_BRIGHTEST * noise)[:, None, None, None]
    difference = shape * (_contents(x, shape, generator) - x).clamp(-limit, limit) * foreground[:, None]
    area = (shape[:, 0] > 0.5).sum((1, 2)).clamp(min=4)
    strength = (difference.square().sum((1, 2, 3)) / (x.shape[1] * area)).sqrt()
    low, high = STRENGTH
    wanted = noise * low * (high / low) ** torch.rand(x.shape[0], generator=generator)
    return x + (wanted / strength.clamp(min=1e-5)).clamp(max=1)[:, None, None, None] * difference


def change(x: Tensor, foreground: Tensor, noise: Tensor, generator: torch.Generator) -> Tensor:
    """Blend none, one or two shapes into each slice; values stay in [-0.2, 1.2]."""
    spoilt = x
    for _ in range(2):
        chosen = torch.rand(x.shape[0], 1, 1, 1, generator=generator) < _AGAIN
        spoilt = torch.where(chosen, blend(spoilt, foreground, noise, generator), spoilt)
    return spoilt.clamp(-0.2, 1.2)


def visibility(clean: Tensor, spoilt: Tensor, noise: Tensor) -> Tensor:
    """Return the target of a detector, (B, 1, P, P) in [0, 1): how clearly the middle slice differs here, in units of the noise."""
    middle = clean.shape[1] // 2
    difference = (spoilt - clean)[:, middle : middle + 1] / noise[:, None, None, None]
    ratio = box_mean(difference.square(), _WINDOW) / VISIBLE**2
    return ratio / (1 + ratio)


def crops(x: Tensor, foreground: Tensor, edge: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return squares of ``edge`` pixels around random foreground pixels, as many as have the area of the slices, with their foreground.

    The same arithmetic shows a detector several times as many changes as whole slices would.
    """
    batch, _, height, width = x.shape
    each = max(1, (height // edge) * (width // edge))
    centres = torch.multinomial(foreground.flatten(1).float() + 1e-6, each, replacement=True, generator=generator)
    tops = (centres // width - edge // 2).clamp(0, height - edge).tolist()
    lefts = (centres % width - edge // 2).clamp(0, width - edge).tolist()
    places = [(index, tops[index][number], lefts[index][number]) for number in range(each) for index in range(batch)]
    return (
        torch.stack([x[index, :, top : top + edge, left : left + edge] for index, top, left in places]),
        torch.stack([foreground[index, top : top + edge, left : left + edge] for index, top, left in places]),
    )


def change_loss(detector: Detector, clean: Tensor, foreground: Tensor, generator: torch.Generator, crop: int | None = None) -> Tensor:
    """Return the cross-entropy of a detector on slices that foreign shapes were blended into: a scalar, over the foreground.

    ``crop``: on `crops` of that edge. The shapes are drawn on the CPU whatever the device, so that every device sees the same.
    """
    here, inside = clean.cpu(), foreground.cpu()
    if crop is not None:
        here, inside = crops(here, inside, crop, generator)
    noise = noise_level(here, inside)
    spoilt = change(here, inside, noise, generator)
    target, weight = visibility(here, spoilt, noise).to(clean.device), inside[:, None].float().to(clean.device)
    said = detector(spoilt.to(clean.device))
    loss = F.binary_cross_entropy_with_logits(said, target, reduction="none")
    return (loss * weight).sum() / weight.sum().clamp(min=1)
