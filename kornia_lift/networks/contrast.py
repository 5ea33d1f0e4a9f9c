"""Scores that do not depend on local contrast: each location of an image is normalised by its own surroundings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.networks.layers import exact_conv2d

DEVIATION = 0.15  # gray values: contrast that the Gaussian form gives to each location, before it is clamped to [0, 1]
TINY = 1e-12  # variance below which a deviation has no gradient
STRIP_ROWS = 64  # rows of window sums, few enough for the cache
CELL = 4  # pixels: local means are smooth, they are filtered on cells of this side
REACH = 3.0  # standard deviations at which the Gaussian is cut off


@dataclass(frozen=True)
class LocalContrast:
    r"""How :class:`~kornia_lift.LIFTResponse` normalises local contrast.

    Args:
        window: what a location is normalised by. ``"filter"``: each 25x25 window by its own mean m and standard
            deviation s, :math:`(x - m) / (s + eps)`, as the two patch networks may treat their patches; the score of a
            window does not depend on what surrounds it. ``"gaussian"``: the image, before it is filtered, by
            :math:`(I - G * I) / (\sqrt{G * (I - G * I)^2} + eps)` with a Gaussian G, scaled to a deviation of 0.15
            around the mean of the training images and clamped to [0, 1].
        eps: gray values, in [0, 1] units; contrast well below it is not raised, so that neither noise nor rounding
            errors become texture.
        sigma: standard deviation of G in pixels of the level that is scored; for ``"gaussian"`` only.

    Raises:
        ValueError: if the window is unknown, or ``eps`` or ``sigma`` is out of range.

    """

    window: Literal["filter", "gaussian"] = "gaussian"
    eps: float = 0.03
    sigma: float = 8.0

    def __post_init__(self) -> None:
        if self.window not in ("filter", "gaussian"):
            raise ValueError(f"LocalContrast expects window 'filter' or 'gaussian', got {self.window!r}")
        if not 0 <= self.eps < math.inf:
            raise ValueError(f"LocalContrast expects eps >= 0, got {self.eps}")
        if not CELL / 2 <= self.sigma < math.inf:
            raise ValueError(f"LocalContrast expects sigma >= {CELL / 2:g} pixels, got {self.sigma}")

    @property
    def context(self) -> int:
        """Pixels around a window that its score depends on."""
        return 0 if self.window == "filter" else math.ceil(2 * REACH * self.sigma)


def window_sums(x: Tensor, size: int) -> Tensor:
    """Sum the values of each square window that lies in the image.

    Sums over windows are doubled step by step: 12 additions per pixel for 25x25 windows and, unlike with differences of
    running sums, no loss of digits.

    Shape:
        - Input: (..., H, W)
        - Output: (..., H - size + 1, W - size + 1)

    """
    for dim in (-1, -2):
        length, begin, width = x.shape[dim] - size + 1, 0, 1
        total: Tensor | None = None
        while True:
            if size & width:
                part = x.narrow(dim, begin, length)
                total = part if total is None else total + part
                begin += width
            if 2 * width > size:
                break
            rest = x.shape[dim] - width
            x = x.narrow(dim, 0, rest) + x.narrow(dim, width, rest)
            width *= 2
        assert total is not None
        x = total
    return x


def window_deviation(x: Tensor, size: int, plane: bool = False) -> Tensor:
    """Return the standard deviation of each square window that lies in the image.

    Args:
        x: images, shape (B, 1, H, W).
        size: side of the windows in pixels.
        plane: the deviation from the plane that fits the window best, instead of from its mean.

    Returns:
        Deviations, shape (B, 1, H - size + 1, W - size + 1), float32 or wider. Windows with hardly any variance
        get a small constant instead, with gradient 0.

    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    # the difference of mean square and squared mean loses the digits that the two have in common
    x = x - x.detach().nanmean((-2, -1), keepdim=True)
    rows = x.shape[-2] - size + 1
    # no strips in a graph: they would fix the size of the images
    if torch.is_grad_enabled() or x.device.type != "cpu" or torch.compiler.is_compiling():
        return _deviation(x, size, plane)
    strips = [
        _deviation(x[..., top : min(top + STRIP_ROWS, rows) + size - 1, :], size, plane)
        for top in range(0, rows, STRIP_ROWS)
    ]
    return torch.cat(strips, dim=-2)


