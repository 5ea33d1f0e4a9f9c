"""Gray values of images, and values in 8 bits."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale
from torch import Tensor


def as_gray(image: Tensor) -> Tensor:
    """Return RGB images (B, 3, H, W) as gray ones (B, 1, H, W), and others as they are."""
    return rgb_to_grayscale(image) if image.shape[1] == 3 else image


def to_bytes(image: Tensor) -> Tensor:
    """Convert values in [0, 1] to 8 bits."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
