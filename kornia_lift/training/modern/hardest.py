"""Descriptors learned from the hardest negative of the batch: the loss, and what the stages share that use it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kornia_lift.training.loop.distributed import gather
from kornia_lift.training.stage import Measure


def hardest_in_batch_loss(
    anchor: Tensor, positive: Tensor, not_negative: Tensor, margin: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Triplet loss with the hardest negative of the batch (HardNet, Mishchuk et al. 2017, Eq. 1-2).

    .. math:: \frac1N \sum_i \max(0, m + d(a_i, p_i) - \min(\min_j d(a_i, p_j), \min_j d(a_j, p_i)))

    Args:
        anchor: unit vectors, shape (N, D).
        positive: unit vectors of the same locations, shape (N, D).
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
    """Measure the share of the pairs of a batch that have a wrong nearest neighbour.

    Args:
        images: images of a batch.
        per_image: pairs of each.
        locations: number of held-out locations.

    """
    size = images * per_image
    # the nearest of 2 N - 1 candidates: the positive, and the others of either side
    return Measure(f"pairs with a wrong nearest neighbour among {size}", 1 - 1 / (2 * size - 1), locations)


class HardestInBatch:
    """Loss of a stage whose batches hold ``anchor`` and ``positive`` patches and which pairs are ``not_negative``.

    Args:
        network: the descriptor.
        margin: of the loss.

    """

    def __init__(self, network: nn.Module, margin: float) -> None:
        self.network, self.margin = network, margin

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Loss of the whole batch; of several processes each describes its part."""
        size = batch["not_negative"].shape[1]
        return self.loss_of(gather(self.describe(batch), size), gather(batch["not_negative"], size))

    def describe(self, batch: dict[str, Tensor]) -> Tensor:
        """Unit vectors of anchor and positive, shape (N, 2, D)."""
        both = self.network(torch.cat([batch["anchor"], batch["positive"]]))
        # distances of unit vectors need float32: bfloat16 steps of 0.004 in the cosine are 0.09 in the distance
        with torch.autocast(both.device.type, enabled=False):
            return torch.stack(nn.functional.normalize(both.float(), dim=1).chunk(2), dim=1)

    def loss_of(self, described: Tensor, not_negative: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Loss of described pairs, and the share of them whose positive is nearer than every negative."""
        with torch.autocast(described.device.type, enabled=False):
            loss, correct = hardest_in_batch_loss(described[:, 0], described[:, 1], not_negative, self.margin)
        return loss, {"correct": float(correct.float().mean())}
