"""Degraded crops: strongly compressed, blurred or dark."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from kornia_lift._gray import to_bytes
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits

DARK_NOISE = 0.004  # standard deviation in [0, 1] gray values, one of 255: sensor noise does not darken


@dataclass(frozen=True)
class DegradedCrops:
    """How many crops are degraded, and how much.

    Args:
        share: of the crops that are degraded.
        photometric: photometric augmentation of these.
        dark: share of these that are darkened, with noise and in 8 bits.
        darkest: smallest factor of the gray values of darkened crops.
        brightest: largest such factor.

    """

    share: float = 0.4
    photometric: Photometric = field(
        default_factory=lambda: Photometric(gain=1.6, gamma=1.5, noise=0.02, blur=1.8, jpeg=0.5, jpeg_quality=8)
    )
    dark: float = 0.4
    darkest: float = 0.15
    brightest: float = 0.65

    def __post_init__(self) -> None:
        check_limits(self, "share", "dark", at_least=0, at_most=1)
        check_limits(self, "darkest", above=0, at_most=1)
        check_limits(self, "brightest", at_least=self.darkest, at_most=1)


def with_degraded(crops: Tensor, augmented: Tensor, degraded: DegradedCrops, generator: Generator) -> Tensor:
    """Replace a share of augmented crops by degraded versions.

    Args:
        crops: as they are, (N, 1, S, S) in [0, 1].
        augmented: the same crops, augmented.
        degraded: how many, and how much.
        generator: CPU generator.

    Returns:
        Crops of the shape of ``augmented``.

    """
    chosen = torch.nonzero(torch.rand(len(crops), generator=generator) < degraded.share)[:, 0]
    if not len(chosen):
        return augmented
    changed = augment(crops[chosen.to(crops.device)], degraded.photometric, generator)
    dark = torch.rand(len(chosen), generator=generator) < degraded.dark
    kept = degraded.darkest + (degraded.brightest - degraded.darkest) * torch.rand(len(chosen), generator=generator)
    grain = DARK_NOISE * torch.randn(changed.shape, generator=generator).to(changed)
    darkened = to_bytes(changed * kept.to(changed).view(-1, 1, 1, 1) + grain).to(changed) / 255
    result = augmented.clone()
    result[chosen.to(crops.device)] = torch.where(dark.to(changed.device).view(-1, 1, 1, 1), darkened, changed)
    return result
