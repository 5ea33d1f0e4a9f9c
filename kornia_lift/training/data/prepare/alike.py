"""Images that show the same: frames of a video that stands still, copies under other names."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_SIDE = 32  # pixels of the copies that are compared
_SAME = 1.0  # gray levels, mean difference
_MOST = 0.8


def thumbnail(image: Tensor) -> Tensor:
    """Copy of an 8-bit gray image (H, W), float, 32x32."""
    return F.interpolate(image[None, None].float(), (_SIDE, _SIDE), mode="area")[0, 0]


def check_different(thumbnails: Sequence[Tensor], what: str, advice: str) -> None:
    """Check that images differ from the next one by more than noise.

    Args:
        thumbnails: of the images, in the order of their names.
        what: what they are, for the error.
        advice: what to do.

    Raises:
        ValueError: if four of five do not.

    """
    pairs = len(thumbnails) - 1
    if pairs < 1:
        return
    stack = torch.stack(list(thumbnails))
    same = int(((stack[1:] - stack[:-1]).abs().mean((1, 2)) < _SAME).sum())
    if same >= _MOST * pairs:
        raise ValueError(
            f"{what}: {same} of {pairs} images are the same as the one before (frames of a video that stands still?); "
            f"{advice}"
        )
