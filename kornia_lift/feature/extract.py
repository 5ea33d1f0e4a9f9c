"""Run any kornia local feature on one image, of a reduced size where asked."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kornia_lift._gray import as_seen
from kornia_lift._kornia import laf_is_filled
from kornia_lift.features import Features, from_lafs
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA


def shrink(image: Tensor, max_size: int) -> Tensor:
    """Reduce an image (1, C, H, W) so that its longer side has at most ``max_size`` pixels; 0 never reduces."""
    height, width = image.shape[-2:]
    longest = max(height, width)
    if max_size <= 0 or longest <= max_size:
        return image
    size = [max(1, round(side * max_size / longest)) for side in (height, width)]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


@torch.inference_mode()
def extract_features(feature: nn.Module, image: Tensor, image_size: tuple[int, int] | None = None) -> Features:
    """Extract a kornia local feature from one image.

    Args:
        feature: module ``(image, mask) -> (lafs, responses, descriptors)``; empty slots are dropped.
        image: float, shape (1, 1 or 3, H, W), values in [0, 1], on the device and in the dtype to compute with.
        image_size: width and height of the original where ``image`` is a reduced copy of it; keypoints and scales are
            then returned in pixels of the original.

    Convention:
        Pixel centres at integers: a point x of the reduced copy is at ``(x + 0.5) * W / w - 0.5``.
    """
    height, width = image.shape[-2:]
    size = image_size or (width, height)
    lafs, responses, descriptors = feature(as_seen(image, feature))
    ratio = lafs.new_tensor([[size[0] / width], [size[1] / height]], dtype=torch.float32)
    frames = lafs.float() * ratio  # rows are x and y
    frames[..., 2] += (0.5 * ratio - 0.5)[:, 0] * laf_is_filled(lafs)[..., None]  # empty slots stay empty
    return replace(
        from_lafs(
            frames,
            responses.float(),
            F.normalize(descriptors.float(), dim=-1),
            size,
            support=LAF_SCALE_PER_SIGMA * float(getattr(feature, "scaling_coef", 1.0)),
        ),
        uncertainty=max(size) / max(width, height),
    )
