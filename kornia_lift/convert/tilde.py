"""The detector of TILDE (Verdie et al., CVPR 2015): piecewise-linear filters, full or separable.

LIFT's detector is of this kind; TILDE's own sees gradients and colours beside the gray values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_image

GAIN = 1e9
_DERIVATIVE = (-0.109604, -0.276691, 0.0, 0.276691, 0.109604)
_SMOOTHING = (0.037659, 0.249153, 0.426375, 0.249153, 0.037659)
_RGB_TO_XYZ = ((0.430574, 0.341550, 0.178325), (0.222015, 0.706655, 0.071330), (0.020183, 0.129553, 0.939180))
BLUR_SIZE, _BLUR_SIGMA = 21, 2.0


class TILDEResponse(nn.Module):
    r"""Score every pixel by TILDE's filters: a ``resp_module`` for :class:`~kornia_lift.LIFTDetector`.

    TILDE has one scale, and its score rarely has a maximum over scale: kornia's ``ScaleSpaceDetector``, which requires
    one, finds hardly anything with it.

    .. math:: s = g \, G_2 * \sum_{i} (-1)^{i+1} \max_j (w_{ij} * c + b_{ij})

    with the channels c of the image, a Gaussian G of 2 pixels, and the gain g.

    Args:
        num_sum: number of maxima in the signed sum.
        num_max: filters in each maximum.
        channels: 1: gray; 6: gradient along x and y, its magnitude, and L, u, v of the colours.
        size: side of the filters, odd.
        rank: number of separable filters per channel; 0 for full filters.
        gain: the score is multiplied by it. The released filters give scores of the order of 1e-9, too small for the
            Newton steps of detectors in float32.

    Shape:
        - Input: :math:`(B, 1|3, H, W)`, RGB or gray, values in [0, 1]; gray images count as colourless RGB
        - ``sigmas``: accepted as kornia passes it, not used: the filters have one size
        - Output: :math:`(B, 1, H, W)`

    Raises:
        kornia.core.exceptions.ShapeError: if the input has another shape.

    """

    def __init__(
        self,
        num_sum: int = 4,
        num_max: int = 4,
        channels: int = 6,
        size: int = 21,
        rank: int = 4,
        gain: float = GAIN,
    ) -> None:
        super().__init__()
        self.gain = gain
        self.num_sum, self.num_max, self.channels, self.size, self.rank = num_sum, num_max, channels, size, rank
        filters, inner = num_sum * num_max, channels * rank
        self.bias = nn.Parameter(torch.zeros(filters))
        if rank:
            self.vertical = nn.Parameter(torch.zeros(inner, 1, size, 1))
            self.horizontal = nn.Parameter(torch.zeros(inner, 1, 1, size))
            self.mixing = nn.Parameter(torch.zeros(filters, inner, 1, 1))
        else:
            self.weight = nn.Parameter(torch.zeros(filters, channels, size, size))

    def extra_repr(self) -> str:
        return f"num_sum={self.num_sum}, num_max={self.num_max}, channels={self.channels}, rank={self.rank}"

    @property
    def sees_colour(self) -> bool:
        """Whether the filters see the colours of RGB images: detectors then hand these on instead of gray ones."""
        return self.channels == 6

    def channels_of(self, image: Tensor) -> Tensor:
        """Return the channels that the filters see of images in [0, 1]: about 0 to 255, shape (B, channels, H, W)."""
        return tilde_channels(image) if self.channels == 6 else _gray(image)

    def responses(self, image: Tensor) -> Tensor:
        """Return the linear responses, (B, num_sum * num_max, H, W), sum index first."""
        return self.filtered(_pad_symmetric(self.channels_of(image), self.size // 2))

    def filtered(self, stack: Tensor) -> Tensor:
        """Return the linear responses to channels (B, channels, H, W), where the filters lie inside them."""
        if self.rank:
            inner = F.conv2d(stack, self.vertical.to(stack), groups=self.channels)
            inner = F.conv2d(inner, self.horizontal.to(stack), groups=inner.shape[1])
            return F.conv2d(inner, self.mixing.to(stack), self.bias.to(stack))
        return F.conv2d(stack, self.weight.to(stack), self.bias.to(stack))

    def forward(self, x: Tensor, sigmas: Tensor | None = None) -> Tensor:
        check_image(x, type(self).__name__)
        return self.score(self.responses(x))

    def score(self, responses: Tensor) -> Tensor:
        """Return the score (B, 1, H, W) of linear responses, blurred by a window of 21 pixels."""
        largest = responses.unflatten(1, (self.num_sum, self.num_max)).amax(2)
        score = largest[:, 1::2].sum(1, keepdim=True) - largest[:, 0::2].sum(1, keepdim=True)
        return self.gain * _blur(score)


def tilde_channels(image: Tensor) -> Tensor:
    """Return TILDE's six channels of an image.

    Args:
        image: gray or RGB, values in [0, 1], shape (B, 1 or 3, H, W).

    Returns:
        Shape (B, 6, H, W), values around 0 to 255: derivatives along x and y (of the colour with the largest gradient;
        half of it, plus 128), its magnitude, and L, u, v.

    """
    rgb = image.expand(-1, 3, -1, -1)
    gradient = torch.stack([_filter(rgb * 255, _SMOOTHING, _DERIVATIVE), _filter(rgb * 255, _DERIVATIVE, _SMOOTHING)])
    magnitude = gradient.square().sum(0).sqrt()  # B, 3, H, W
    # of equal gradients, as in gray images, the first colour of the file's order: blue
    steepest = magnitude.flip(1).argmax(1, keepdim=True)
    gx, gy, m = (t.flip(1).gather(1, steepest) for t in (gradient[0], gradient[1], magnitude))
    return torch.cat([gx / 2 + 128, gy / 2 + 128, m, _luv(rgb)], 1)


def _luv(rgb: Tensor) -> Tensor:
    x, y, z = torch.einsum("ij,bjhw->ibhw", rgb.new_tensor(_RGB_TO_XYZ), rgb)[:, :, None]
    level = (1024 * y).floor() / 1024  # the release reads L from a table
    lightness = torch.where(level > (6 / 29) ** 3, 116 * level.clamp(min=1e-9) ** (1 / 3) - 16, level * (29 / 3) ** 3)
    total = x + 15 * y + 3 * z + 1e-35
    u = 13 * lightness * (4 * x / total - 0.197833)
    v = 13 * lightness * (9 * y / total - 0.468331)
    return torch.cat([lightness * 2.55, (u + 134) * (255 / 354), (v + 140) * (255 / 256)], 1)


def _gray(image: Tensor) -> Tensor:
    if image.shape[1] == 3:
        image = (image * image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return image * 255


def _filter(x: Tensor, vertical: tuple[float, ...], horizontal: tuple[float, ...]) -> Tensor:
    """Correlate every channel with a separable 5x5 filter."""
    batch, channels, height, width = x.shape
    x = _pad_symmetric(x, len(vertical) // 2).flatten(0, 1)[:, None]
    x = F.conv2d(x, x.new_tensor(vertical).view(1, 1, -1, 1))
    return F.conv2d(x, x.new_tensor(horizontal).view(1, 1, 1, -1)).view(batch, channels, height, width)


def _blur(score: Tensor) -> Tensor:
    at = torch.arange(BLUR_SIZE, dtype=score.dtype, device=score.device) - BLUR_SIZE // 2
    window = torch.exp(-at.square() / (2 * _BLUR_SIGMA**2))
    window = window / window.sum()
    score = _pad_mirror(score, BLUR_SIZE // 2)
    return F.conv2d(F.conv2d(score, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))


def _pad_mirror(x: Tensor, margin: int) -> Tensor:
    """Mirror at the border pixels, which are not repeated."""
    for axis in (-2, -1):
        side = x.shape[axis]
        at = torch.arange(-margin, side + margin, device=x.device)
        period = max(1, 2 * (side - 1))
        at = at.remainder(period)
        x = x.index_select(axis, torch.minimum(at, period - at) if side > 1 else torch.zeros_like(at))
    return x


def _pad_symmetric(x: Tensor, margin: int) -> Tensor:
    """Mirror at the border, so that its pixels are repeated."""
    for axis in (-2, -1):
        side = x.shape[axis]
        at = torch.arange(-margin, side + margin, device=x.device).remainder(2 * side)
        x = x.index_select(axis, torch.minimum(at, 2 * side - 1 - at))
    return x
