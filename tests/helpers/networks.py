"""Networks whose output is known, and a feature with random weights that is fast enough for many tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from kornia_lift import LIFTFeature, ScaleSpaceConfig

DENSE = ScaleSpaceConfig(max_sigma=5, nms_radius=2)  # more keypoints than are asked for
FAST = ScaleSpaceConfig(min_sigma=2, levels_per_octave=3, scale_nms=1)


def feature(count: int = 40, **kwargs: Any) -> LIFTFeature:
    """A feature with random weights in eval mode."""
    return LIFTFeature(count, pretrained=False, config=FAST, **kwargs).eval()


class Constant(nn.Module):
    """A patch network with the same output for every patch."""

    patch_size = 32

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.tensor(values))

    def forward(self, patches: Tensor) -> Tensor:
        return self.values.expand(len(patches), -1)
