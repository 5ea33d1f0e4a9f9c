"""Correct the frames of keypoints by a network that looks at their patches."""

from __future__ import annotations

import torch
from kornia.feature import extract_patches_from_pyramid
from torch import Tensor, nn

from kornia_lift._memory import recompute_frames
from kornia_lift.geometry.pyramid import PatchPyramid
from kornia_lift.networks._fast.plan import is_plain
from kornia_lift.networks.localization import KeypointLocalization

CHUNK = 1024  # patches that exist at once
GRADIENT_CHUNK = 256  # the same while gradients are recorded


class LAFLocalizer(nn.Module):
    """Move and rescale frames as a network says, in the manner of kornia's ``LAFAffineShapeEstimator``.

    Args:
        network: patches (N, 1, S, S) -> (N, 4), see
            :class:`~kornia_lift.networks.localization.KeypointLocalization`.

    Shape:
        - Input: LAFs (B, N, 2, 3); images (B, 1, H, W)
        - Output: LAFs (B, N, 2, 3); empty slots, which have no extent, stay empty

    Convention:
        The network sees the frame as it is: half the side of its patch is the scale of the LAF.

    """

    def __init__(self, network: KeypointLocalization) -> None:
        super().__init__()
        self.network = network

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        if not is_plain(img, laf) or not laf.numel():
            found = recompute_frames(self._kornia, img, laf, GRADIENT_CHUNK)
        else:
            pyramid = PatchPyramid(img)
            parts = laf.split(max(1, CHUNK // len(laf)), dim=1)
            size = self.network.patch_size
            found = torch.cat([self._correction(pyramid.cut(part, size)) for part in parts], 1)
        found = found.to(laf.dtype)
        axes, centre = laf[..., :2], laf[..., 2:]
        centre = centre + axes @ found[..., :2, None]
        return torch.cat([axes * found[..., 2, None, None].exp(), centre], -1)

    def _kornia(self, img: Tensor, laf: Tensor) -> Tensor:
        # frames are float32 at least, images may be of half precision
        return self._correction(extract_patches_from_pyramid(img, laf.to(img.dtype), self.network.patch_size))

    def _correction(self, patches: Tensor) -> Tensor:
        found: Tensor = self.network(patches.flatten(0, 1))
        return found.view(*patches.shape[:2], -1)
