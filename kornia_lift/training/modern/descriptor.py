"""Modern recipe, descriptor: hardest negative in the batch on unit vectors, batches with look-alikes of one image."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.training.batches import to_device_of
from kornia_lift.training.distributed import gather
from kornia_lift.training.modern.pairs import PatchPairs
from kornia_lift.training.stage import Measure


def hardest_in_batch_loss(
    anchor: Tensor, positive: Tensor, not_negative: Tensor, margin: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Triplet loss with the hardest negative of the batch (HardNet, Mishchuk et al. 2017, Eq. 1-2).

    .. math:: \frac1N \sum_i \max(0, m + d(a_i, p_i) - \min(\min_j d(a_i, p_j), \min_j d(a_j, p_i)))

    Args:
        anchor: unit vectors, shape (N, D).
        positive: unit vectors of the same places, shape (N, D).
        not_negative: pairs (i, j) that must not serve as negatives, boolean (N, N), true on the diagonal.
        margin: m.

    Returns:
        The loss, and whether the positive is nearer than every negative, shape (N,).

    """
    distance = (2 - 2 * (anchor @ positive.mT)).clamp(min=1e-6).sqrt()
    matching = distance.diagonal()
    negatives = distance.masked_fill(not_negative, 10.0)
    hardest = torch.minimum(negatives.amin(1), negatives.amin(0))
    return (margin + matching - hardest).clamp(min=0).mean(), matching < hardest


def nearest_measure(images: int, per_image: int, locations: int) -> Measure:
    """Measure of the share of pairs of a batch, so many of each image, that have a wrong nearest neighbour."""
    size = images * per_image
    # the nearest of 2 N - 1 candidates: the positive, and the others of either side
    return Measure(f"pairs with a wrong nearest neighbour among {size}", 1 - 1 / (2 * size - 1), locations)


class HardestDescriptorStage:
    """Train the descriptor on pairs of views at any common angle.

    Args:
        network: the descriptor, ``normalize=True``.
        pairs: training pairs.
        validation: held-out pairs.
        orientation: when given, patches are turned by its angle instead of the true one, so that the descriptor
            learns to live with the errors it will meet.
        upright_share: share of the batches whose common angle is zero (images are mostly upright).
        margin: of the loss. The outputs of this network are positive, so its unit vectors lie close together: 1 is
            out of reach, and pairs that are told apart already would count as much as those that are not.
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
        self.network: nn.Module = network
        self.pairs = pairs
        self.validation = validation
        self.orientation = orientation
        self.upright_share = upright_share
        self.margin = margin
        self.seed = seed

    @property
    def measure(self) -> Measure:
        """A pair counts as correct where no other of its batch is nearer, seen from either side."""
        return nearest_measure(*self.validation.batch_size, locations=len(self.validation.track_count))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator)

    @torch.no_grad()
    def _batch(self, pairs: PatchPairs, generator: Generator) -> dict[str, Tensor]:
        anchor, positive = pairs.draw(generator)
        turn = torch.rand(len(anchor), generator=generator) * (2 * math.pi)
        upright = torch.rand(len(anchor), generator=generator) < self.upright_share
        turn = torch.where(upright, torch.zeros(()), turn)
        stretch = pairs.random_stretch(anchor, positive, generator)
        state = generator.get_state()
        a = pairs.cut(anchor, turn, generator)
        between = generator.get_state()
        p = pairs.cut(positive, turn, generator, stretch)
        if self.orientation is not None:
            # the same draws again, turned by what the network sees (kornia's sense: minus LIFT's)
            on = next(self.orientation.parameters()).device
            angle_a, angle_p = -self.orientation(a.to(on)).to(turn), -self.orientation(p.to(on)).to(turn)
            use = ~upright
            generator.set_state(state)
            a = pairs.cut(anchor, turn + angle_a * use, generator)
            generator.set_state(between)
            p = pairs.cut(positive, turn + angle_p * use, generator, stretch)
        return {"anchor": a, "positive": p, "not_negative": pairs.ambiguous(anchor)}

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
            loss, right = hardest_in_batch_loss(described[:, 0], described[:, 1], not_negative, self.margin)
        return loss, {"right": float(right.float().mean())}

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, rights = [], []
        for _ in range(batches):
            batch = to_device_of(self.network, self._batch(self.validation, generator))
            loss, figures = self._loss(self._describe(batch), batch["not_negative"])
            losses.append(float(loss))
            rights.append(figures["right"])
        self.network.train()
        return {"error": 1 - sum(rights) / batches, "loss": sum(losses) / batches}
