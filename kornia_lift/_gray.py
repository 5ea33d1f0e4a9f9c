"""Gray values of images."""

from __future__ import annotations

from kornia.color import rgb_to_grayscale
from torch import Tensor


def as_gray(image: Tensor) -> Tensor:
    """Return RGB images (B, 3, H, W) as gray ones (B, 1, H, W), and others as they are."""
    return rgb_to_grayscale(image) if image.shape[1] == 3 else image
