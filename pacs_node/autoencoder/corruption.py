"""How a training input is spoilt, so that the network learns to undo what does not belong (denoising autoencoder, Vincent et al. 2008).

All functions take and return float tensors of shape (batch, inputs, height, width) in [0, 1] and draw every random number from the
generator given, on the CPU whatever the device of the slices, so that a training run repeats exactly and a GPU sees what a CPU would.
None of the corruptions imitates a family of the planted test lesions: no ellipses of another density, no displacement, no added grain (so no
shuffled pixels either), no structure filled with its surroundings. Where a slice was changed, and how much, is ``spoilt - clean``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Corruption = Callable[[Tensor, torch.Generator], Tensor]

_COARSE = 4  # smooth fields are drawn at a quarter of the resolution
_AIR = 0.02  # above the darkest pixel


def coarse_noise(x: Tensor, generator: torch.Generator, sigma: float = 0.2) -> Tensor:
    """Add Gaussian noise drawn on a coarse grid of 4 to 32 pixels and interpolated (Kascenas et al. 2022: σ = 0.2 of the range)."""
    batch, _, height, width = x.shape
    cell = 2 ** int(torch.randint(2, 6, (1,), generator=generator))
    grid = torch.randn(batch, 1, max(2, height // cell), max(2, width // cell), generator=generator).to(x.device)
    return x + sigma * F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=False)


def smooth_blobs(x: Tensor, generator: torch.Generator, count: int = 3) -> Tensor:
    """Add up to ``count`` Gaussian hills or dips of 3 to 20 pixels (standard deviation) and height up to 0.5."""
    batch, _, height, width = x.shape
    rows = torch.arange(height, dtype=x.dtype, device=x.device)[None, :, None]
    columns = torch.arange(width, dtype=x.dtype, device=x.device)[None, None, :]
    field = torch.zeros(batch, height, width, device=x.device)
    for _ in range(count):
        draw = torch.rand(batch, 5, generator=generator).to(x.device)
        centre_row, centre_column = (draw[:, k, None, None] * edge for k, edge in ((0, height), (1, width)))
        sigma = 3 * (20 / 3) ** draw[:, 2, None, None]
        amplitude = (draw[:, 3, None, None] - 0.5) * (draw[:, 4, None, None] > 0.3)
        field += amplitude * torch.exp(-((rows - centre_row) ** 2 + (columns - centre_column) ** 2) / (2 * sigma**2))
    return x + field[:, None]


def foreign_patches(x: Tensor, generator: torch.Generator) -> Tensor:
    """Replace a rectangle of 8 to 40 pixels by the same rectangle of another slice of the batch, or erase it to the image's mean."""
    batch, _, height, width = x.shape
    edges = torch.randint(8, 41, (batch, 2), generator=generator)
    corner = (torch.rand(batch, 2, generator=generator) * (torch.tensor([height, width]) - edges).clamp(min=1)).long().to(x.device)
    edges = edges.to(x.device)
    rows = torch.arange(height, device=x.device)[None, :, None]
    columns = torch.arange(width, device=x.device)[None, None, :]
    end = corner + edges
    inside = (rows >= corner[:, :1, None]) & (rows < end[:, :1, None]) & (columns >= corner[:, 1:, None]) & (columns < end[:, 1:, None])
    other = x[torch.randperm(batch, generator=generator).to(x.device)]
    erased = x.mean((1, 2, 3), keepdim=True).expand_as(x)
    filling = torch.where((torch.rand(batch, 1, 1, 1, generator=generator) < 0.5).to(x.device), other, erased)
    return torch.where(inside[:, None], filling, x)


