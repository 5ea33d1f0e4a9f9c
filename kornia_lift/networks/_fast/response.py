r"""The 16 filters of 25x25 of the detector by fast Fourier transforms of overlapping tiles (overlap-save).

One transform of a tile serves all filters. Filters go back to pixels in pairs, one as the real, one as the imaginary
part; a pair holds filters of two maxima that the activation subtracts from each other, so that the maxima are taken
without separating the parts. A tile of 128 pixels costs a quarter of the direct convolution; the rounding errors are
1e-6 of its largest response.
"""

from __future__ import annotations

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

NUM_SUM = NUM_MAX = 4
SMALLEST = 32 * 32  # scores from which on tiles are faster than the direct convolution

_SIDES = (64, 80, 96, 112, 128, 144, 160)  # of tiles: fast transforms whose 8 pairs fit the cache


class ResponsePlan:
    """The filters as transforms, for every shape of tile that was needed.

    Args:
        weight: filters, shape (16, 1, K, K); sum index, then max index.
        bias: shape (16,).

    Attributes:
        margin: K - 1.
        bias: biases of the 8 pairs, real and imaginary part, shape (8, 1, 1, 2).

    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._pairs = torch.complex(*_pairs(weight[:, 0]))
        self._bias = torch.complex(*_pairs(bias))
        self.bias = torch.view_as_real(self._bias)[:, None, None]
        self._spectra: dict[tuple[int, int], Tensor] = {}
        self.margin = weight.shape[-1] - 1

    def spectrum(self, rows: int, cols: int) -> tuple[Tensor, Tensor]:
        """Return the transforms of the 8 pairs for a tile, shape (8, rows, cols), and their biases at frequency 0."""
        if (rows, cols) not in self._spectra:
            transforms = [torch.fft.fft2(part, s=(rows, cols)).conj() for part in (self._pairs.real, self._pairs.imag)]
            self._spectra[rows, cols] = transforms[0] + 1j * transforms[1]
        return self._spectra[rows, cols], self._bias * (rows * cols)


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split the filters (16, ...) into those whose maximum is added and those whose maximum is subtracted."""
    groups = x.unflatten(0, (NUM_SUM, NUM_MAX))
    return groups[0::2].flatten(0, 1), groups[1::2].flatten(0, 1)


def _tiles(outputs: int, margin: int) -> tuple[int, list[int]]:
    """Choose the side of the tiles along one axis and where each starts."""
    side = min(_SIDES, key=lambda side: (-(-outputs // (side - margin)) * side, -side))
    step = side - margin
    return side, [max(0, min(start, outputs - step)) for start in range(0, outputs, step)]


def score(z: Tensor, plan: ResponsePlan, gain: Tensor | None = None) -> Tensor:
    """Run filters and activation on normalised images, where the whole filter lies in the image.

    Args:
        z: images minus mean, over standard deviation, float32, shape (B, 1, H, W).
        plan: the filters.
        gain: factor of the filter responses of each window, applied before the biases are added, shape
            (B, 1, H - K + 1, W - K + 1); the filters then have no mean.

    Returns:
        Scores, shape (B, 1, H - K + 1, W - K + 1).

    """
    margin = plan.margin
    height, width = z.shape[-2] - margin, z.shape[-1] - margin
    (rows, tops), (cols, lefts) = _tiles(height, margin), _tiles(width, margin)
    spectrum, constant = plan.spectrum(rows, cols)
    z = F.pad(z, (0, max(0, cols - z.shape[-1]), 0, max(0, rows - z.shape[-2])))
    out = z.new_empty(len(z), 1, max(height, rows - margin), max(width, cols - margin))
    if gain is not None:
        gain = F.pad(gain, (0, out.shape[-1] - width, 0, out.shape[-2] - height))
    step = NUM_MAX
    for image, top, left in product(range(len(z)), tops, lefts):
        tile = z[image, 0, top : top + rows, left : left + cols]
        inner = (slice(top, top + rows - margin), slice(left, left + cols - margin))
        if gain is None:
            pairs = torch.fft.fft2(tile) * spectrum
            pairs[:, 0, 0] += constant
            # columns are cut off after the maxima: whole rows are one long inner loop
            responses = torch.view_as_real(torch.fft.ifft2(pairs)[:, : rows - margin])
        else:
            # the mean of the tile has no effect on filters without mean, but would increase rounding errors
            pairs = torch.fft.fft2(tile - tile.mean()) * spectrum
            responses = torch.view_as_real(torch.fft.ifft2(pairs)[:, : rows - margin, : cols - margin])
            # real and imaginary parts as one row: a long inner loop
            row = gain[image, 0][inner].repeat_interleave(2, dim=-1)
            bias = plan.bias.repeat(1, 1, cols - margin, 1).flatten(2)
            responses = torch.addcmul(bias, responses.flatten(2), row).unflatten(2, (-1, 2))
        total = _maximum(responses[:step]).add_(_maximum(responses[step:]))[:, : cols - margin]
        target = out[image, 0][inner]
        torch.sub(total[..., 0], total[..., 1], out=target)
    return out[:, :, :height, :width]


def _maximum(four: Tensor) -> Tensor:
    a, b, c, d = four.unbind(0)
    first = torch.maximum(a, b)
    return torch.maximum(first, torch.maximum(c, d), out=first)
