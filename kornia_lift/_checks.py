"""Input checks that all networks share: the sentence says what was expected, what came, and the mend."""

from __future__ import annotations

from kornia.core.check import KORNIA_CHECK_SHAPE
from torch import Tensor


def check_floating(x: Tensor, who: str) -> None:
    """Raise ``TypeError`` unless ``x`` is a floating-point tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{who} expects a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{who} expects a floating-point tensor with values in [0, 1], got {x.dtype}; "
            "convert 8-bit images with `image.float() / 255`"
        )


def check_patches(patch: Tensor, size: int, who: str) -> None:
    """Raise unless ``patch`` is a floating-point tensor of shape (B, 1, size, size)."""
    check_floating(patch, who)
    KORNIA_CHECK_SHAPE(patch, ["B", "1", f"{size}", f"{size}"])
