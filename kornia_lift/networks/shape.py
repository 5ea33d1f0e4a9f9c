"""KeypointShape: how a patch has to be stretched so that another view looks alike. It is not part of the LIFT paper.

A surface that is seen from the side is compressed in one direction. This network estimates a stretch that undoes it, up
to what the keypoint itself looks like: in two views of a surface, the stretched patches differ by a rotation only.
"""

from __future__ import annotations

import os
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from kornia_lift._checks import check_patches
from kornia_lift.networks._fast.blocks import BLOCK, to_blocks, unshuffled
from kornia_lift.networks._fast.folded import (
    IntegerPrecision,
    normalised_pairs,
    normalised_tensors,
    padded,
    placement_of,
)
from kornia_lift.networks._fast.plan import PlanCache, is_plain
from kornia_lift.networks._fast.quantized import build_maps, known_precision
from kornia_lift.networks.layers import NORM_EPS, Layers, in_chunks, normalised_convolution, normalize_patches
from kornia_lift.weights import default_network, load_network

PATCH_SIZE = 32
HEAD_GAIN = 0.05  # the head sums 2048 features: the first steps of an optimizer would be too large
#: Input channels, output channels and stride of the layers, on 16x16 blocks of 2x2 pixels.
LAYERS = ((BLOCK**2, 16, 1), (16, 16, 1), (16, 24, 1), (24, 32, 2))
TINY = 1e-12


class KeypointShape(nn.Module):
    r"""Estimate the affine shape of the keypoint in the middle of a 32x32 grayscale patch.

    Every patch is normalised by its own mean and deviation. Four 3x3 convolutions on blocks of 2x2 pixels and a linear
    layer: 17 thousand weights, 2.1 million products for a patch, in 8-bit integers where the CPU multiplies in them.
    Without training every shape is a circle.

    Args:
        pretrained: ``True`` or ``"shape"`` for the weights that the package ships, a path to a ``.safetensors`` file
            with tensors ``shape.*``, or ``False`` for initial weights (the module then stays in train mode, where batch
            statistics normalise).
        precision: number format of the products on a CPU without gradient, see
            :class:`~kornia_lift.networks.compact_descriptor.CompactDescriptor`.
        chunk_size: patches that go through the network at once when no gradient is recorded.

    Shape:
        - Input: :math:`(B, 1, 32, 32)`, values in [0, 1]
        - Output: :math:`(B, 2)`, a and b of the stretch; :func:`stretch` makes its matrix

    Raises:
        kornia.core.exceptions.ShapeError: if the input is not (B, 1, 32, 32).
        TypeError: if the input is not floating point.

    Convention:
        The matrix maps from the frame of the normalised patch to that of the given one, x to the right, y down. It is
        symmetric, with determinant 1.

    Example:
        >>> shape = KeypointShape(pretrained=False).eval()
        >>> shape(torch.rand(4, 1, 32, 32)).shape
        torch.Size([4, 2])

    """

    patch_size = PATCH_SIZE

    def __init__(
        self,
        pretrained: bool | str | os.PathLike[str] = False,
        *,
        precision: IntegerPrecision = "auto",
        chunk_size: int = 512,
    ) -> None:
        super().__init__()
        self.precision = precision
        self.chunk_size = chunk_size
        self.features = Layers(
            *(part for inputs, outputs, stride in LAYERS for part in normalised_convolution(inputs, outputs, 3, stride))
        )
        self.head = nn.Conv2d(LAYERS[-1][1], 2, PATCH_SIZE // (2 * BLOCK))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(cast(Tensor, self.head.bias))
        placements = tuple(placement_of(convolution) for convolution, _ in normalised_pairs(self.features))
        known = known_precision(precision)
        self._plan = PlanCache(partial(build_maps, placements=placements, eps=NORM_EPS, precision=known))
        if pretrained is not False:
            chosen = pretrained
            if pretrained is True:
                chosen = default_network("shape", type(self).__name__, "give the path of a weight file")
            load_network(self, "shape", chosen)

    def extra_repr(self) -> str:
        return f"precision={self.precision!r}"

    def _estimate(self, patch: Tensor) -> Tensor:
        x = normalize_patches(patch, None, None)
        tensors = normalised_tensors(normalised_pairs(self.features))
        if not self.training and is_plain(x, *tensors) and len(x):
            maps = self._plan.get(*tensors)(to_blocks(padded(x)))[: len(x)]
        else:
            maps = self.features(unshuffled(x))
        return (HEAD_GAIN * self.head(maps)).flatten(1).to(patch.dtype)

    def forward(self, patch: Tensor) -> Tensor:
        check_patches(patch, PATCH_SIZE, type(self).__name__)
        return in_chunks(self._estimate, patch, self.chunk_size, self.training)


def stretch(ab: Tensor) -> Tensor:
    r"""Return the matrices of stretches: the exponentials of :math:`((a, b), (b, -a))`.

    The axes are :math:`e^r` and :math:`e^{-r}` with :math:`r = \sqrt{a^2 + b^2}`, and the larger one has the angle
    :math:`\mathrm{atan2}(b, a) / 2`.

    Args:
        ab: a and b, shape (..., 2).

    Returns:
        Symmetric matrices of determinant 1, shape (..., 2, 2), float32 at least.

    """
    a, b = ab.to(torch.promote_types(ab.dtype, torch.float32)).unbind(-1)  # half precision has no squares of small ones
    r = (a.square() + b.square() + TINY).sqrt()  # the root has a finite gradient
    even, odd = r.cosh(), r.sinh() / r
    rows = [torch.stack([even + odd * a, odd * b], -1), torch.stack([odd * b, even - odd * a], -1)]
    return torch.stack(rows, -2)
