"""CompactDescriptor: 128 numbers for a 32x32 patch, by a plain convolutional network. It is not part of the LIFT paper.

The shape is that of L2-Net (Tian et al., CVPR 2017) and HardNet (Mishchuk et al., NeurIPS 2017) with a coarser first
layer: 29 million products per patch instead of 39, and at equal training time fewer errors.
"""

from __future__ import annotations

import os
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.folded import Precision, fold, normalised_tensors, padded, product_dtype
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks.layers import NORM_EPS, Layers, in_chunks, normalised_convolution, normalize_patches
from kornia_lift.weights import load_network

PATCH_SIZE = 32
DESCRIPTOR_DIM = 128


class CompactDescriptor(nn.Module):
    r"""Describe 32x32 grayscale patches by 128 numbers; every patch is normalised by its own mean and deviation.

    One 5x5 convolution of stride 2, four 3x3 convolutions, and an 8x8 one that sees the whole map; batch normalisation
    without parameters, ReLU; 1.37 million weights. Without gradient, on a CPU, the normalisation is folded into the
    weights.

    Args:
        pretrained: the name of a shipped model that has this network, a path to a ``.safetensors`` file, or ``False``
            for random weights (the module then stays in train mode, where batch statistics normalise).
        precision: number format of the products on a CPU without gradient. ``"auto"``: ``"bfloat16"`` where the CPU
            multiplies in it (AVX512-BF16, AMX), twice as fast, with a cosine above .999 to ``"float32"``. Input,
            output and weights stay float32.
        chunk_size: patches that go through the network at once when no gradient is recorded; bounds the memory, does
            not change the result.

    Shape:
        - Input: :math:`(B, 1, 32, 32)`, values in [0, 1]
        - Output: :math:`(B, 128)`, unit vectors

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 32, 32).
        TypeError: if the input is not floating point.

    Convention:
        The patch covers the whole frame of a kornia LAF, as ``LAFDescriptor(network, patch_size=32)`` cuts it.

    Example:
        >>> descriptor = CompactDescriptor(pretrained=False).eval()
        >>> descriptor(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4, 128])

    """

    patch_size = PATCH_SIZE
    normalize = True

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        precision: Precision = "auto",
        chunk_size: int = 512,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.chunk_size = chunk_size
        self.features = Layers(
            *normalised_convolution(1, 32, 5, 2),  # 16 x 16
            *normalised_convolution(32, 64),
            *normalised_convolution(64, 64),
            *normalised_convolution(64, 128, stride=2),  # 8 x 8
            *normalised_convolution(128, 128),
            nn.Conv2d(128, DESCRIPTOR_DIM, 8, bias=False),  # 1 x 1
            nn.BatchNorm2d(DESCRIPTOR_DIM, eps=NORM_EPS, affine=False),
        )
        for layer in self._convolutions():
            nn.init.orthogonal_(layer.weight, gain=0.6)
        self._plan = PlanCache(partial(fold, eps=NORM_EPS, dtype=product_dtype(precision)))
        if pretrained is not False:
            load_network(self, "descriptor", pretrained)

    def extra_repr(self) -> str:
        return f"precision={self.precision!r}"

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.features if isinstance(layer, nn.Conv2d)]

    def _describe(self, patch: Tensor) -> Tensor:
        x = normalize_patches(patch, None, None).contiguous(memory_format=torch.channels_last)
        norms = [layer for layer in self.features if isinstance(layer, nn.BatchNorm2d)]
        tensors = normalised_tensors(zip(self._convolutions(), norms, strict=True))
        if len(x) and not self.training and is_plain(x, *tensors):
            out = self._folded(padded(x), self._plan.get(*tensors))[: len(x)]
        else:
            out = self.features(x).flatten(1)
        return F.normalize(out, dim=1)

    def _folded(self, x: Tensor, plan: list[tuple[Tensor, Tensor]]) -> Tensor:
        x = x.to(plan[0][0].dtype)
        for (weight, bias), layer in zip(plan[:-1], self._convolutions(), strict=False):
            x = F.conv2d(x, weight, bias, layer.stride, layer.padding).relu_()
        weight, bias = plan[-1]
        # the last convolution sees the whole map: a product of matrices, in the channels-last order of both
        flat = x.permute(0, 2, 3, 1).flatten(1)
        return F.linear(flat, weight.permute(0, 2, 3, 1).flatten(1), bias).float()

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        return in_chunks(self._describe, patch, self.chunk_size, self.training)
