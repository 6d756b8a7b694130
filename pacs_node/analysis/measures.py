"""What a portrait is made of: functions of slices that another modality, another region, a physical phantom or an artefact move.

They are medians, shares and means over whole slices, no maximum over pixels, so that one focal lesion moves them little.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pacs_node.analysis.look import Look, blurred, mean_of

_TINY = 1e-4
QUANTILES = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)
BINS = 12
LAYOUT = 4
_LAGS = (5, 24)  # grid pixels: a doubled contour repeats an edge at such a distance


# --- measures of a slice: Look -> (S,) ---------------------------------------------------------------------------------------


def _log(values: Tensor) -> Tensor:
    return (values + _TINY).log()


def noise(seen: Look) -> Tensor:
    """Logarithm of the grain: mean absolute response of the difference of Laplacians (Immerkær 1996), which edges hardly move."""
    x = seen.x
    across = x[:, :, 2:] - 2 * x[:, :, 1:-1] + x[:, :, :-2]
    both = across[:, 2:] - 2 * across[:, 1:-1] + across[:, :-2]
    return _log(mean_of(F.pad(both.abs(), (1, 1, 1, 1)).clamp(max=1.0), seen.core))


def edges(seen: Look) -> Tensor:
    """Logarithm of the mean slope, of the slices after a blur of 3 pixels."""
    down, right = _slopes(seen)
    return _log(mean_of(down.abs() + right.abs(), seen.core))


def _slopes(seen: Look) -> tuple[Tensor, Tensor]:
    smooth = seen.smooth
    down = F.pad(smooth[:, 2:] - smooth[:, :-2], (0, 0, 1, 1))
    right = F.pad(smooth[:, :, 2:] - smooth[:, :, :-2], (1, 1))
    return down, right


def sharpness(seen: Look) -> Tensor:
    """Logarithm of fine over coarse detail: what is left of a blur of 3 pixels over what is left of one of 9."""
    coarse = blurred(seen.smooth, (3,))
    return _log(mean_of((seen.x - seen.smooth).abs(), seen.core)) - _log(mean_of((seen.smooth - coarse).abs(), seen.core))


def streaks(seen: Look) -> Tensor:
    """Logarithm of grain down over grain across: streaks, lines and smears have a direction."""
    down, right = seen.x.diff(dim=1), seen.x.diff(dim=2)
    return _log(mean_of(F.pad(down.abs(), (0, 0, 0, 1)), seen.core)) - _log(mean_of(F.pad(right.abs(), (0, 1)), seen.core))


def bright(seen: Look) -> Tensor:
    """Root of the share of the body at the upper end of the scale: metal, or a wrong scale."""
    return mean_of((seen.x > 0.985).float(), seen.body).sqrt()


def dark(seen: Look) -> Tensor:
    """Root of the share of the body's core without any signal over 3 × 3 pixels: voids beside metal, shadows."""
    return mean_of((seen.smooth < 0.05).float(), seen.core).sqrt()


def spread(seen: Look) -> Tensor:
    """Logarithm of the standard deviation within the body."""
    mean = mean_of(seen.x, seen.body)[:, None, None]
    return _log(mean_of((seen.x - mean).square(), seen.body).sqrt())


def rim(seen: Look) -> Tensor:
    """Brightness of the body's rim less that of its core: a body that is cut off has no skin."""
    return mean_of(seen.x, seen.body - seen.core) - mean_of(seen.x, seen.core)


def area(seen: Look) -> Tensor:
    """Logarithm of the body's area, grid pixels."""
    return seen.body.sum((1, 2)).log()


def slenderness(seen: Look) -> Tensor:
    """Logarithm of the body's height over its width."""
    return seen.body.amax(2).sum(1).log() - seen.body.amax(1).sum(1).log()


def fullness(seen: Look) -> Tensor:
    """Share of the body's bounding box that it fills."""
    return seen.body.sum((1, 2)) / (_extent(seen.body.amax(2)) * _extent(seen.body.amax(1)))


def _extent(line: Tensor) -> Tensor:
    """Length from the first to the last entry of 1 in each row of (S, P)."""
    size = line.shape[1]
    return (size - line.argmax(1) - line.flip(1).argmax(1)).float()


def cut(seen: Look) -> Tensor:
    """Root of the largest share of the body's side, upper or lower end that is one straight line: cut off at the border of the field."""
    sides = torch.stack([straight(body) for body in (seen.body, seen.body.flip(2), seen.body.transpose(1, 2), seen.body.transpose(1, 2).flip(2))])
    return sides.amax(0).sqrt()