def _deviation(x: Tensor, size: int, plane: bool) -> Tensor:
    mean, square = window_sums(x, size) / size**2, window_sums(x.square(), size) / size**2
    variance = square - mean.square()
    if plane:  # less what its slopes along rows and columns explain
        at = torch.arange(size, dtype=x.dtype, device=x.device) - (size - 1) / 2
        along, mass = at / at.square().mean().sqrt() / size, torch.full_like(at, 1 / size)
        for columns, rows in ((along, mass), (mass, along)):
            slope = exact_conv2d(exact_conv2d(x, columns.view(1, 1, 1, -1)), rows.view(1, 1, -1, 1))
            variance = variance - slope.square()
    return variance.clamp(min=TINY).sqrt()


def gaussian_contrast(
    x: Tensor, contrast: LocalContrast, content: Tensor | None = None, scale: float | Tensor = 1.0
) -> Tensor:
    r"""Subtract the local mean and divide by the local deviation, under a Gaussian window.

    What lies beyond the image, or outside of ``content``, has no weight. The Gaussian is composed of a box, a
    Gaussian on cells of 4x4 pixels, and bilinear interpolation.

    Args:
        x: images, shape (B, 1, H, W).
        contrast: width of the window and least contrast.
        content: booleans, which pixels belong to the image, shape (1|B, 1, H, W). ``None``: all.
        scale: factor that the result is multiplied by.

    Returns:
        :math:`(x - G * x) / (\sqrt{G * (x - G * x)^2} + eps)`, shape (B, 1, H, W), float32 or wider; zero outside of
        ``content``.

    """
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    smooth = _CellFilter(x, contrast.sigma, content)
    x = smooth.keep_content(x - smooth.enlarge(smooth(x)))
    deviation = smooth(x.square()).clamp(min=TINY).sqrt()
    return x / smooth.enlarge((deviation + contrast.eps) / scale)  # scaled while it is small


class _CellFilter:
    """Weighted local means of images, on cells of :data:`CELL` pixels.

    Args:
        like: images, shape (B, 1, H, W).
        sigma: standard deviation of the whole filter, in pixels.
        content: which pixels have weight; ``None``: all.

    """

    def __init__(self, like: Tensor, sigma: float, content: Tensor | None) -> None:
        self._size = like.shape[-2:]
        # variances add up: of the box of a cell, of the filter on cells, and of the interpolation's triangle
        inner = sigma**2 - (CELL**2 - 1) / 12 - CELL**2 / 6
        inner = math.sqrt(max(inner, 0.25)) / CELL
        radius = max(1, round(REACH * inner))
        at = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
        self._kernel = torch.exp(-0.5 * (at / inner) ** 2)
        self._kernel /= self._kernel.sum()
        self._weight = None if content is None else content.to(like)
        if self._weight is None:
            column, row = (self._blur_line(like.new_ones(1, 1, side)) for side in self._size)
            self._total = column.mT * row
        else:
            self._total = self._blur(self._weight)
        self._total = self._total.clamp(min=1e-6)

    def _blur(self, x: Tensor) -> Tensor:
        # whole cells by padding: ONNX has no pooling with a divisor of its own
        height, width = x.shape[-2:]
        cells = F.avg_pool2d(F.pad(x, (0, -width % CELL, 0, -height % CELL)), CELL)
        # a frame of cells beyond the image, so that pixels at its border lie between cells too
        cells, radius = F.pad(cells, (1, 1, 1, 1)), len(self._kernel) // 2
        cells = exact_conv2d(cells, self._kernel.view(1, 1, -1, 1), padding=(radius, 0))
        return exact_conv2d(cells, self._kernel.view(1, 1, 1, -1), padding=(0, radius))

    def _blur_line(self, x: Tensor) -> Tensor:
        """Apply the filter of :meth:`_blur` along a line (1, 1, N)."""
        cells = F.pad(F.avg_pool1d(F.pad(x, (0, -x.shape[-1] % CELL)), CELL), (1, 1))
        kernel, radius = self._kernel.view(1, 1, 1, -1), len(self._kernel) // 2
        return exact_conv2d(cells[:, :, None], kernel, padding=(0, radius))[:, :, 0]

    def __call__(self, x: Tensor) -> Tensor:
        """Average images (B, 1, H, W); returns cells."""
        return self._blur(self.keep_content(x)) / self._total

    def keep_content(self, x: Tensor) -> Tensor:
        """Set pixels without weight to zero."""
        return x if self._weight is None else x * self._weight

    def enlarge(self, cells: Tensor) -> Tensor:
        """Interpolate cells at the pixels of the image."""
        height, width = self._size
        whole = F.interpolate(cells, scale_factor=CELL, mode="bilinear", align_corners=False)
        return whole[..., CELL : CELL + height, CELL : CELL + width]
