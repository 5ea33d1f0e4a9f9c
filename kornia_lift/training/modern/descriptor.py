"""Modern recipe, descriptor: hardest negative in the batch on unit vectors, batches with look-alikes of one image."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.hardest import HardestInBatch, nearest_measure
from kornia_lift.training.modern.pairs import PatchPairs
from kornia_lift.training.stage import Measure


class HardestDescriptorStage(HardestInBatch):
    """Train the descriptor on pairs of views at any common angle.

    Args:
        network: the descriptor, ``normalize=True``.
        pairs: training pairs.
        validation: held-out pairs.
        orientation: when given, patches are rotated by its angle instead of the true one, so that the descriptor
            learns to live with the errors it will meet.
        upright_share: share of the batches whose common angle is zero (images are mostly upright).
        margin: of the loss. The outputs of this network are positive, so its unit vectors lie close together: 1 is
            out of reach, and pairs that are distinguished already would count as much as those that are not.
        seed: seed of the validation batches.

    """

    name = "descriptor"

    def __init__(
        self,
        network: LIFTDescriptor,
        pairs: PatchPairs,
        validation: PatchPairs,
        orientation: nn.Module | None = None,
        upright_share: float = 0.3,
        margin: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(network, margin)
        self.pairs, self.validation = pairs, validation
        self.orientation, self.upright_share, self.seed = orientation, upright_share, seed

    @property
    def measure(self) -> Measure:
        """A pair counts as correct where no other of its batch is nearer, seen from either side."""
        return nearest_measure(*self.validation.batch_size, locations=len(self.validation.track_count))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator)

    @torch.no_grad()
    def _batch(self, pairs: PatchPairs, generator: Generator) -> dict[str, Tensor]:
        anchor, positive = pairs.draw(generator)
        angle = torch.rand(len(anchor), generator=generator) * (2 * math.pi)
        upright = torch.rand(len(anchor), generator=generator) < self.upright_share
        angle = torch.where(upright, torch.zeros(()), angle)
        stretch = pairs.random_stretch(anchor, positive, generator)
        state = generator.get_state()
        a = pairs.cut(anchor, angle, generator)
        between = generator.get_state()
        p = pairs.cut(positive, angle, generator, stretch)
        if self.orientation is not None:
            # the same draws again, rotated by what the network sees (kornia's sense: minus LIFT's)
            on = next(self.orientation.parameters()).device
            angle_a, angle_p = -self.orientation(a.to(on)).to(angle), -self.orientation(p.to(on)).to(angle)
            use = ~upright
            generator.set_state(state)
            a = pairs.cut(anchor, angle + angle_a * use, generator)
            generator.set_state(between)
            p = pairs.cut(positive, angle + angle_p * use, generator, stretch)
        return {"anchor": a, "positive": p, "not_negative": pairs.ambiguous(anchor)}

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, correct = [], []
        for _ in range(batches):
            batch = to_device_of(self.network, self._batch(self.validation, generator))
            loss, figures = self.loss_of(self.describe(batch), batch["not_negative"])
            losses.append(float(loss))
            correct.append(figures["correct"])
        self.network.train()
        self.parts = [1 - share for share in correct]
        return {"error": 1 - sum(correct) / batches, "loss": sum(losses) / batches}
