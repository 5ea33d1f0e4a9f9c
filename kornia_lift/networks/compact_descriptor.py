"""CompactDescriptor: 128 numbers for a keypoint and its surroundings. It is not part of the LIFT paper.

The main part has the shape of L2-Net (Tian et al., CVPR 2017) and HardNet (Mishchuk et al., NeurIPS 2017) with a
coarser first layer: 29 million products per patch instead of 39, and at equal training time fewer errors. Two small
networks see the surroundings: on facades and masonry the described region has look-alikes, which these tell apart.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_floating
from kornia_lift._kornia import ShapeError
from kornia_lift.networks._fast.folded import (
    FloatChain,
    IntegerPrecision,
    Placement,
    Precision,
    fold,
    normalised_pairs,
    normalised_tensors,
    padded,
    placement_of,
    product_dtype,
)
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.quantized import IntegerChain, known_precision, uses_integers
from kornia_lift.networks.layers import NORM_EPS, Layers, in_chunks, normalised_convolution, normalize_patches
from kornia_lift.weights import load_network, widths_of

PATCH_SIZE = 32
DESCRIPTOR_DIM = 128
REGIONS = (1.0, 2.0, 4.0)  # sides of the regions seen, relative to the frame
LARGE = int(PATCH_SIZE * REGIONS[-1])  # side of the patch of the largest region
CHANNELS = (32, 64, 64, 128, 128)  # of the layers of the main part, without the last
FEWEST_LAYERS = 3  # two of stride 2, and one after them
MOST_LAYERS = 16  # searched for in a file
SMALL_CHANNELS = (32, 48, 96, 128)  # the smaller form, with half of the products


class PatchEncoder(Layers):
    """Convolutions with batch normalisation and ReLU, and a last one that sees the whole map, only normalised.

    Without gradient, on a CPU, the normalisations are folded into the weights.

    Args:
        channels: channels of the input and of every layer but the last.
        kernels: sides of the filters of these layers.
        strides: strides of these layers.
        size: side of the map that the last layer sees.
        outputs: length of the vector.
        precision: number format of the products on a CPU without gradient. ``"auto"``: ``"int8"`` where the CPU
            multiplies 8-bit integers, else ``"bfloat16"`` where it multiplies in that.

    Shape:
        - Input: normalised patches :math:`(B, C, H, W)`
        - Output: :math:`(B, D)`

    """

    def __init__(
        self,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        size: int,
        outputs: int,
        precision: IntegerPrecision,
    ) -> None:
        layers: list[nn.Module] = []
        for n, (kernel, stride) in enumerate(zip(kernels, strides, strict=True)):
            layers += normalised_convolution(channels[n], channels[n + 1], kernel, stride)
        layers.append(nn.Conv2d(channels[-1], outputs, size, bias=False))
        layers.append(nn.BatchNorm2d(outputs, eps=NORM_EPS, affine=False))
        super().__init__(*layers)
        placements = tuple(placement_of(convolution) for convolution, _ in self.pairs())
        self._plan = PlanCache(partial(_build, placements=placements, precision=known_precision(precision)))

    def pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Return every convolution with the normalisation after it."""
        return normalised_pairs(self)

    def forward(self, x: Tensor) -> Tensor:
        tensors = normalised_tensors(self.pairs())
        if not self.training and is_plain(x, *tensors) and len(x):
            return self._plan.get(*tensors)(padded(x))[: len(x)].flatten(1)
        return super().forward(x).flatten(1)


