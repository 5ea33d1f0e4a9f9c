"""Correct the frames of keypoints by a network that looks at their patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.selection import Candidates
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.networks._fast.pyramid import of_patches
from kornia_lift.networks.localization import KeypointLocalization

CHUNK = 1024  # patches that exist at once
GRADIENT_CHUNK = 256  # the same while gradients are recorded
SPARE = 1.15  # keypoints per slot that are localized: some of them turn out to be the same


class LAFLocalizer(nn.Module):
    """Move and rescale frames as a network predicts, with the interface of kornia's ``LAFAffineShapeEstimator``.

    Args:
        network: patches (N, 1, S, S) -> (N, 4), see
            :class:`~kornia_lift.networks.localization.KeypointLocalization`.
        passes: how often the network corrects the frames. The second pass sees the frames that the first one has
            corrected: worth its time for detectors of a single scale, whose frames are far from their keypoints' size.

    Shape:
        - Input: LAFs (B, N, 2, 3); images (B, 1, H, W)
        - Output: LAFs (B, N, 2, 3); empty slots, which have no extent, stay empty

    Raises:
        ValueError: if ``passes`` is below 1.

    Convention:
        The network sees the frame as it is: half the side of its patch is the scale of the LAF.

    """

    def __init__(self, network: KeypointLocalization, passes: int = 1) -> None:
        super().__init__()
        self.network = network
        if passes < 1:
            raise ValueError(f"LAFLocalizer expects passes of at least 1, got {passes!r}")
        self.passes = passes

    def extra_repr(self) -> str:
        return f"passes={self.passes}" if self.passes > 1 else ""

    def forward(self, laf: Tensor, img: Tensor) -> Tensor:
        for _ in range(self.passes):
            found = of_patches(self.network, self.network.patch_size, img, laf, CHUNK, GRADIENT_CHUNK).to(laf.dtype)
            axes, centre = laf[..., :2], laf[..., 2:]
            centre = centre + axes @ found[..., :2, None]
            laf = torch.cat([axes * found[..., 2, None, None].exp(), centre], -1)
        return laf


def spare_slots(count: int, spare: float = SPARE) -> int:
    """Return how many keypoints to localize for ``count`` slots."""
    return math.ceil(spare * count)


def localized(
    localizer: nn.Module,
    img: Tensor,
    responses: Tensor,
    lafs: Tensor,
    mask: Tensor | None,
) -> Candidates:
    """Correct keypoints, which may then suppress each other once more.

    Args:
        localizer: ``(lafs, img) -> lafs``; upright frames stay upright.
        img: images, shape (B, 1, H, W).
        responses: shape (B, N).
        lafs: upright frames, shape (B, N, 2, 3).
        mask: mask given to the detector, shape (1 or B, 1, H, W).

    Returns:
        A candidate for each slot; those of empty slots, and those moved out of the image or to where the mask is 0, do
        not count.

    """
    keep = laf_is_filled(lafs)
    moved = localizer(lafs, img)
    xy, sigma, _ = lift_from_lafs(moved)
    height, width = img.shape[-2:]
    x, y = xy.detach().unbind(-1)
    keep = keep & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    image = torch.arange(len(lafs), device=lafs.device)[:, None].expand_as(keep)
    if mask is not None:
        row, col = (v.round().long().clamp(0, side - 1) for v, side in ((y, height), (x, width)))
        kept = mask > 0 if mask.is_floating_point() else mask.ne(0)
        keep = keep & kept[image if len(mask) > 1 else torch.zeros_like(image), 0, row, col]
    frames = torch.cat([xy, sigma[..., None]], -1)
    return Candidates(image.flatten(), frames.flatten(0, 1), responses.flatten(), keep.flatten())
