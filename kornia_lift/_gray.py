"""Gray values of images, and values in 8 bits."""

from __future__ import annotations

import torch
from kornia.color import rgb_to_grayscale
from torch import Tensor, nn


def as_gray(image: Tensor) -> Tensor:
    """Return RGB images (B, 3, H, W) as gray ones (B, 1, H, W), and others as they are."""
    return rgb_to_grayscale(image) if image.shape[1] == 3 else image


def sees_colour(part: nn.Module) -> bool:
    """Return whether a response, a detector or a feature takes RGB images for more than their gray values.

    It says so by an attribute ``sees_colour``; those that have none see gray.
    """
    return bool(getattr(part, "sees_colour", False))


def as_seen(image: Tensor, part: nn.Module) -> Tensor:
    """Return RGB images (B, 3, H, W) as gray ones (B, 1, H, W), unless ``part`` sees colours; others as they are."""
    return image if sees_colour(part) else as_gray(image)


def to_bytes(image: Tensor) -> Tensor:
    """Convert values in [0, 1] to 8 bits."""
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
