"""KeypointLocalization: where in a patch the keypoint really is, and how large. It is not part of the LIFT paper.

A response locates a keypoint by wide windows on few levels: two images agree on its position only within a quarter of
sigma, and on its scale within a sixth. This network looks at the patch once more and corrects both.
"""

from __future__ import annotations

import math
import os
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.blocks import BLOCK, unshuffled
from kornia_lift.networks._fast.folded import (
    IntegerPrecision,
    normalised_pairs,
    normalised_tensors,
    padded,
    placement_of,
)
from kornia_lift.networks._fast.localization import build
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.quantized import known_precision
from kornia_lift.networks.layers import NORM_EPS, Layers, in_chunks, normalised_convolution, normalize_patches
from kornia_lift.weights import load_network, load_tensors

PATCH_SIZE = 32
CELLS = 16  # of the heat map, along one side
PRIOR = 0.13  # half sides of the patch, 0.8 sigma: how far from the detection the keypoint is likely to be
HEAD_GAIN = 0.05  # the head sums 2048 features: the first steps of an optimizer would saturate the scale
LARGEST_LOG_SCALE = 0.5  # detections err by less than a factor of 1.65
#: Input channels, output channels and stride of the layers before the heat map.
AT_FULL_RESOLUTION = ((1, 8, 1), (8, 8, 1), (8, 24, 2), (24, 24, 1), (24, 24, 1))
ON_BLOCKS = ((BLOCK**2, 16, 1), (16, 16, 1), (16, 16, 1), (16, 24, 1))


class KeypointLocalization(nn.Module):
    r"""Correct position and scale of the keypoint in the middle of a 32x32 grayscale patch.

    Every patch is normalised by its own mean and deviation. 3x3 convolutions give features on 16x16 cells: five, the
    first two of them at full resolution (24 thousand weights, 4.2 million products for a patch), or four on blocks of
    2x2 pixels (20 thousand, 2.7 million, three fifths of the time on a CPU). The position is the soft-argmax (paper
    Sec. 3.2) of a heat map over the cells with a Gaussian prior around the middle; scale and spread come from one more
    convolution and a linear layer. Without training it corrects nothing.

    Args:
        pretrained: the name of a shipped model that has this network, a path to a ``.safetensors`` file, or ``False``
            for initial weights (the module then stays in train mode, where batch statistics normalise).
        blocks: whether blocks of 2x2 pixels are the channels of the first layer. ``None``: as in the weights, or
            ``False`` without weights.
        precision: number format of the products on a CPU without gradient, see
            :class:`~kornia_lift.networks.compact_descriptor.CompactDescriptor`. In 8-bit integers positions differ by
            0.007 sigma (root mean square), a sixteenth of the errors that the network expects, and scales by 0.4 %.
        chunk_size: patches that go through the network at once when no gradient is recorded.

    Shape:
        - Input: :math:`(B, 1, 32, 32)`, values in [0, 1]
        - Output: :math:`(B, 4)`: x and y of the keypoint, logarithm of the factor of the scale, and logarithm of the
          expected error of the position

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 32, 32).
        TypeError: if the input is not floating point.

    Convention:
        Positions are in the frame of the patch, as a kornia LAF has it: its cells tile [-1, 1] along either axis, x to
        the right, y down, and the detection is at (0, 0). Errors are in the same unit.

    Example:
        >>> localization = KeypointLocalization(pretrained=False).eval()
        >>> localization(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4, 4])

    """

    patch_size = PATCH_SIZE

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        blocks: bool | None = None,
        precision: IntegerPrecision = "auto",
        chunk_size: int = 512,
    ) -> None:
        super().__init__()
        self.blocks = _has_blocks(pretrained) if blocks is None else blocks
        self.precision = precision
        self.chunk_size = chunk_size
        layers = ON_BLOCKS if self.blocks else AT_FULL_RESOLUTION
        self.features = Layers(
            *(part for inputs, outputs, stride in layers for part in normalised_convolution(inputs, outputs, 3, stride))
        )
        self.heat = nn.Conv2d(24, 1, 3, padding=1, bias=False)
        self.summary = Layers(*normalised_convolution(24, 32, stride=2))  # 8 x 8
        self.head = nn.Conv2d(32, 2, 8)
        nn.init.zeros_(self.heat.weight)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))
        placements = tuple(placement_of(convolution) for convolution, _ in self._pairs())
        self._plan = PlanCache(
            partial(build, placements=placements, eps=NORM_EPS, precision=known_precision(precision))
        )
        if pretrained is not False:
            load_network(self, "localization", pretrained)
            return
        for convolution, _ in self._pairs():
            nn.init.orthogonal_(convolution.weight)

    def extra_repr(self) -> str:
        return f"blocks={self.blocks}, precision={self.precision!r}"

    def _pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        return normalised_pairs([*self.features, *self.summary])

    def _maps(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heat map (B, 1, 16, 16) and the summary (B, 32, 8, 8) of normalised patches."""
        tensors = (*normalised_tensors(self._pairs()), self.heat.weight)
        if not self.training and is_plain(x, *tensors) and len(x):
            heat, summary = self._plan.get(*tensors)(padded(x))
            return heat[: len(x)], summary[: len(x)]
        features = self.features(unshuffled(x) if self.blocks else x)
        return self.heat(features), self.summary(features)

    def _localize(self, patch: Tensor) -> Tensor:
        x = normalize_patches(patch, None, None).contiguous(memory_format=torch.channels_last)
        heat, summary = self._maps(x)
        heat = heat.flatten(1).to(torch.promote_types(patch.dtype, torch.float32))
        position = soft_argmax_around_centre(heat).to(patch.dtype)
        scale, spread = (HEAD_GAIN * self.head(summary)).flatten(1).to(patch.dtype).unbind(1)
        scale = LARGEST_LOG_SCALE * torch.tanh(scale / LARGEST_LOG_SCALE)
        return torch.cat([position, scale[:, None], spread[:, None] + math.log(PRIOR)], 1)

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        return in_chunks(self._localize, patch, self.chunk_size, self.training)


def _has_blocks(pretrained: bool | str | os.PathLike[str]) -> bool:
    """Return whether the first layer of a model's localization sees blocks of pixels."""
    if not isinstance(pretrained, (str, os.PathLike)):
        return False
    first = load_tensors(pretrained)[0].get("localization.features.0.weight")
    return first is not None and first.dim() == 4 and first.shape[1] == BLOCK**2


def soft_argmax_around_centre(heat: Tensor) -> Tensor:
    """Return the mean position under the probabilities that heat maps and the prior around the centre give.

    Args:
        heat: logits of 16x16 cells, row by row, shape (B, 256).

    Returns:
        x and y, shape (B, 2), in half sides of the map from its centre.

    """
    at = (2 * torch.arange(CELLS, dtype=heat.dtype, device=heat.device) + 1) / CELLS - 1
    y, x = torch.meshgrid(at, at, indexing="ij")
    cells = torch.stack([x, y], -1).view(-1, 2)
    prior = -0.5 * cells.square().sum(1) / PRIOR**2
    return (heat + prior).softmax(1) @ cells
