"""Convolutions with batch normalisation in inference, multiplied as 8-bit integers: half the time of bfloat16.

No calibration is needed: what a normalisation without parameters gives has a mean of 0 and a variance of 1 in every
channel. oneDNN adds up the products without rounding, so that results depend neither on the batch nor on threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast, get_args

import torch
from torch import Tensor

from kornia_lift.networks._fast.blocks import filters_on_blocks, to_blocks
from kornia_lift.networks._fast.folded import (
    FloatMaps,
    IntegerPrecision,
    Placement,
    Precision,
    closed,
    fold,
    product_dtype,
)

INPUT_RANGE = 5.0  # standard deviations of a patch: values beyond are clamped
RANGE = 6.0  # the same for the output of a layer after its ReLU
STEPS, SIGNED_STEPS = 255, 127
CENTRE = 128  # the integer that stands for the mean of the patch


def has_integers() -> bool:
    """Return whether torch has convolutions of 8-bit integers."""
    return hasattr(torch.ops.onednn, "qconv2d_pointwise")


def has_fast_integers() -> bool:
    """Return whether this CPU multiplies 8-bit integers and adds up the products in one step, without saturation."""
    return has_integers() and torch.cpu._is_vnni_supported()


def known_precision(precision: str) -> IntegerPrecision:
    """Return a precision of networks that can run in 8-bit integers.

    Raises:
        ValueError: if it is unknown, or not available here.

    """
    if precision not in get_args(IntegerPrecision):
        raise ValueError(f"precision must be one of {', '.join(get_args(IntegerPrecision))}, got {precision!r}")
    if precision == "int8" and not has_integers():
        raise ValueError("precision 'int8' needs a torch with oneDNN's quantized convolutions; use 'auto'")
    return cast(IntegerPrecision, precision)


def uses_integers(precision: IntegerPrecision) -> bool:
    """Return whether a network of a precision multiplies 8-bit integers on this CPU."""
    return precision == "int8" or (precision == "auto" and has_fast_integers())


class _Layer(NamedTuple):
    """Weights in oneDNN's format, scale and zero of every channel of them, bias, and step and zero of the input."""

    weight: Tensor
    scales: Tensor
    zeros: Tensor
    bias: Tensor
    placement: Placement
    step: float
    zero: int


class IntegerMaps:
    """Convolutions of normalised patches, each followed by a ReLU; the maps stay integers.

    Args:
        folded: weight and bias of each layer, float32, the normalisations folded in. Every channel of the weights is
            rounded to 8 bits by its own scale.
        placements: of the layers.

    """

    def __init__(self, folded: Sequence[tuple[Tensor, Tensor]], placements: Sequence[Placement]) -> None:
        first, *others = zip(folded, placements, strict=True)
        (weight, bias), at = first
        on_blocks = filters_on_blocks(weight, at)
        self._sees_blocks = on_blocks is not None
        weight, at = on_blocks or (weight, at)
        self._layers = [
            _packed(weight, bias, at, INPUT_RANGE / SIGNED_STEPS, CENTRE),
            *(_packed(*layer, at, RANGE / STEPS, 0) for layer, at in others),
        ]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the maps of the last layer (B, D, h, w), of normalised patches (B, C, H, W), float32."""
        x = (x * (SIGNED_STEPS / INPUT_RANGE)).round_().add_(CENTRE).clamp_(0, STEPS).to(torch.uint8)
        x = to_blocks(x) if self._sees_blocks else x
        for layer in self._layers:
            x = _convolve(x, layer, RANGE / STEPS, torch.uint8, "relu")
        return x


class IntegerEnd:
    """A convolution of integer maps with float32 results: what it gives need not be normalised.

    Args:
        weight: its filters, float32.
        bias: float32; ``None``: zeros.
        placement: where it is evaluated.
        relu: whether a ReLU follows.

    """

    def __init__(self, weight: Tensor, bias: Tensor | None, placement: Placement, relu: bool = False) -> None:
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        self._layer = _packed(weight, bias, placement, RANGE / STEPS, 0)
        self._activation = "relu" if relu else "none"

    def __call__(self, maps: Tensor) -> Tensor:
        """Return maps (B, D, h, w), float32, of what :class:`IntegerMaps` returns."""
        return _convolve(maps, self._layer, 1.0, torch.float32, self._activation)


class IntegerChain:
    """Convolutions of normalised patches, each followed by a ReLU, the last one only if asked for.

    Args:
        folded: weight and bias of each layer, see :class:`IntegerMaps`; at least two.
        placements: of the layers.
        ends_in_relu: whether the last layer is followed by a ReLU, too.

    """

    def __init__(
        self,
        folded: Sequence[tuple[Tensor, Tensor]],
        placements: Sequence[Placement],
        ends_in_relu: bool = False,
    ) -> None:
        self._maps = IntegerMaps(folded[:-1], placements[:-1])
        self._end = IntegerEnd(*folded[-1], placements[-1], ends_in_relu)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the maps of the last layer (B, D, h, w), float32, of normalised patches (B, C, H, W), float32."""
        return self._end(self._maps(x))


def build_maps(
    *tensors: Tensor, placements: Sequence[Placement], eps: float, precision: IntegerPrecision
) -> FloatMaps | IntegerChain:
    """Build normalised layers, each followed by a ReLU, for a precision.

    Args:
        tensors: those that :func:`~kornia_lift.networks._fast.folded.fold` takes.
        placements: of the layers.
        eps: eps of the normalisations.
        precision: number format of the products.

    """
    if uses_integers(precision):
        return IntegerChain(fold(*tensors, eps=eps, dtype=tensors[0].dtype), placements, ends_in_relu=True)
    return FloatMaps(fold(*tensors, eps=eps, dtype=product_dtype(cast("Precision", precision))), placements)


def _packed(weight: Tensor, bias: Tensor, at: Placement, step: float, zero: int) -> _Layer:
    scales = weight.abs().flatten(1).amax(1).clamp(min=torch.finfo(weight.dtype).tiny) / SIGNED_STEPS
    rounded = (weight / scales.view(-1, 1, 1, 1)).round().to(torch.int8).contiguous()
    packed = torch.ops.onednn.qconv_prepack(rounded, scales, step, zero, at.stride, at.padding, at.dilation, 1, None)
    return _Layer(packed, scales, torch.zeros(len(scales), dtype=torch.int32), bias, at, step, zero)


def _convolve(x: Tensor, layer: _Layer, step: float, dtype: torch.dtype, activation: str) -> Tensor:
    at = layer.placement
    x = closed(x, at.around) if at.around else x
    found: Tensor = torch.ops.onednn.qconv2d_pointwise(
        x, layer.step, layer.zero, layer.weight, layer.scales, layer.zeros, layer.bias, at.stride, at.padding,
        at.dilation, 1, step, 0, dtype, activation, [], "",
    )  # fmt: skip
    return found
