"""Modern recipe, compact descriptor: hardest negative in the batch, on views cut from the images."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from kornia_lift.training.modern.views import ViewPairs
from kornia_lift.training.distributed import gather
from kornia_lift.training.modern.descriptor import hardest_in_batch_loss


class ViewDescriptorStage:
    """Train a descriptor on pairs of views at a common angle, which errs as an orientation does.

    Args:
        network: the descriptor, of unit vectors.
        pairs: training pairs.
        validation: held-out pairs.
        upright_share: share of the pairs whose common angle is zero (images are mostly upright).
        coarse_share: share of the pairs of which each view has an angle error of its own.
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
        upright_share: float = 0.3,
        coarse_share: float = 0.4,
        coarse_angle: float = 0.2,
        margin: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.pairs, self.validation = pairs, validation
        self.upright_share, self.coarse_share, self.coarse_angle = upright_share, coarse_share, coarse_angle
        self.margin, self.seed = margin, seed

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator, self.coarse_share)

    @torch.no_grad()
    def _batch(self, pairs: ViewPairs, generator: Generator, coarse_share: float) -> dict[str, Tensor]:
        anchor, positive, reach, other = pairs.draw(generator)
        n = len(anchor)
        turn = torch.rand(n, generator=generator) * (2 * math.pi)
        turn = torch.where(torch.rand(n, generator=generator) < self.upright_share, torch.zeros(()), turn)
        coarse = (torch.rand(n, generator=generator) < coarse_share) * self.coarse_angle
        error = torch.randn(2, n, generator=generator) * coarse
        stretch = pairs.random_stretch(anchor, positive, generator)
        a = pairs.frames(anchor, reach, turn + error[0], generator, torch.ones(n))
        p = pairs.frames(positive, other, turn + error[1], generator, stretch)
        return {
            "anchor": pairs.light(pairs.cut(anchor, a), generator),
            "positive": pairs.light(pairs.cut(positive, p), generator),
            "not_negative": pairs.ambiguous(anchor, reach),
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the whole batch; of several processes each describes its part."""
        size = batch["not_negative"].shape[1]
        return self._loss(gather(self._describe(batch), size), gather(batch["not_negative"], size))

    def _describe(self, batch: dict[str, Tensor]) -> Tensor:
        """Unit vectors of anchor and positive, shape (N, 2, D)."""
        both = self.network(torch.cat([batch["anchor"], batch["positive"]]))
        # distances of unit vectors need float32: bfloat16 steps of 0.004 in the cosine are 0.09 in the distance
        with torch.autocast(both.device.type, enabled=False):
            return torch.stack(nn.functional.normalize(both.float(), dim=1).chunk(2), dim=1)

    def _loss(self, described: Tensor, not_negative: Tensor) -> tuple[Tensor, dict[str, float]]:
        with torch.autocast(described.device.type, enabled=False):
            loss, correct = hardest_in_batch_loss(described[:, 0], described[:, 1], not_negative, self.margin)
        return loss, {"correct": float(correct.float().mean())}

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        self.network.eval()
        figures: dict[str, float] = {}
        for name, coarse_share in (("error", 0.0), ("coarse", 1.0)):
            generator = torch.Generator().manual_seed(self.seed)
            wrong = []
            for _ in range(batches):
                batch = self._batch(self.validation, generator, coarse_share)
                loss, more = self._loss(self._describe(batch), batch["not_negative"])
                wrong.append(1 - more["correct"])
            figures[name] = sum(wrong) / batches
        self.network.train()
        return figures
