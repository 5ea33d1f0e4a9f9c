"""Compact recipe, descriptor: hardest negative in the batch, on views whose angles have the errors of run time."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.views import ViewPairs, rotate_frames, wrap_angle
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.hardest import HardestInBatch

HOPELESS = math.radians(35)  # pairs whose estimated angles differ by more are described at their true ones


class ViewDescriptorStage(HardestInBatch):
    """Train a descriptor on pairs of views in a common frame.

    Args:
        network: the descriptor, of unit vectors.
        pairs: training pairs.
        validation: held-out pairs.
        orientation: when given, views are described at the angles that it estimates instead of random errors: those of
            the pairs that are not upright, where the two estimates agree within 35 degrees.
        context: side of the region that ``orientation`` sees over that of the described one.
        upright_share: share of the pairs whose common angle is zero (images are mostly upright).
        coarse_share: share of the pairs of which each view has an angle error of its own, without ``orientation``.
        coarse_angle: standard deviation of that error, radians.
        margin: of the loss.
        seed: seed of the validation batches.

    """

    name = "descriptor"

    def __init__(
        self,
        network: nn.Module,
        pairs: ViewPairs,
        validation: ViewPairs,
        orientation: PolarOrientation | None = None,
        context: float = 2.0,
        upright_share: float = 0.3,
        coarse_share: float = 0.4,
        coarse_angle: float = 0.2,
        margin: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(network, margin)
        self.pairs, self.validation = pairs, validation
        self.orientation, self.context = orientation, context
        self.upright_share, self.coarse_share, self.coarse_angle = upright_share, coarse_share, coarse_angle
        self.seed = seed

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator, self.upright_share, self.coarse_share)

    @torch.no_grad()
    def _batch(
        self, pairs: ViewPairs, generator: Generator, upright_share: float, coarse_share: float
    ) -> dict[str, Tensor]:
        anchor, positive, reach, other = pairs.draw(generator)
        n = len(anchor)
        angle = torch.rand(n, generator=generator) * (2 * math.pi)
        upright = torch.rand(n, generator=generator) < upright_share
        angle = torch.where(upright, torch.zeros(()), angle)
        coarse = (torch.rand(n, generator=generator) < coarse_share) * self.coarse_angle
        error = torch.randn(2, n, generator=generator) * coarse
        stretch = pairs.random_stretch(anchor, positive, generator)
        a = pairs.frames(anchor, reach, angle, generator, torch.ones(n))
        p = pairs.frames(positive, other, angle, generator, stretch)
        if self.orientation is not None:
            first, second = (self._estimate(pairs, i, f, generator) for i, f in ((anchor, a), (positive, p)))
            usable = ~upright & (wrap_angle(first - second).abs() < HOPELESS)
            error = torch.where(usable, torch.stack([first, second]), error)
        return {
            "anchor": pairs.augment(pairs.cut(anchor, rotate_frames(a, error[0])), generator),
            "positive": pairs.augment(pairs.cut(positive, rotate_frames(p, error[1])), generator),
            "not_negative": pairs.ambiguous(anchor, reach),
        }

    def _estimate(self, pairs: ViewPairs, index: Tensor, frames: Tensor, generator: Generator) -> Tensor:
        """Clockwise angles of frames, as the trained orientation estimates them."""
        assert self.orientation is not None
        wide = torch.cat([frames[:, :, :2] * self.context, frames[:, :, 2:]], 2)
        patches = pairs.augment(pairs.cut(index, wide, self.orientation.patch_size), generator)
        return -self.orientation(patches.to(next(self.orientation.parameters()).device)).to(patches)

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        """Share of pairs with a wrong nearest neighbour.

        ``error`` is at the true angles (with ``orientation``: at the estimated ones, no pair upright); ``coarse``,
        without ``orientation``, with the coarse errors on every pair.
        """
        self.network.eval()
        kinds = {"error": 0.0} if self.orientation is not None else {"error": 0.0, "coarse": 1.0}
        figures: dict[str, float] = {}
        for name, coarse_share in kinds.items():
            generator = torch.Generator().manual_seed(self.seed)
            wrong = 0.0
            for _ in range(batches):
                upright_share = 0.0 if self.orientation is not None else self.upright_share
                drawn = self._batch(self.validation, generator, upright_share, coarse_share)
                batch = to_device_of(self.network, drawn)
                wrong += 1 - self.loss_of(self.describe(batch), batch["not_negative"])[1]["correct"]
            figures[name] = wrong / batches
        self.network.train()
        return figures
