"""Convolutions with batch normalisation in inference: folded into weight and bias, in bfloat16 where that is faster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Precision = Literal["auto", "float32", "bfloat16"]
#: The same for networks whose layers are all normalised, which can also run in 8-bit integers.
IntegerPrecision = Literal["auto", "float32", "bfloat16", "int8"]


class Placement(NamedTuple):
    """Where a convolution is evaluated.

    Args:
        stride: over rows and columns.
        padding: zeros around the map.
        dilation: distance of the taps.
        around: columns of the map that are repeated on its other side first, where columns are directions.

    """

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...] = (1, 1)
    around: int = 0


def placement_of(convolution: nn.Conv2d) -> Placement:
    """Return where a convolution of torch is evaluated."""
    return Placement(tuple(convolution.stride), tuple(map(int, convolution.padding)))


def normalised_pairs(layers: Iterable[nn.Module]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return every convolution of a chain of layers with the normalisation after it."""
    each = list(layers)
    convolutions = [layer for layer in each if isinstance(layer, nn.Conv2d)]
    return list(zip(convolutions, (layer for layer in each if isinstance(layer, nn.BatchNorm2d)), strict=True))


STEP = 32  # patches


def padded(patches: Tensor) -> Tensor:
    """Pad a batch with zeros to one of a few sizes: powers of two, then multiples of :data:`STEP`.

    oneDNN caches some hundred kilobytes for each of the last 1024 shapes of convolutions: with a shape for every number
    of keypoints that would be half a gigabyte.
    """
    count = len(patches)
    size = 1 << max(0, count - 1).bit_length() if count <= STEP else -(-count // STEP) * STEP
    return patches if size == count else torch.cat([patches, patches.new_zeros(size - count, *patches.shape[1:])])


def product_dtype(precision: Precision) -> torch.dtype:
    """Return the type of the products on this CPU: ``"auto"`` is bfloat16 where the CPU multiplies in it.

    Raises:
        ValueError: if the precision is unknown.

    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {precision!r}")
    fast = precision == "auto" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast or precision == "bfloat16" else torch.float32


def fold(*tensors: Tensor, eps: float, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Fold normalisations without parameters into the convolutions before them.

    Args:
        tensors: weight, running mean and running variance of each layer, one layer after the other.
        eps: eps of the normalisations.
        dtype: dtype of the result.

    Returns:
        Weight (channels last) and bias of each layer.

    """
    folded = []
    for weight, mean, var in zip(tensors[::3], tensors[1::3], tensors[2::3], strict=True):
        scale = (var + eps).rsqrt()
        scaled = (weight * scale[:, None, None, None]).to(dtype).contiguous(memory_format=torch.channels_last)
        folded.append((scaled, (-mean * scale).to(dtype)))
    return folded


def normalised_tensors(layers: Iterable[tuple[nn.Conv2d, nn.BatchNorm2d]]) -> list[Tensor]:
    """Return the arguments of :func:`fold`."""
    tensors: list[Tensor] = []
    for convolution, norm in layers:
        tensors += [convolution.weight, cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)]
    return tensors


def closed(x: Tensor, around: int) -> Tensor:
    """Repeat the columns of each side on the other one: maps whose columns are directions, channels last."""
    if around:
        x = torch.cat([x[..., -around:], x, x[..., :around]], dim=-1)
    return x.contiguous(memory_format=torch.channels_last)


class FloatMaps:
    """Convolutions of maps, each followed by a ReLU.

    Args:
        folded: what :func:`fold` returns.
        placements: of the layers.

    """

    def __init__(self, folded: Sequence[tuple[Tensor, Tensor]], placements: Sequence[Placement]) -> None:
        self._layers = list(zip(folded, placements, strict=True))

    def __call__(self, x: Tensor) -> Tensor:
        """Return the maps of the last layer, float32, of normalised maps (B, C, H, W)."""
        x = x.to(self._layers[0][0][0].dtype)
        for (weight, bias), at in self._layers:
            x = F.conv2d(closed(x, at.around), weight, bias, at.stride, at.padding, at.dilation).relu_()
        return x.float()


class FloatChain:
    """Convolutions of a patch, each but the last followed by a ReLU; the last one sees the whole map.

    Args:
        folded: what :func:`fold` returns.
        placements: of the layers.

    """

    def __init__(self, folded: Sequence[tuple[Tensor, Tensor]], placements: Sequence[Placement]) -> None:
        self._layers = list(zip(folded[:-1], placements, strict=False))
        weight, self._bias = folded[-1]
        # the last convolution is a product of matrices, in the channels-last order of both
        self._whole = weight.permute(0, 2, 3, 1).flatten(1)

    def __call__(self, x: Tensor) -> Tensor:
        """Reduce normalised patches, shape (B, C, H, W), to vectors (B, D), float32."""
        x = x.to(self._whole.dtype)
        for (weight, bias), at in self._layers:
            x = F.conv2d(x, weight, bias, at.stride, at.padding).relu_()
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), self._whole, self._bias).float()
