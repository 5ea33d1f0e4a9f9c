"""DenseResponse: scores every pixel by a network that sees its surroundings at several resolutions."""

from __future__ import annotations

import math
import os
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kornia_lift._checks import check_floating
from kornia_lift._kornia import ShapeError
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks.contrast import LocalContrast, gaussian_contrast, window_deviation
from kornia_lift.networks.layers import exact_conv2d, extended, in_dtype, score_blurred, without_autocast
from kornia_lift.networks.response import FILTER_SIZE
from kornia_lift.weights import load_network

CHANNELS = (24, 32, 48, 64)  # at a half, a quarter, an eighth and a sixteenth of the resolution
BLOCKS = (0, 1, 2, 1)  # residual blocks of each
BLOCK = 2  # side of the blocks of pixels that become channels
CONTRAST = LocalContrast("gaussian", eps=0.02, sigma=15.0)
LARGEST = 4.0  # deviations from the local mean
FLAT = 1.5e-3  # deviation of gray values from a plane below which a window shows nothing; rounding to bytes makes .0011
SIGMA_RATIO = 2.0  # for kornia's scale space only, as that of LIFTResponse


class DenseResponse(nn.Module):
    r"""Score every pixel of grayscale images by a network that sees about 75 pixels in each direction.

    It computes little at full resolution: blocks of 2x2 pixels become channels, three reductions by two with residual
    blocks follow, then the way back up by sums with what was there before (Lin et al., CVPR 2017), and the last layer
    scores the four pixels of a block. LF-Net's network, seven convolutions at full resolution, takes six times the
    products. The local contrast of the images is normalised first.

    Without gradient, in float32 on a CPU, the batch normalisations are folded into the convolutions.

    Args:
        pretrained: the name of a shipped model that has this network (``"lift-dense"``), a path to a ``.safetensors``
            file, or ``False`` for random weights (the module then stays in train mode).

    Shape:
        - Input: :math:`(B, 1, H, W)`, values in [0, 1]; ``sigmas`` :math:`(B,)`, optional; ``content``, booleans
          :math:`(1|B, 1, H, W)`, which pixels belong to the image, or ``None``: all
        - Output: :math:`(B, 1, H, W)`, logarithms of how likely a pixel is a keypoint, up to a constant; float32
          for images and weights of half precision, which is too coarse for differences of scores

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, H, W).
        TypeError: if the input is not floating point.

    Convention:
        The keypoints of all pixels of a level have one size, that of
        :class:`~kornia_lift.networks.response.LIFTResponse`. Beyond the border the features are 0, which the scores of
        the outer pixels depend on. Pixels farther than 75 away, at most 130, hardly count. ``sigmas`` are those of
        kornia's ``ScaleSpaceDetector``, as for that response, with ``sigma_ratio`` 2.

    Example:
        >>> response = DenseResponse().eval()
        >>> response(torch.rand(1, 1, 33, 40)).shape
        torch.Size([1, 1, 33, 40])

    """

    def __init__(self, pretrained: bool | str | os.PathLike[str] = False) -> None:
        super().__init__()
        inputs = (BLOCK * BLOCK, *CHANNELS[:-1])
        self.down = nn.ModuleList()
        for n, (before, channels, blocks) in enumerate(zip(inputs, CHANNELS, BLOCKS, strict=True)):
            layers: list[nn.Module] = [_convolution(before, channels, 1 if n == 0 else 2)]
            layers += [_convolution(channels, channels)] if n == 0 else []
            layers += [_Residual(channels) for _ in range(blocks)]
            self.down.append(nn.Sequential(*layers))
        pairs = list(zip(CHANNELS[1:], CHANNELS[:-1], strict=True))
        self.lateral = nn.ModuleList(_Convolution(coarse, fine, 1) for coarse, fine in pairs)
        self.merge = nn.ModuleList(_convolution(fine, fine) for _, fine in pairs)
        self.head = _Convolution(CHANNELS[0], BLOCK * BLOCK, 3, padding=1)
        self._plan = PlanCache(_fused)
        if pretrained is not False:
            load_network(self, "response", pretrained)

    def forward(self, x: Tensor, sigmas: Tensor | None = None, *, content: Tensor | None = None) -> Tensor:
        check_floating(x, type(self).__name__)
        if x.dim() != 4 or x.shape[1] != 1:
            raise ShapeError(f"DenseResponse expects grayscale images (B, 1, H, W), got {tuple(x.shape)}")
        if content is not None and (content.dtype != torch.bool or content.shape[-2:] != x.shape[-2:]):
            raise ShapeError(
                f"DenseResponse expects content as booleans of the size of the images {tuple(x.shape)}, got "
                f"{content.dtype} of {tuple(content.shape)}"
            )
        if sigmas is not None:
            return score_blurred(self, x, sigmas, SIGMA_RATIO)
        if not torch.compiler.is_compiling() and not x.numel():
            return x.new_zeros(x.shape)  # torch does not shuffle the pixels of no image
        with without_autocast(x):
            return self._score_any(x, content)

    def _score_any(self, x: Tensor, content: Tensor | None) -> Tensor:
        contrast = gaussian_contrast(x, CONTRAST, content).clamp(-LARGEST, LARGEST)
        state = self.state_dict(keep_vars=True)
        if not self.training and is_plain(contrast, *(t for t in state.values() if t.is_floating_point())):
            return self._plan.get(*state.values()).score(contrast)
        wide = torch.promote_types(contrast.dtype, self.head.weight.dtype)
        network = self if self.head.weight.dtype == wide else in_dtype(self, wide)
        return network.score(contrast.to(wide))

    def valid(self, x: Tensor, content: Tensor | None = None) -> Tensor:
        """Score the pixels whose 25x25 window lies in the image; -inf where it shows nothing but a plane.

        Without texture, scores vary with the distance from the border only.

        Shape:
            - Input: as of :meth:`forward`, H, W >= 25
            - Output: (B, 1, H - 24, W - 24)

        """
        border = slice(FILTER_SIZE // 2, -(FILTER_SIZE // 2))
        scores = self(x, content=content)[..., border, border]
        flat = window_deviation(x.detach(), FILTER_SIZE, plane=True) < FLAT
        return scores.masked_fill(flat, -math.inf)

    def score(self, contrast: Tensor) -> Tensor:
        """Score images of normalised contrast, of the dtype of the weights."""
        height, width = contrast.shape[-2:]
        blocks = F.pixel_unshuffle(extended(contrast, (0, width % BLOCK, 0, height % BLOCK)), BLOCK)
        features = blocks.contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = []
        for stage in self.down:
            features = stage(features)
            levels.append(features)
        for lateral, merge, fine in zip(
            reversed(self.lateral), reversed(self.merge), reversed(levels[:-1]), strict=True
        ):
            coarse = F.interpolate(lateral(features), size=fine.shape[-2:], mode="bilinear", align_corners=False)
            features = merge(fine + coarse)
        # one row and column more than the filter needs: a slice that might keep everything fixes in a graph whether the
        # sides are even
        scores = extended(F.pixel_shuffle(self.head(features), BLOCK), (1, 2, 1, 2))
        # binomial, in rows and columns: the four pixels of a block have weights of their own, and without it one or two
        # of them would get all keypoints
        scores = F.avg_pool2d(F.avg_pool2d(scores, 2, 1), 2, 1)
        return scores[..., :height, :width]


def _fused(*tensors: Tensor) -> DenseResponse:
    """Return a network of these tensors, in their order in its state, whose normalisations are folded."""
    with torch.device("meta"):  # no random numbers are drawn
        network = DenseResponse().eval()
    network.load_state_dict(dict(zip(network.state_dict(), tensors, strict=True)), assign=True)
    for part in network.modules():
        if isinstance(part, nn.Sequential) and len(part) > 1 and isinstance(part[1], nn.BatchNorm2d):
            part[0], part[1] = fuse_conv_bn_eval(cast(nn.Conv2d, part[0]), part[1]), nn.Identity()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Convolution(nn.Conv2d):
    """In full float32 precision also on CUDA: differences of scores decide."""

    def forward(self, x: Tensor) -> Tensor:
        padding, stride = cast(tuple[int, int], self.padding), cast(tuple[int, int], self.stride)
        return exact_conv2d(x, self.weight, self.bias, padding, stride)


class _Residual(nn.Module):
    """Two convolutions beside an identity shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = _convolution(channels, channels)[:2]

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        _Convolution(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )
