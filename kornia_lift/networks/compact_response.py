"""CompactResponse: a score of every pixel by a small convolutional network. It is not part of the LIFT paper.

LIFT's response sees 25x25 pixels through one layer of filters. This network sees about 90x90 through several, coarse to
fine, and is searched on two levels per octave instead of three. Its finest maps have half of the resolution: CPUs are
slow at convolutions of few channels at the full one.

No layer has a bias, as in Mohan et al. (Robust and interpretable blind image denoising via bias-free convolutional
neural networks, ICLR 2020), so that a region of less contrast gets a proportionally lower score, and the order of its
pixels stays. With biases the network gave dim regions low scores everywhere: a quarter of the correct matches of
darkened images was lost (experiments/2026-11-26/finest_level).
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_floating
from kornia_lift._kornia import ShapeError
from kornia_lift.networks._fast.blocks import BLOCK, from_blocks, to_blocks, unshuffled
from kornia_lift.networks._fast.folded import Precision, product_dtype
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks.contrast import LocalContrast, gaussian_contrast
from kornia_lift.networks.layers import exact_conv2d, extended, score_blurred
from kornia_lift.weights import load_network, widths_of

WIDTHS = (16, 32, 32)  # channels at the half, quarter and eighth of the resolution
SMALL_WIDTHS = (8, 16, 32)  # the same with half of the weights
COARSEST = 8  # pixels per pixel of the coarsest maps
LIMIT = 3.0  # local deviations: values beyond are clamped
GAIN = 160.0  # of rounding errors in the network: constant images reached a seventh of it, resized ramps more
REACH = 56  # pixels: radius on which a score depends, after the contrast; a multiple of COARSEST
MARGIN = 40  # pixels of continued image: what lies farther out changes no score 12 or more pixels inside
PLAIN_STEP = 64  # pixels: few sizes of maps, since oneDNN caches up to a megabyte for each
STRIP_PIXELS = 5 << 19  # of a strip of a large image: the maps of a whole image would take 50 bytes per pixel


def _convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution and ReLU; the map keeps its size, divided by the stride."""
    return [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.ReLU(inplace=True)]


