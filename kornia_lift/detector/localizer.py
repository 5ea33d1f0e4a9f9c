"""Correct the frames of keypoints by a network that looks at their patches; the scale space that suits it."""

from __future__ import annotations

import math
import os

import torch
from kornia.feature import PassLAF, get_laf_scale
from torch import Tensor, nn

from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.detector.selection import Candidates
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.networks._fast.folded import IntegerPrecision
from kornia_lift.networks._fast.pyramid import of_patches
from kornia_lift.networks._fast.quantized import known_precision
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.weights import has_part

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
        return self.with_spread(laf, img)[0]

    def with_spread(self, laf: Tensor, img: Tensor) -> tuple[Tensor, Tensor]:
        """Return the corrected frames, and how far each may still be off.

        Returns:
            LAFs (B, N, 2, 3); the expected error of the positions over the scale of the given frames, shape (B, N).

        """
        moved, spread = self._correct(laf, img)
        for _ in range(1, self.passes):
            zoom = get_laf_scale(moved)[..., 0, 0] / get_laf_scale(laf)[..., 0, 0].clamp(min=1e-6)  # 0 of empty slots
            moved, spread = self._correct(moved, img)
            spread = spread * zoom
        return moved, spread

    def _correct(self, laf: Tensor, img: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: the corrected frames, and the expected errors over the scale of the given ones."""
        found = of_patches(self.network, self.network.patch_size, img, laf, CHUNK, GRADIENT_CHUNK)
        found = found.to(laf.dtype)
        axes, centre = laf[..., :2], laf[..., 2:]
        centre = centre + axes @ found[..., :2, None]
        return torch.cat([axes * found[..., 2, None, None].exp(), centre], -1), found[..., 3].exp()


def has_localization(pretrained: bool | str | os.PathLike[str]) -> bool:
    """Return whether a model has a network that corrects keypoints."""
    return has_part(pretrained, "localization")


def localizer_of(
    pretrained: bool | str | os.PathLike[str], precision: IntegerPrecision = "auto", passes: int = 1
) -> LAFLocalizer | PassLAF:
    """Build what corrects the keypoints of a model.

    Args:
        pretrained: see :class:`~kornia_lift.LIFTFeature`; without weights it is ``PassLAF``.
        precision: number format of the products on a CPU.
        passes: see :class:`LAFLocalizer`.

    """
    known_precision(precision)  # refuses an unknown one, also where no network would use it
    if pretrained is False or not has_localization(pretrained):
        return PassLAF()
    assert not isinstance(pretrained, bool)
    return LAFLocalizer(KeypointLocalization(pretrained, precision=precision), passes)


def default_scale_space(localized: bool) -> ScaleSpaceConfig:
    """Return the scale space of a detector: two levels per octave are enough where a network corrects the scales."""
    return ScaleSpaceConfig(levels_per_octave=2) if localized else ScaleSpaceConfig()


def scale_space_of(pretrained: str | os.PathLike[str]) -> ScaleSpaceConfig:
    """Return the scale space of a model's detector, without building its networks."""
    return default_scale_space(has_localization(pretrained))


def spare_slots(count: int, spare: float = SPARE) -> int:
    """Return how many keypoints to localize for ``count`` slots."""
    return math.ceil(spare * count)


def localized(
    localizer: nn.Module,
    img: Tensor,
    responses: Tensor,
    lafs: Tensor,
    mask: Tensor | None,
    *,
    by_spread: bool = False,
) -> Candidates:
    """Correct keypoints, which may then suppress each other once more.

    Args:
        localizer: ``(lafs, img) -> lafs``; upright frames stay upright.
        img: images, shape (B, 1, H, W).
        responses: shape (B, N).
        lafs: upright frames, shape (B, N, 2, 3).
        mask: mask given to the detector, shape (1 or B, 1, H, W).
        by_spread: divide the responses by the expected errors, where the localizer is a :class:`LAFLocalizer`, which
            has them.

    Returns:
        A candidate for each slot; those of empty slots, and those moved out of the image or to where the mask is 0, do
        not count.

    """
    keep = laf_is_filled(lafs)
    if by_spread and isinstance(localizer, LAFLocalizer):
        moved, spread = localizer.with_spread(lafs, img)
        responses = responses / spread
    else:
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