def smooth_field(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return Gaussian noise (batch, 1, height, width) that varies over 8 to 32 pixels, cubic and without a grid to be seen."""
    batch, _, height, width = x.shape
    cell = 2 ** int(torch.randint(3, 6, (1,), generator=generator))
    grid = torch.randn(batch, 1, max(2, height // cell), max(2, width // cell), generator=generator).to(x.device)
    coarse = F.interpolate(grid, size=(height // _COARSE, width // _COARSE), mode="bicubic", align_corners=False)
    return F.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)


def irregular_region(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return weights (batch, 1, height, width) in [0, 1] of soft-edged regions without a shape of their own: a tenth to a third of the body.

    A smooth field above its own quantile, as the Perlin masks of Zavrtanik et al. 2021 are. The body is what is brighter than the slice's
    darkest pixels: changed air would teach little.
    """
    field = smooth_field(x, generator)
    share = (0.1 + 0.23 * torch.rand(len(x), 1, generator=generator)).to(x.device)
    body = (x.mean(1, keepdim=True) > x.amin((1, 2, 3), keepdim=True) + _AIR)[..., ::_COARSE, ::_COARSE].flatten(1)
    values = field[..., ::_COARSE, ::_COARSE].flatten(1).masked_fill(~body, -math.inf).sort(1, descending=True).values
    border = values.gather(1, (share * body.sum(1, keepdim=True)).long())
    return torch.sigmoid((field - border.nan_to_num(neginf=math.inf)[..., None, None]) * 10)


def local_gamma(x: Tensor, generator: torch.Generator) -> Tensor:
    """Bend the intensities of an irregular region by exponents of 0.5 to 2: black and white stay, what lies between moves.

    After the non-linear intensity changes of Zhou et al. 2021 (Models Genesis), made local. The exponent varies over the region, so that
    no patch of tissue of one other density comes out of it.
    """
    bend = smooth_field(x, generator).clamp(-1, 1) * irregular_region(x, generator)
    return x.clamp(min=0) ** torch.exp2(bend)


def local_blur(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blur an irregular region with a Gaussian of 1 to 3 pixels (standard deviation): local means stay, edges and grain go."""
    sigma = 1 + 2 * float(torch.rand(1, generator=generator))
    reach = math.ceil(3 * sigma)
    kernel = torch.exp(-(torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) ** 2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = F.pad(x.flatten(0, 1)[:, None], (reach,) * 4, mode="replicate")
    blurred = F.conv2d(F.conv2d(flat, kernel[None, None, None]), kernel[None, None, :, None])
    return torch.lerp(x, blurred.reshape(x.shape), irregular_region(x, generator))


def foreign_blend(x: Tensor, generator: torch.Generator) -> Tensor:
    """Blend 5 to 95 % of another slice of the batch into an irregular region (foreign patch interpolation, Tan et al. 2020).

    The soft, irregular border leaves no straight edge to be found instead of the anatomy, the remedy of Schlüter et al. 2022.
    """
    amount = (0.05 + 0.9 * torch.rand(x.shape[0], 1, 1, 1, generator=generator)).to(x.device)
    other = x[torch.randperm(x.shape[0], generator=generator).to(x.device)]
    return torch.lerp(x, other, amount * irregular_region(x, generator))


CORRUPTIONS: dict[str, Corruption] = {
    "coarse_noise": coarse_noise,
    "smooth_blobs": smooth_blobs,
    "foreign_patches": foreign_patches,
    "local_gamma": local_gamma,
    "local_blur": local_blur,
    "foreign_blend": foreign_blend,
}
"""Every corruption that a recipe may name."""

DEFAULT_CORRUPTIONS = ("coarse_noise", "smooth_blobs", "foreign_patches")
"""Those of a recipe that names none."""


def corrupt(x: Tensor, generator: torch.Generator, names: tuple[str, ...], probability: float = 0.7) -> Tensor:
    """Apply the named corruptions in turn, each to a random ``probability`` of the batch; some slices stay clean on purpose."""
    for name in names:
        chosen = (torch.rand(x.shape[0], 1, 1, 1, generator=generator) < probability).to(x.device)
        x = torch.where(chosen, CORRUPTIONS[name](x, generator), x)
    return x.clamp(-0.2, 1.2)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Harmless differences between patients and scanners, applied to input and target alike.

    Angles in degrees, shift and scale as fractions of the image edge, ``noise`` the largest standard deviation added, ``gain`` the
    largest relative change of intensity.
    """

    rotation: float = 10.0
    shift: float = 0.05
    scale: float = 0.1
    gain: float = 0.05
    noise: float = 0.03
    mirror: bool = False


def augment(x: Tensor, generator: torch.Generator, how: Augmentation) -> Tensor:
    """Move, turn, scale, brighten and roughen every slice of a batch a little; returns values in [0, 1]."""
    batch = x.shape[0]
    draw = (2 * torch.rand(batch, 6, generator=generator) - 1).to(x.device)
    angle, scale = draw[:, 0] * math.radians(how.rotation), 1 + how.scale * draw[:, 1]
    mirror = torch.where(draw[:, 2] > 0, 1.0, -1.0) if how.mirror else torch.ones_like(angle)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    move = 2 * how.shift * draw[:, 3:5]
    theta = torch.stack([torch.stack([cosine * mirror, -sine, move[:, 0]], 1), torch.stack([sine * mirror, cosine, move[:, 1]], 1)], 1)
    moved = F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), padding_mode="border", align_corners=False)
    moved = moved * (1 + how.gain * draw[:, 5, None, None, None])
    level = how.noise * torch.rand(batch, 1, 1, 1, generator=generator).to(x.device)
    return (moved + level * torch.randn(x.shape, generator=generator).to(x.device)).clamp(0, 1)
