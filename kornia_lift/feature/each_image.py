"""Batches for detectors that take one image per call."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EachImage(nn.Module):
    """Run a detector on one image of a batch after the other.

    Args:
        detector: ``(img, mask) -> (lafs, responses)`` for one image.
        num_features: number of slots that it fills.
        smallest: side in pixels below which it fails: smaller images have no keypoints.

    Shape:
        - Input: images :math:`(B, 1, H, W)`; ``mask`` :math:`(1|B, 1, H, W)`
        - Output: LAFs :math:`(B, N, 2, 3)`, responses :math:`(B, N)`, :math:`N` = ``num_features``

    """

    def __init__(self, detector: nn.Module, num_features: int, smallest: int) -> None:
        super().__init__()
        self.detector = detector
        self.num_features = num_features
        self.smallest = smallest

    def extra_repr(self) -> str:
        return f"num_features={self.num_features}, smallest={self.smallest}"

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if not len(img) or min(img.shape[-2:]) < self.smallest:
            slots = img.new_zeros(len(img), self.num_features)
            return slots.new_zeros(*slots.shape, 2, 3), slots
        masks = [mask] * len(img) if mask is None or len(mask) == 1 else mask.split(1)
        found = [self.detector(one, own) for one, own in zip(img.split(1), masks, strict=True)]
        lafs, responses = (torch.cat(parts) for parts in zip(*found, strict=True))
        return lafs, responses
