"""Compact recipe, descriptor: hardest negative in the batch, on views whose angles have the errors of run time."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.views import ViewPairs, rotate_frames, wrap_angle
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.hardest import HardestInBatch, nearest_measure
from kornia_lift.training.stage import ERROR, Measure

HOPELESS = math.radians(35)  # pairs whose estimated angles differ by more are described at the first one's


class ViewDescriptorStage(HardestInBatch):
    """Train a descriptor on pairs of views in a common frame.

    Args:
        network: the descriptor, of unit vectors.
        pairs: training pairs.
        validation: held-out pairs.
        orientation: when given, views are described at the angles that it estimates instead of random ones, except in
            upright images. Where the two estimates differ by more than 35 degrees, both at that of the first view.
        context: side of the region that ``orientation`` sees over that of the described one.
        upright_share: share of the images whose common angle is zero (images are mostly upright). The others are
            rotated as a whole: angles of single locations would tell look-alikes of one image apart.
        coarse_share: share of the pairs of which each view has an angle error of its own, without ``orientation``.
        coarse_angle: standard deviation of that error, radians.
        margin: of the loss.
        seed: seed of the validation batches.

    """

    name = "descriptor"

    def __init__(
        self,
        network: CompactDescriptor,
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
        self.descriptor = network
        self.pairs, self.validation = pairs, validation
        self.orientation, self.context = orientation, context
        self.upright_share, self.coarse_share, self.coarse_angle = upright_share, coarse_share, coarse_angle
        self.seed = seed

    @property
    def measure(self) -> Measure:
        """A pair counts as correct where no other of its batch is nearer, seen from either side."""
        return nearest_measure(*self.validation.batch_size, locations=len(self.validation.track_count))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator, self.upright_share, self.coarse_share)

    @torch.no_grad()
    def _batch(
        self, pairs: ViewPairs, generator: Generator, upright_share: float, coarse_share: float, agree: bool = True
    ) -> dict[str, Tensor]:
        anchor, positive, reach, other = pairs.draw(generator)
        n = len(anchor)
        images, member = torch.unique(pairs.seen.image[anchor], return_inverse=True)
        angles = torch.rand(len(images), generator=generator) * (2 * math.pi)
        upright = torch.rand(len(images), generator=generator) < upright_share
        angle, upright = torch.where(upright, torch.zeros(()), angles)[member], upright[member]
        coarse = (torch.rand(n, generator=generator) < coarse_share) * self.coarse_angle
        error = torch.randn(2, n, generator=generator) * coarse
        stretch = pairs.random_stretch(anchor, positive, generator)
        a = pairs.frames(anchor, reach, angle, generator, torch.ones(n))
        p = pairs.frames(positive, other, angle, generator, stretch)
        if self.orientation is not None:
            first, second = (self._estimate(pairs, i, f, generator) for i, f in ((anchor, a), (positive, p)))
            if agree:
                second = torch.where(wrap_angle(first - second).abs() < HOPELESS, second, first + error[1])
            error = torch.where(upright, error, torch.stack([first, second]))
        return {
            "anchor": self._patches(pairs, anchor, rotate_frames(a, error[0]), generator),
            "positive": self._patches(pairs, positive, rotate_frames(p, error[1]), generator),
            "not_negative": pairs.ambiguous(anchor, reach),
        }

    def _patches(self, pairs: ViewPairs, index: Tensor, frames: Tensor, generator: Generator) -> Tensor:
        """Patches of all regions that the network sees."""
        return pairs.augment(pairs.cut(index, frames, regions=self.descriptor.regions), generator)

    def _estimate(self, pairs: ViewPairs, index: Tensor, frames: Tensor, generator: Generator) -> Tensor:
        """Clockwise angles of frames, as the trained orientation estimates them."""
        assert self.orientation is not None
        wide = torch.cat([frames[:, :, :2] * self.context, frames[:, :, 2:]], 2)
        patches = pairs.augment(pairs.cut(index, wide, self.orientation.patch_size), generator)
        # frames are made on the CPU
        return -self.orientation(patches.to(next(self.orientation.parameters()).device)).cpu()

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        """Share of pairs with a wrong nearest neighbour.

        ``error`` is of rotated images: at the estimated angles as they are, without ``orientation`` at the true ones;
        ``upright`` of upright images; ``coarse``, without ``orientation``, with the coarse errors on every pair.
        """
        self.network.eval()
        kinds = {"error": (0.0, 0.0), "upright": (1.0, 0.0)}
        if self.orientation is None:
            kinds["coarse"] = (0.0, 1.0)
        figures: dict[str, float] = {}
        for name, shares in kinds.items():
            generator = torch.Generator().manual_seed(self.seed)
            wrong = []
            for _ in range(batches):
                batch = to_device_of(self.network, self._batch(self.validation, generator, *shares, agree=False))
                wrong.append(1 - self.loss_of(self.describe(batch), batch["not_negative"])[1]["correct"])
            figures[name] = sum(wrong) / batches
            if name == ERROR:
                self.parts = wrong
        self.network.train()
        return figures
