"""Blocks of pixels as channels, as ``pixel_unshuffle`` makes them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.networks._fast.folded import Placement

BLOCK = 2  # side of a block, in pixels
_WORDS = {1: torch.int16, 2: torch.int32, 4: torch.int64}  # as many bytes as two pixels


def unshuffled(x: Tensor) -> Tensor:
    """Apply ``pixel_unshuffle`` to maps (B, 1, H, W), also to an empty batch, which torch would leave as it is."""
    if torch.compiler.is_compiling() or len(x):  # a graph is for any number of maps
        return F.pixel_unshuffle(x, BLOCK)
    return x.new_zeros(0, BLOCK**2, x.shape[-2] // BLOCK, x.shape[-1] // BLOCK)


def to_blocks(x: Tensor) -> Tensor:
    """Apply it to maps (B, 1, H, W) without gradient, eight times faster than torch: pairs of pixels are moved."""
    pairs = x[:, 0].contiguous().view(_WORDS[x.element_size()])
    blocks = pairs.unflatten(1, (-1, BLOCK)).transpose(2, 3).contiguous()
    return blocks.view(x.dtype).permute(0, 3, 1, 2)


def filters_on_blocks(weight: Tensor, at: Placement) -> tuple[Tensor, Placement] | None:
    """Return filters of blocks that give what a convolution with stride 2 gives on the pixels.

    Four channels are what a CPU multiplies and adds in one step; a single channel would be filled up with zeros.

    Args:
        weight: filters of one channel, shape (D, 1, 5, 5).
        at: where they are evaluated.

    Returns:
        Filters of shape (D, 4, 3, 3) and where they are evaluated; ``None`` for other convolutions.

    """
    if weight.shape[1:] != (1, 5, 5) or at != Placement((BLOCK, BLOCK), (2, 2)):
        return None
    # along an axis, the five taps are two blocks and a half
    return F.pixel_unshuffle(F.pad(weight, (0, 1, 0, 1)), BLOCK), Placement((1, 1), (1, 1))
