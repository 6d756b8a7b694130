"""The network: a small U-Net behind a space-to-depth stem, with a gate on every path from encoder to decoder.

::

    (B, inputs, P, P) ─(contrast)─► (B, inputs or 3·inputs, P, P) ─space-to-depth 4─► (B, 16·…, P/4, P/4)
         │
      level 0  P/4   ──── gate ────────────────┐
         │ /2                                  │
      level 1  P/8   ──── gate ──────────┐     │
         │ /2                            │     │
      bottom   P/16  ──── gate ──► level 1 ► level 0 ─depth-to-space 4─► mean, log-variance  2 × (B, 1, P, P)
                           │
                           └─► mean and spread over the image ─► embedding (B, 2 · bottom channels)

The stem keeps the convolutions away from full resolution, which is what makes 128² slices cheap on a CPU. The predicted
log-variance says where healthy anatomy is hard to predict (edges, sutures): residuals are judged in units of it.

One family: which classical autoencoder it is, the gates (`gates`) and what is minimised (`objective`) decide. With 3 inputs a slice is
seen between its neighbours (2.5-D). Arithmetic of one 128² slice, multiplications and additions counted apart by torch's flop counter:

=========  ====================  ===========  ==========
size       channels              GFLOP        weights
=========  ====================  ===========  ==========
(default)  32, 48, 64            0.15         0.22 M
small      48, 96, 128           0.43         0.79 M
large      192, 256, 320, 384    5.02         12.0 M
=========  ====================  ===========  ==========
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pacs_node.autoencoder.gates import GATES
from pacs_node.autoencoder.losses import box_mean

STEM = 4
SIZES: dict[str, tuple[int, ...]] = {"small": (48, 96, 128), "large": (192, 256, 320, 384)}
"""Channels for two CPU cores and for a GPU, in one word."""

_CONTRAST = (9, 33)  # pixels of the neighbourhoods against which contrast is measured
_FAINTEST = 0.02  # of the range: what varies less than this stays faint
_STRONGEST = 4.0  # contrast beyond this is cut
_GROUPS = 8
NORMS: dict[str, Callable[[int], nn.Module]] = {"group": lambda channels: nn.GroupNorm(_GROUPS, channels), "batch": nn.BatchNorm2d}
"""What normalises activations, by the number of channels: over each slice (Wu & He 2018), or over the batch in training and by the training
slices' own statistics later (Ioffe & Szegedy 2015), which crops and whole slices share and which leaves differences between slices alone."""

LOG_VARIANCE_RANGE = (-12.0, 2.0)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What makes two networks interchangeable: everything that decides the shapes and kinds of their layers.

    ``pixels`` is the edge of the square input, ``inputs`` the number of neighbouring slices (odd, the middle one is reconstructed),
    ``channels`` one number a level with the bottom last, ``gates`` one kind a level (`gates.GATES`), ``norm`` one of `NORMS`. ``contrast``:
    the network also sees each slice by its local contrast (`contrasts`). Raises `ValueError` where they contradict each other.
    """

    pixels: int = 128
    inputs: int = 1
    channels: tuple[int, ...] = (32, 48, 64)
    gates: tuple[str, ...] = ("open", "open", "open")
    contrast: bool = False
    norm: str = "group"

    def __post_init__(self) -> None:
        if len(self.channels) < 2 or len(self.channels) != len(self.gates):
            raise ValueError(f"channels {list(self.channels)} and gates {list(self.gates)} must have one entry a level, two levels at least")
        if any(channel <= 0 or channel % _GROUPS for channel in self.channels):
            raise ValueError(f"channels {list(self.channels)} must be multiples of {_GROUPS}")
        unknown = [gate for gate in self.gates if gate not in GATES]
        if unknown:
            raise ValueError(f"unknown gate {unknown[0]!r}: allowed are {', '.join(GATES)}")
        if self.norm not in NORMS:
            raise ValueError(f"unknown norm {self.norm!r}: allowed are {', '.join(NORMS)}")
        factor = STEM * 2 ** (len(self.channels) - 1)
        if self.pixels <= 0 or self.pixels % factor:
            raise ValueError(f"pixels {self.pixels} must be a multiple of {factor} with {len(self.channels)} levels")
        if self.inputs < 1 or self.inputs % 2 == 0:
            raise ValueError(f"inputs {self.inputs} must be odd: the middle slice is reconstructed")

    @property
    def features(self) -> int:
        """Length of the embedding of one slice."""
        return 2 * self.channels[-1]

    @property
    def views(self) -> int:
        """Channels that the stem gets."""
        return self.inputs * (1 + len(_CONTRAST) * self.contrast)


class Output(NamedTuple):
    """What the network says about a batch."""

    mean: Tensor  # (B, 1, P, P) the expected healthy slice, in units of the input
    log_variance: Tensor  # (B, 1, P, P) natural logarithm of its variance
    embedding: Tensor  # (B, features)
    codes: tuple[Tensor, ...]  # what each gate let pass, level 0 first: (B, channels, P / 4, P / 4), (B, channels, P / 8, P / 8), …
    prices: tuple[Tensor, ...]  # scalars, what each gate asks for that
    change: Tensor | None = None  # (B, 1, P, P) logit of something being changed here; None without a `change.Detector`

    @property
    def penalty(self) -> Tensor:
        """Sum of the gates' prices."""
        return torch.stack(self.prices).sum()


