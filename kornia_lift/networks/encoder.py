"""PatchEncoder: normalised convolutions that reduce a patch to a vector."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast, get_args

from torch import Tensor, nn

from kornia_lift.networks._fast.folded import (
    FloatChain,
    IntegerPrecision,
    Placement,
    fold,
    normalised_tensors,
    padded,
    product_dtype,
)
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.quantized import IntegerChain, has_fast_integers, has_integers
from kornia_lift.networks.layers import NORM_EPS, Layers, normalised_convolution


class PatchEncoder(Layers):
    """Convolutions with batch normalisation and ReLU, and a last one that sees the whole map, only normalised.

    Without gradient, on a CPU, the normalisations are folded into the weights.

    Args:
        channels: of the input and of every layer but the last.
        kernels: sides of the filters of these layers.
        strides: of these layers.
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
        placements = tuple((tuple(c.stride), tuple(map(int, c.padding))) for c, _ in self.pairs())
        self._plan = PlanCache(partial(_build, placements=placements, precision=_known(precision)))

    def pairs(self) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Return every convolution with the normalisation behind it."""
        convolutions = [layer for layer in self if isinstance(layer, nn.Conv2d)]
        return list(zip(convolutions, (m for m in self if isinstance(m, nn.BatchNorm2d)), strict=True))

    def forward(self, x: Tensor) -> Tensor:
        tensors = normalised_tensors(self.pairs())
        if len(x) and not self.training and is_plain(x, *tensors):
            return self._plan.get(*tensors)(padded(x))[: len(x)]
        return super().forward(x).flatten(1)


def _known(precision: str) -> IntegerPrecision:
    if precision not in get_args(IntegerPrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(IntegerPrecision))}, got {precision!r}")
    if precision == "int8" and not has_integers():
        raise ValueError("precision 'int8' needs a torch with oneDNN's quantized convolutions; take 'auto'")
    return cast(IntegerPrecision, precision)


def _build(*tensors: Tensor, placements: Sequence[Placement], precision: IntegerPrecision) -> FloatChain | IntegerChain:
    if precision == "int8" or (precision == "auto" and has_fast_integers()):
        return IntegerChain(fold(*tensors, eps=NORM_EPS, dtype=tensors[0].dtype), placements)
    return FloatChain(fold(*tensors, eps=NORM_EPS, dtype=product_dtype(precision)), placements)
