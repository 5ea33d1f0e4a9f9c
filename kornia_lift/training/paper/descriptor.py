"""Paper recipe, first stage: the descriptor on SIFT's positions and angles (paper Sec. 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.training.limits import check_limits
from kornia_lift.training.paper.losses import descriptor_loss
from kornia_lift.training.paper.mining import doubling_ratio, hardest, losses_of
from kornia_lift.training.paper.quadruplets import QuadrupletSampler
from kornia_lift.training.paper.siamese import matching_precision, nearest_is_correct
from kornia_lift.training.stage import Measure


@dataclass(frozen=True)
class DescriptorOptions:
    """Options of the stage.

    Args:
        pairs: K_b, positive pairs and negative pairs per step.
        mining_every: steps after which the mining ratio doubles.
        mining_cap: largest mining ratio.
        margin: C of the hinge loss.
        validation_pairs: held-out true pairs, each compared with all others.

    """

    pairs: int = 128
    mining_every: int = 5000
    mining_cap: int = 8
    margin: float = 4.0
    validation_pairs: int = 500

    def __post_init__(self) -> None:
        check_limits(self, "pairs", "mining_every", "mining_cap", at_least=1)
        check_limits(self, "validation_pairs", at_least=2)
        check_limits(self, "margin", above=0)


class PaperDescriptorStage:
    """Hinge embedding loss with hard mining of positive and of negative pairs separately.

    Args:
        network: descriptor with ``normalize=False``, since the margin refers to norms of about 40.
        train: training data.
        validation: held-out data.
        options: options of the stage.
        seed: seed of the validation pairs.

    Raises:
        ValueError: if the network normalises its output.

    """

    name = "descriptor"

    def __init__(
        self,
        network: LIFTDescriptor,
        train: QuadrupletSampler,
        validation: QuadrupletSampler,
        options: DescriptorOptions | None = None,
        seed: int = 0,
    ) -> None:
        if network.normalize:
            raise ValueError("the paper's margin C = 4 needs LIFTDescriptor(normalize=False)")
        self.network: nn.Module = network
        self.train, self.validation, self.seed = train, validation, seed
        self.options = options or DescriptorOptions()

    @property
    def measure(self) -> Measure:
        """Chance is the share of true pairs."""
        count = min(self.options.validation_pairs, self.validation.num_points)
        return Measure("1 - PR-AUC of true pairs among all pairs", 1 - 1 / count, count)

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        """P1, P2, P3 of ``pairs * mining ratio`` quadruplets, shape (N, 3, 64, 64)."""
        o = self.options
        ratio = doubling_ratio(step, o.mining_every, o.mining_cap)
        drawn = self.train.draw(generator, o.pairs * ratio)
        return {"patches": self.train.descriptor_patches(drawn, (0, 1, 2), generator)}

    def mine(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the hardest positive pairs, and apart from them the hardest negative ones, (K_b, 2, 64, 64) each."""
        patches, keep = batch["patches"], self.options.pairs
        if len(patches) <= keep:
            return batch
        positive, negative = losses_of(batch, self._losses, keep).unbind(1)
        return {
            "positive": patches[hardest(positive, keep)][:, [0, 1]],
            "negative": patches[hardest(negative, keep)][:, [0, 2]],
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the positives plus mean over the negatives (paper Eq. 2)."""
        if "patches" in batch:
            positive, negative = self._losses(batch).unbind(1)
        else:
            pairs = batch["positive"], batch["negative"]
            p1, p2, n1, n3 = self._describe(torch.cat([_branches(p) for p in pairs])).chunk(4)
            positive, negative = self._hinge(p1, p2, True), self._hinge(n1, n3, False)
        figures = {"positive": float(positive.detach().mean()), "negative": float(negative.detach().mean())}
        return positive.mean() + negative.mean(), figures

    def _losses(self, batch: dict[str, Tensor]) -> Tensor:
        """Loss of P1 and P2, and of P1 and P3, shape (N, 2)."""
        d1, d2, d3 = self._describe(_branches(batch["patches"])).chunk(3)
        return torch.stack([self._hinge(d1, d2, True), self._hinge(d1, d3, False)], dim=1)

    def _describe(self, patches: Tensor) -> Tensor:
        return self.network(patches).float()

    def _hinge(self, a: Tensor, b: Tensor, positive: bool) -> Tensor:
        flag = torch.full((len(a),), positive, device=a.device)
        return descriptor_loss(a, b, flag, self.options.margin)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """1 - PR-AUC of held-out true pairs against all false ones, and the share of correct nearest neighbours."""
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.validation.draw(generator, self.options.validation_pairs)
        patches = self.validation.descriptor_patches(drawn, (0, 1), generator)
        d1, d2 = (self._describe(patches[:, i : i + 1]) for i in (0, 1))
        area = matching_precision(d1, d2)
        return {"error": 1 - area, "pr_auc": area, "nearest": float(nearest_is_correct(d1, d2).float().mean())}


def _branches(patches: Tensor) -> Tensor:
    """All first patches, then all second ones...: (N, k, S, S) to (k N, 1, S, S)."""
    return patches.transpose(0, 1).flatten(0, 1)[:, None]
