"""Crops as poor images show them: compressed hard, out of focus, dark."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from kornia_lift._gray import to_bytes
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits

DARK_NOISE = 0.004  # gray values: one of 255, what a sensor adds however dark it is


@dataclass(frozen=True)
class PoorCrops:
    """Which crops are poor, and how poor.

    Args:
        share: of the crops that are.
        photometric: photometric augmentation of these.
        dark: share of these that are darkened, with noise and in 8 bits.
        darkest: gray values that the darkest keeps, as a factor.
        brightest: the same of the brightest darkened one.

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


def with_poor(crops: Tensor, augmented: Tensor, poor: PoorCrops, generator: Generator) -> Tensor:
    """Exchange a share of augmented crops for poor versions of the crops.

    Args:
        crops: as they are, (N, 1, S, S) in [0, 1].
        augmented: what stays of the others.
        poor: which, and how poor.
        generator: CPU generator.

    """
    chosen = torch.nonzero(torch.rand(len(crops), generator=generator) < poor.share)[:, 0]
    if not len(chosen):
        return augmented
    changed = augment(crops[chosen.to(crops.device)], poor.photometric, generator)
    dark = torch.rand(len(chosen), generator=generator) < poor.dark
    kept = poor.darkest + (poor.brightest - poor.darkest) * torch.rand(len(chosen), generator=generator)
    grain = DARK_NOISE * torch.randn(changed.shape, generator=generator).to(changed)
    darkened = to_bytes(changed * kept.to(changed).view(-1, 1, 1, 1) + grain).to(changed) / 255
    result = augmented.clone()
    result[chosen.to(crops.device)] = torch.where(dark.to(changed.device).view(-1, 1, 1, 1), darkened, changed)
    return result
