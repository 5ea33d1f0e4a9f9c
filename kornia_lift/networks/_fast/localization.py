"""The layers of the localization with their normalisations folded in; the heat map and a summary see the same maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor

from kornia_lift.networks._fast.blocks import BLOCK, to_blocks
from kornia_lift.networks._fast.folded import IntegerPrecision, Placement, Precision, fold, product_dtype
from kornia_lift.networks._fast.quantized import IntegerEnd, IntegerMaps, uses_integers

HEAT = Placement((1, 1), (1, 1))


class FloatLocalization:
    """The layers in float32 or bfloat16.

    Args:
        folded: weight and bias of every layer, that of the summary last.
        placements: of these layers.
        heat: the filter of the heat map, float32.

    """

    def __init__(self, folded: Sequence[tuple[Tensor, Tensor]], placements: Sequence[Placement], heat: Tensor) -> None:
        self._layers = list(zip(folded, placements, strict=True))
        self._heat = heat

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heat map (B, 1, 16, 16) and the summary (B, 32, 8, 8), float32, of patches (B, 1, 32, 32)."""
        x = _channels(x.to(self._layers[0][0][0].dtype), self._layers[0][0][0])
        maps = [x]
        for (weight, bias), at in self._layers:
            maps.append(F.conv2d(maps[-1], weight, bias, at.stride, at.padding).relu_())
        # half precision would round the heat to steps of 0.03
        return F.conv2d(maps[-2].float(), self._heat, padding=HEAT.padding), maps[-1].float()


class IntegerLocalization:
    """The layers in 8-bit integers.

    Args:
        folded: weight and bias of every layer, float32, that of the summary last.
        placements: of these layers.
        heat: the filter of the heat map, float32.

    """

    def __init__(self, folded: Sequence[tuple[Tensor, Tensor]], placements: Sequence[Placement], heat: Tensor) -> None:
        self._first = folded[0][0]
        self._maps = IntegerMaps(folded[:-1], placements[:-1])
        self._heat = IntegerEnd(heat, None, HEAT)
        self._summary = IntegerEnd(*folded[-1], placements[-1], relu=True)

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the heat map (B, 1, 16, 16) and the summary (B, 32, 8, 8), float32, of patches (B, 1, 32, 32)."""
        maps = self._maps(_channels(x, self._first))
        return self._heat(maps), self._summary(maps)


def build(
    *tensors: Tensor, placements: Sequence[Placement], eps: float, precision: IntegerPrecision
) -> FloatLocalization | IntegerLocalization:
    """Build the layers.

    Args:
        tensors: those that :func:`~kornia_lift.networks._fast.folded.fold` takes, then the filter of the heat map.
        placements: of the layers.
        eps: eps of the normalisations.
        precision: number format of the products.

    """
    *normalised, heat = tensors
    if uses_integers(precision):
        return IntegerLocalization(fold(*normalised, eps=eps, dtype=heat.dtype), placements, heat)
    dtype = product_dtype(cast("Precision", precision))
    return FloatLocalization(fold(*normalised, eps=eps, dtype=dtype), placements, heat)


def _channels(x: Tensor, weight: Tensor) -> Tensor:
    """Return patches as the channels that the first layer sees: pixels, or blocks of them."""
    return to_blocks(x) if weight.shape[1] == BLOCK**2 else x