def straight(body: Tensor) -> Tensor:
    """Share of the rows that hold body whose first pixel of it lies in the outermost column."""
    outwards = torch.arange(body.shape[2], 0, -1, dtype=body.dtype)
    reach = (body * outwards).amax(2)  # 0 in rows without body
    lit = reach > 0
    return ((reach == reach.amax(1, keepdim=True)) & lit).sum(1) / lit.sum(1).clamp(min=1)


def ghosts(seen: Look) -> Tensor:
    """Logarithm of what is seen beside the body, relative to the mean of the body."""
    return _log(mean_of(seen.air, seen.around).nan_to_num(0.0) + 0.01)


def tilt_down(seen: Look) -> Tensor:
    """Brightness of the lower half of the body less that of the upper."""
    return _half(seen.x, seen.body)


def tilt_across(seen: Look) -> Tensor:
    """Brightness of the right half of the picture's body less that of the left."""
    return _half(seen.x.transpose(1, 2), seen.body.transpose(1, 2))


def _half(x: Tensor, body: Tensor) -> Tensor:
    rows = torch.arange(x.shape[1], dtype=x.dtype)[None, :, None]
    centre = (rows * body).sum((1, 2)) / body.sum((1, 2)).clamp(min=1)
    lower = (rows > centre[:, None, None]).float() * body
    return mean_of(x, lower) - mean_of(x, body - lower)


def contours(seen: Look) -> Tensor:
    """How far edges repeat at a distance, along the direction and at the distance where they do most: a movement doubles them."""
    down, right = _slopes(seen)
    return torch.maximum(_repeats((down * seen.core).transpose(1, 2)), _repeats(right * seen.core))


def _repeats(slopes: Tensor) -> Tensor:
    """Largest correlation of (S, P, P) with itself some pixels further along the last dimension, by the theorem of Wiener and Khinchin."""
    power = torch.fft.rfft(slopes[:, ::2], n=2 * slopes.shape[2]).abs().square().sum(1)
    correlation: Tensor = torch.fft.irfft(power)
    lags = slice(*_LAGS)
    strongest: Tensor = (correlation[:, lags] / correlation[:, :1].clamp(min=_TINY)).amax(1)
    return strongest


def nothing(seen: Look) -> Tensor:
    """Root of the share of what lies beside the body that holds not even noise: cut off there, or painted over."""
    return mean_of((seen.air < _TINY).float(), seen.around).nan_to_num(0.0).sqrt()


def ghost_direction(seen: Look) -> Tensor:
    """Logarithm of what is seen left and right of the body over what is seen above and below it: ghosts lie along one direction."""
    rows, columns = seen.body.amax(2)[:, :, None], seen.body.amax(1)[:, None, :]
    sides, ends = mean_of(seen.air, seen.around * rows * (1 - columns)), mean_of(seen.air, seen.around * columns * (1 - rows))
    return ((sides + 0.01) / (ends + 0.01)).log()


# --- measures of the series: Look -> (k,) --------------------------------------------------------------------------------------


def brightness(seen: Look) -> Tensor:
    """Quantiles of the network values of the body, and roots of the shares in twelve bins of equal width."""
    values = seen.x[seen.body > 0]
    values = values[:: max(1, len(values) // 10_000)]
    shares = torch.histc(values, BINS, 0.0, 1.0) / len(values)
    return torch.cat([torch.quantile(values, torch.tensor(QUANTILES)), shares.sqrt()])


def layout(seen: Look) -> Tensor:
    """Mean network value in 4 × 4 fields of the body's bounding box, less the body's mean: where it is bright and where dark."""
    total, weight = (seen.x * seen.body).sum(0), seen.body.sum(0)
    rows, columns = (torch.nonzero(weight.amax(dim)).flatten() for dim in (1, 0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    fields = [F.adaptive_avg_pool2d(table[box][None, None], LAYOUT)[0, 0] for table in (total, weight)]
    return (fields[0] / fields[1].clamp(min=_TINY) - total.sum() / weight.sum()).flatten()


def neighbours(seen: Look) -> Tensor:
    """Logarithm of the mean change from slice to slice within the body, typical and largest; NaN for a single slice."""
    if len(seen.x) < 2:
        return torch.full((2,), torch.nan)
    change = _log(mean_of((seen.smooth[1:] - seen.smooth[:-1]).abs(), seen.body[1:] * seen.body[:-1]))
    change = change[torch.isfinite(change)]
    return torch.stack([change.median(), change.amax()]) if len(change) else torch.full((2,), torch.nan)


def shape_change(seen: Look) -> Tensor:
    """Spread of the body's area over the slices, relative to its mean."""
    size = seen.body.sum((1, 2))
    return (size.std(correction=0) / size.mean())[None]
