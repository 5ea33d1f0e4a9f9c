"""A feature with random weights, fast enough for many tests."""

from __future__ import annotations

from typing import Any

from kornia_lift import LIFTFeature, ScaleSpaceConfig

DENSE = ScaleSpaceConfig(max_sigma=5, nms_radius=2)  # more keypoints than are asked for
FAST = ScaleSpaceConfig(min_sigma=2, levels_per_octave=3, scale_nms=1)


def feature(count: int = 40, **kwargs: Any) -> LIFTFeature:
    """A feature with random weights in eval mode."""
    return LIFTFeature(count, pretrained=False, config=FAST, **kwargs).eval()