def contrasts(x: Tensor) -> Tensor:
    """Add to slices (B, inputs, P, P) their contrast with neighbourhoods of 9 and of 33 pixels: (B, 3 · inputs, P, P).

    Difference from the local mean in units of the local standard deviation (local contrast normalisation, Jarrett et al. 2009): beside a
    skull, brain and bleeding differ by a hundredth of the range, which normalised activations hide from all later layers.
    """
    return torch.cat([x, *(_contrast(x, width) for width in _CONTRAST)], dim=1)


def _contrast(x: Tensor, width: int) -> Tensor:
    mean, square = box_mean(x, width), box_mean(x * x, width)
    spread = (square - mean.square()).clamp(min=0).sqrt()
    return ((x - mean) / (_FAINTEST + spread)).clamp(-_STRONGEST, _STRONGEST) / 2


class _Block(nn.Sequential):
    """Convolution, norm, activation. Statistics that are settled are folded into the convolution's weights: a quarter less time."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 3, padding=1), NORMS[norm](outputs), nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations of (B, inputs, height, width): (B, outputs, height, width)."""
        convolution, norm, activation = self
        if not self.training and isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            convolution, norm = nn.utils.fusion.fuse_conv_bn_eval(convolution, norm), nn.Identity()
        result: Tensor = activation(norm(convolution(x)))
        return result


def unshuffled(x: Tensor) -> Tensor:
    """Space to depth (`torch.nn.PixelUnshuffle`) with the channels last in memory, in one copy."""
    batch, channels, height, width = x.shape
    cells = x.reshape(batch, channels, height // STEM, STEM, width // STEM, STEM).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, height // STEM, width // STEM, channels * STEM**2).permute(0, 3, 1, 2)


def _level(inputs: int, outputs: int, norm: str) -> nn.Sequential:
    return nn.Sequential(_Block(inputs, outputs, norm), _Block(outputs, outputs, norm))


class Trunk(nn.Module):
    """Everything before the head: ``features`` maps (B, inputs, P, P) to (B, channels, P / 4, P / 4) and what the gates let pass and ask for it."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels, norm = architecture.channels, architecture.norm
        self.encoder = nn.ModuleList([_level(STEM**2 * architecture.views, channels[0], norm), *(_level(low, high, norm) for low, high in pairwise(channels))])
        self.gates = nn.ModuleList([GATES[kind](width) for kind, width in zip(architecture.gates, channels, strict=True)])
        self.up = nn.ModuleList([nn.ConvTranspose2d(high, low, 2, stride=2) for low, high in pairwise(channels)])
        self.decoder = nn.ModuleList([_level(2 * width, width, norm) for width in channels[:-1]])
        self.unstem = nn.PixelShuffle(STEM)

    def features(self, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Return the last features, the codes behind the gates (level 0 first) and the gates' prices; of more slices than ``inputs`` the middle ones count."""
        surplus = (x.shape[1] - self.architecture.inputs) // 2
        x = x[:, surplus : x.shape[1] - surplus]
        codes, prices = [], []
        x = unshuffled(contrasts(x) if self.architecture.contrast else x)
        for depth, (encode, gate) in enumerate(zip(self.encoder, self.gates, strict=True)):
            x = encode(x if depth == 0 else nn.functional.avg_pool2d(x, 2))
            passed, price = gate(x)
            codes.append(passed)
            prices.append(price)
        x = codes[-1]
        for up, decode, skip in zip(reversed(self.up), reversed(self.decoder), reversed(codes[:-1]), strict=True):
            x = decode(torch.cat([up(x), skip], dim=1))
        return x, codes, prices


class Detector(Trunk):
    """A network of the same shape that says of each pixel whether something was changed there (`change`); its gates are open.

    ``forward`` takes (B, inputs, P, P) float in [0, 1] and returns logits (B, 1, P, P).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.head = nn.Conv2d(architecture.channels[0], STEM**2, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Say where the middle slices were changed."""
        logits: Tensor = self.unstem(self.head(self.features(x)[0]).float())
        return logits


class Network(Trunk):
    """A gated U-Net autoencoder after Ronneberger et al. 2015 and Kascenas et al. 2022 (see the picture at the top of the module).

    ``forward`` takes (B, slices, P, P) float in [0, 1] and returns an `Output`, whose tensors are float32 under autocast too: losses and
    statistics need the digits. A ``detector`` that was trained beside it looks at the same slices.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture)
        self.head = nn.Conv2d(architecture.channels[0], 2 * STEM**2, 1)
        self.detector: Detector | None = None
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def slices(self) -> int:
        """How many neighbouring slices it takes to fill the inputs of the network and of its detector."""
        return max(self.architecture.inputs, self.detector.architecture.inputs if self.detector else 1)

    def forward(self, x: Tensor) -> Output:
        """Reconstruct the middle slice of each input."""
        features, codes, prices = self.features(x)
        mean, log_variance = (self.unstem(part) for part in self.head(features).float().chunk(2, dim=1))
        bottom = codes[-1].float()
        embedding = torch.cat([bottom.mean((2, 3)), bottom.std((2, 3))], dim=1)
        change = self.detector(x) if self.detector else None
        return Output(mean, log_variance.clamp(*LOG_VARIANCE_RANGE), embedding, tuple(codes), tuple(prices), change)


def with_neighbours(stack: Tensor, inputs: int) -> Tensor:
    """Give every slice its neighbours as channels: (S, P, P) to (S, inputs, P, P); the first and last slice are repeated at the ends."""
    slices = stack.shape[0]
    offsets = torch.arange(inputs) - inputs // 2
    index = (torch.arange(slices)[:, None] + offsets).clamp(0, slices - 1)
    return stack[index]