class CompactDescriptor(nn.Module):
    r"""Describe keypoints by 128 numbers from 32x32 grayscale patches of three regions around each.

    Every patch is normalised by its own mean and deviation. The patch of the frame goes through one 5x5 convolution
    of stride 2, four 3x3 convolutions, the third of which has stride 2 again, and an 8x8 one that sees the whole map;
    those of twice and four times its size go through networks of a twelfth of the products. The three results are
    added. Batch normalisation without parameters, ReLU; 1.7 million weights.

    Args:
        pretrained: the name of a shipped model that has this network, a path to a ``.safetensors`` file, or ``False``
            for random weights (the module then stays in train mode, where batch statistics normalise).
        channels: channels of the layers of the main part, without the last layer; the first and the last but one of
            these have stride 2. ``None``: as in the weights, or 32, 64, 64, 128 and 128 without weights.
        precision: number format of the products on a CPU without gradient. ``"auto"``: ``"int8"`` where the CPU
            multiplies 8-bit integers (AVX-VNNI, AVX512-VNNI, AMX), with a mean cosine of 0.9998 to ``"float32"``;
            else ``"bfloat16"`` where it multiplies in that (AVX512-BF16). Input, output and weights stay float32.
        chunk_size: patches that go through the network at once when no gradient is recorded; bounds the memory, does
            not change the result.

    Shape:
        - Input: :math:`(B, 3, 32, 32)`, values in [0, 1]: the region of the frame, twice and four times as large ones;
          or :math:`(B, 1, 128, 128)`, the largest region, from which all three are cut
        - Output: :math:`(B, 128)`, unit vectors

    Raises:
        kornia.core.exceptions.ShapeError: if the input has another shape.
        TypeError: if the input is not floating point.
        ValueError: if the precision is unknown, or not available, or there are fewer than three layers.

    Convention:
        The first patch covers the whole frame of a kornia LAF.
        :class:`~kornia_lift.feature.patches.PatchDescriptor` cuts all three; kornia's
        ``LAFDescriptor(network, patch_size=128)`` cuts the large one, of LAFs that are four times as large.

    Example:
        >>> descriptor = CompactDescriptor(pretrained=False).eval()
        >>> descriptor(torch.rand(4, 3, 32, 32)).shape
        torch.Size([4, 128])

    """

    patch_size = PATCH_SIZE
    regions = REGIONS
    normalize = True

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        channels: Sequence[int] | None = None,
        precision: IntegerPrecision = "auto",
        chunk_size: int = 512,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.chunk_size = chunk_size
        channels = _channels_of(pretrained) if channels is None else channels
        if len(channels) < FEWEST_LAYERS:
            raise ValueError(f"CompactDescriptor expects channels of three or more layers, got {tuple(channels)}")
        self.features = PatchEncoder(
            channels=(1, *channels),
            kernels=(5, *(3,) * (len(channels) - 1)),
            strides=(2, *(1,) * (len(channels) - FEWEST_LAYERS), 2, 1),
            size=8,
            outputs=DESCRIPTOR_DIM,
            precision=precision,
        )
        self.surroundings = nn.ModuleList(
            PatchEncoder(
                channels=(1, 16, 32, 64, 64),
                kernels=(5, 3, 3, 3),
                strides=(2, 2, 1, 2),
                size=4,
                outputs=DESCRIPTOR_DIM,
                precision=precision,
            )
            for _ in REGIONS[1:]
        )
        self.shares = nn.Parameter(torch.full((len(REGIONS) - 1,), 0.3))  # of the surroundings
        if pretrained is not False:
            load_network(self, "descriptor", pretrained)
            return
        for encoder in self._encoders():  # a second or more: not for weights that are replaced
            for layer, _ in encoder.pairs():
                nn.init.orthogonal_(layer.weight, gain=0.6)

    def extra_repr(self) -> str:
        return f"precision={self.precision!r}"

    def _encoders(self) -> list[PatchEncoder]:
        return [self.features, *(cast(PatchEncoder, each) for each in self.surroundings)]

    def _describe(self, patches: Tensor) -> Tensor:
        if patches.shape[1] == 1:
            patches = _regions_of(patches)
        single = patches.flatten(0, 1)[:, None]
        each = normalize_patches(single, None, None).view_as(patches).split(1, dim=1)
        each = tuple(part.contiguous(memory_format=torch.channels_last) for part in each)
        inner, *outer = (encoder(part) for encoder, part in zip(self._encoders(), each, strict=True))
        for share, part in zip(self.shares.to(inner.dtype), outer, strict=True):
            inner = inner + share * part
        return F.normalize(inner, dim=1)

    def forward(self, patch: Tensor) -> Tensor:
        check_floating(patch, type(self).__name__)
        if patch.shape[1:] not in ((len(REGIONS), PATCH_SIZE, PATCH_SIZE), (1, LARGE, LARGE)):
            raise ShapeError(
                f"CompactDescriptor expects patches of {len(REGIONS)} regions (B, {len(REGIONS)}, {PATCH_SIZE}, "
                f"{PATCH_SIZE}), or of the largest (B, 1, {LARGE}, {LARGE}), got {tuple(patch.shape)}; PatchDescriptor "
                "cuts them"
            )
        return in_chunks(self._describe, patch, self.chunk_size, self.training)


def _channels_of(pretrained: bool | str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the channels of the main part of the descriptor of a model."""
    found = widths_of(pretrained, (f"descriptor.features.{n}.weight" for n in range(0, 3 * MOST_LAYERS, 3)))[:-1]
    return tuple(found) if len(found) >= FEWEST_LAYERS else CHANNELS  # others are refused where they are loaded


def _regions_of(large: Tensor) -> Tensor:
    """Cut the patches of all regions (B, 3, 32, 32) out of that of the largest (B, 1, 128, 128)."""
    parts = []
    for region in REGIONS:
        side = int(PATCH_SIZE * region)
        border = (LARGE - side) // 2
        inner = large[..., border : border + side, border : border + side]
        parts.append(F.avg_pool2d(inner, side // PATCH_SIZE) if side > PATCH_SIZE else inner)
    return torch.cat(parts, 1)


def _build(*tensors: Tensor, placements: Sequence[Placement], precision: IntegerPrecision) -> FloatChain | IntegerChain:
    if uses_integers(precision):
        return IntegerChain(fold(*tensors, eps=NORM_EPS, dtype=tensors[0].dtype), placements)
    return FloatChain(fold(*tensors, eps=NORM_EPS, dtype=product_dtype(cast("Precision", precision))), placements)