def _enlarge(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _enlarge_rounded(x: Tensor) -> Tensor:
    """Same as :func:`_enlarge`, to the bit, in two thirds of its time in bfloat16 on a CPU."""
    return _enlarge(x.float()).to(x.dtype)


def _smooth(score: Tensor) -> Tensor:
    """Filter by (1, 2, 1) / 4 along both axes, which removes constant differences between the pixels of a block."""
    score = extended(score, (1, 1, 1, 1))
    for dim in (-1, -2):
        for _ in range(2):
            length = score.shape[dim] - 1
            score = score.narrow(dim, 0, length) + score.narrow(dim, 1, length)
    return score / 16


def _widths_of(pretrained: bool | str | os.PathLike[str]) -> tuple[int, int, int]:
    """Return the channels of the response of a model."""
    found = widths_of(pretrained, (f"response.{name}.0.weight" for name in ("at_half", "at_quarter", "at_eighth")))
    if len(found) != len(WIDTHS):
        return WIDTHS  # a model without them is refused when it is loaded
    half, quarter, eighth = found
    return half, quarter, eighth


class CompactResponse(nn.Module):
    """Score every pixel of grayscale images by convolutions at three resolutions, added up from coarse to fine.

    Local contrast is normalised first (:class:`~kornia_lift.networks.contrast.LocalContrast`), so that the score does
    not grow with it. Blocks of 2x2 pixels become the channels of maps of half of the resolution; 3x3 convolutions with
    16, 32 and 32 channels follow at the half, quarter and eighth of it, and the four channels of the last one are the
    scores of the pixels of a block; 58 thousand weights. No layer has a bias: k times the local deviations give k times
    the score. The score is filtered by (1, 2, 1) / 4 along both axes, since the pixels of a block have weights of their
    own, which would otherwise decide on the maxima of smooth regions. Without gradient, on a CPU, large images are
    scored in strips.

    Args:
        pretrained: the name of a shipped model that has this network, a path to a ``.safetensors`` file, or ``False``
            for random weights (the module then stays in train mode).
        widths: channels at the half, quarter and eighth of the resolution. ``None``: as in the weights, or 16, 32 and
            32 without weights.
        contrast: how local contrast is normalised; the window must be ``"gaussian"``.
        sigma_ratio: for kornia's scale space only: the keypoints scored on a level have the scale ``sigma_ratio`` times
            the blur of the level.
        precision: number format of the products on a CPU without gradient, except in the last layer, which is in
            float32. ``"auto"``: ``"bfloat16"`` where the CPU multiplies in it, twice as fast.

    Shape:
        - Input: :math:`(B, 1, H, W)`, values in [0, 1]
        - ``sigmas``: :math:`(B,)`, optional, as :class:`~kornia_lift.networks.response.LIFTResponse` takes them
        - ``content``: as in :meth:`normalize`
        - Output: :math:`(B, 1, H, W)`

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, H, W).
        TypeError: if the input is not floating point.
        ValueError: if the contrast has another window.

    Convention:
        A keypoint is a maximum of the score of its level. The level of the image's own size finds corners of a few
        pixels; the scale space defines the SIFT scale of their frames
        (:meth:`~kornia_lift.detector.scale_space.ScaleSpaceConfig.compact`). The image is continued by 40 replicated
        pixels beyond its border, and flat farther out.

    Example:
        >>> response = CompactResponse().eval()
        >>> response(torch.rand(1, 1, 32, 40)).shape
        torch.Size([1, 1, 32, 40])

    """

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        widths: tuple[int, int, int] | None = None,
        contrast: LocalContrast | None = None,
        sigma_ratio: float = 2.0,
        precision: Precision = "auto",
    ) -> None:
        super().__init__()
        self.contrast = contrast or LocalContrast()
        if self.contrast.window != "gaussian":
            raise ValueError(f"CompactResponse expects a contrast of window 'gaussian', got {self.contrast.window!r}")
        self.sigma_ratio, self.precision = sigma_ratio, precision
        self._dtype = product_dtype(precision)
        half, quarter, eighth = widths or _widths_of(pretrained)
        self.at_half = nn.Sequential(*_convolution(BLOCK**2, half), *_convolution(half, half))
        self.at_quarter = nn.Sequential(*_convolution(half, quarter, stride=2), *_convolution(quarter, quarter))
        self.at_eighth = nn.Sequential(
            *_convolution(quarter, eighth, stride=2), *_convolution(eighth, eighth), *_convolution(eighth, eighth)
        )
        self.to_quarter = nn.Conv2d(eighth, quarter, 1, bias=False)
        self.to_half = nn.Conv2d(quarter, half, 1, bias=False)
        self.merge_quarter = nn.Sequential(*_convolution(quarter, quarter))
        self.merge_half = nn.Sequential(*_convolution(half, half))
        self.head = nn.Conv2d(half, BLOCK**2, 3, padding=1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self._plan = PlanCache(self._cast)
        if pretrained is not False:
            load_network(self, "response", pretrained)

    def extra_repr(self) -> str:
        return f"contrast={self.contrast}, precision={self.precision!r}"

    def normalize(self, x: Tensor, content: Tensor | None = None) -> Tensor:
        """Normalise the local contrast of images, the first step of every score.

        Args:
            x: images, shape (B, 1, H, W), values in [0, 1].
            content: booleans, which pixels belong to the image, shape (1|B, 1, H, W): others have no weight in local
                means and deviations. ``None``: all.

        Returns:
            What the network sees, in local deviations, of the shape and dtype of ``x``.

        """
        return gaussian_contrast(x, self.contrast, content).clamp(-LIMIT, LIMIT).to(x.dtype)

    def rounding_error(self, x: Tensor) -> Tensor:
        """Bound the rounding errors of the scores of images: smaller differences between scores are meaningless.

        Local contrast raises the last digit of the gray values by up to 1 / eps, and the network that by up to
        :data:`GAIN`.

        Args:
            x: the images, shape (B, 1, H, W).

        Returns:
            An upper bound for each image, shape (B,), float32 or wider.

        """
        wide = torch.promote_types(x.dtype, torch.float32)
        largest = x.detach().to(wide).abs().amax((1, 2, 3))
        return GAIN * torch.finfo(wide).eps * largest / self.contrast.eps

    def score_normalized(self, z: Tensor) -> Tensor:
        """Score every pixel of images that went through :meth:`normalize`; (B, 1, H, W), float32 or wider.

        Beyond the border every layer sees zeros, on which scores within :data:`REACH` pixels of it depend;
        :meth:`forward` continues the image first.
        """
        height, width = z.shape[-2:]
        plain = len(z) > 0 and is_plain(z, *self._weights())
        step = PLAIN_STEP if plain else COARSEST
        z = extended(z, (0, -width % step, 0, -height % step))
        if not plain or z.shape[-2] * z.shape[-1] <= STRIP_PIXELS:
            return self._score(z, plain)[..., :height, :width]
        rows = max(STRIP_PIXELS // z.shape[-1] // COARSEST, 1) * COARSEST
        strips = []
        for top in range(0, z.shape[-2], rows):
            begin = max(top - REACH, 0)
            part = self._score(z[:, :, begin : top + rows + REACH], plain)
            strips.append(part[:, :, top - begin : top - begin + rows])
        return torch.cat(strips, 2)[..., :height, :width]

    def _score(self, z: Tensor, plain: bool) -> Tensor:
        z = z.contiguous(memory_format=torch.channels_last)
        if plain:
            return _smooth(from_blocks(self._plain_blocks(z, self._plan.get(*self._weights()))))
        return _smooth(F.pixel_shuffle(self._blocks(z), BLOCK))

    def _blocks(self, z: Tensor) -> Tensor:
        """Scores of blocks of pixels, (B, BLOCK ** 2, H / BLOCK, W / BLOCK)."""
        half = self.at_half(unshuffled(z))
        quarter = self.at_quarter(half)
        eighth = self.at_eighth(quarter)
        quarter = self.merge_quarter(quarter + _enlarge(self.to_quarter(eighth)))
        half = self.merge_half(half + _enlarge(self.to_half(quarter)))
        with torch.autocast(half.device.type, enabled=False):  # small differences of scores make keypoints
            weight = self.head.weight.to(torch.promote_types(self.head.weight.dtype, torch.float32))
            return exact_conv2d(half.to(weight.dtype), weight, padding=(1, 1))

    def _weights(self) -> list[Tensor]:
        """Return the weights of all convolutions, in the order of their registration."""
        return [layer.weight for layer in self.modules() if isinstance(layer, nn.Conv2d)]

    def _cast(self, *weights: Tensor) -> list[Tensor]:
        """Convert to the type and memory format of the products; the last layer keeps its precision, as in training."""
        types = [self._dtype] * (len(weights) - 1) + [torch.float32]
        pairs = zip(weights, types, strict=True)
        return [weight.to(dtype).contiguous(memory_format=torch.channels_last) for weight, dtype in pairs]

    def _plain_blocks(self, z: Tensor, weights: list[Tensor]) -> Tensor:
        """:meth:`_blocks` in the type of the products and without copies."""

        def convolve(x: Tensor, layer: int, stride: int = 1) -> Tensor:
            return F.conv2d(x, weights[layer], None, stride, weights[layer].shape[-1] // 2)

        half = convolve(convolve(to_blocks(z.to(self._dtype)), 0).relu_(), 1).relu_()
        quarter = convolve(convolve(half, 2, 2).relu_(), 3).relu_()
        eighth = convolve(convolve(convolve(quarter, 4, 2).relu_(), 5).relu_(), 6).relu_()
        quarter = convolve(quarter.add_(_enlarge_rounded(convolve(eighth, 7))), 9).relu_()
        half = convolve(half.add_(_enlarge_rounded(convolve(quarter, 8))), 10).relu_().float()
        return convolve(half, 11)

    def forward(self, x: Tensor, sigmas: Tensor | None = None, content: Tensor | None = None) -> Tensor:
        check_floating(x, type(self).__name__)
        if x.dim() != 4 or x.shape[1] != 1:
            raise ShapeError(f"CompactResponse expects grayscale images (B, 1, H, W), got {tuple(x.shape)}")
        if sigmas is not None:
            return score_blurred(self, x, sigmas, self.sigma_ratio)
        # the detector's levels are of higher precision than the weights, where images are of half precision
        z = extended(self.normalize(x, content).to(self.head.weight.dtype), (MARGIN,) * 4)
        inner = slice(MARGIN, -MARGIN)
        return self.score_normalized(z)[..., inner, inner].to(x.dtype)
