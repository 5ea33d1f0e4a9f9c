"""Paper recipe, first stage: the descriptor on SIFT's positions and angles (paper Sec. 3.3, LIFT spec 4.1)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from kornia_lift.data.quadruplets import QuadrupletSampler
from kornia_lift.descriptor import LIFTDescriptor
from kornia_lift.training.losses import descriptor_loss
from kornia_lift.training.mining import doubling_ratio, hardest
from kornia_lift.training.siamese import matching_precision, nearest_is_right


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


class PaperDescriptorStage:
    """Hinge embedding loss with hard mining of positive and of negative pairs separately.

    Args:
        network: descriptor with ``normalize=False``, since the margin refers to norms of about 40.
        train: training places.
        validation: held-out places.
        options: see there.
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

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        """P1, P2, P3 of ``pairs * mining ratio`` quadruplets, shape (N, 3, 64, 64)."""
        o = self.options
        ratio = doubling_ratio(step, o.mining_every, o.mining_cap)
        drawn = self.train.draw(generator, o.pairs * ratio)
        return {"patches": self.train.descriptor_patches(drawn, (0, 1, 2), generator)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean over the hardest positives plus mean over the hardest negatives (paper Eq. 2)."""
        patches = batch["patches"]
        keep = min(self.options.pairs, len(patches))
        if keep == len(patches):
            d1, d2, d3 = self._describe(patches.transpose(0, 1).reshape(-1, 1, *patches.shape[2:])).chunk(3)
            positive, negative = self._hinge(d1, d2, True), self._hinge(d1, d3, False)
        else:
            positive_rows, negative_rows = self._mine(patches, keep)
            pairs = [patches[positive_rows][:, [0, 1]], patches[negative_rows][:, [0, 2]]]
            hard = torch.cat([p.transpose(0, 1).reshape(-1, 1, *p.shape[2:]) for p in pairs])
            p1, p2, n1, n3 = self._describe(hard).chunk(4)
            positive, negative = self._hinge(p1, p2, True), self._hinge(n1, n3, False)
        figures = {"positive": float(positive.detach().mean()), "negative": float(negative.detach().mean())}
        return positive.mean() + negative.mean(), figures

    def _describe(self, patches: Tensor) -> Tensor:
        return self.network(patches).float()

    def _hinge(self, a: Tensor, b: Tensor, positive: bool) -> Tensor:
        flag = torch.full((len(a),), positive, device=a.device)
        return descriptor_loss(a, b, flag, self.options.margin)

    @torch.no_grad()
    def _mine(self, patches: Tensor, keep: int) -> tuple[Tensor, Tensor]:
        parts = [self._describe(p.flatten(0, 1)[:, None]).view(len(p), 3, -1) for p in patches.split(keep)]
        d1, d2, d3 = torch.cat(parts).unbind(1)
        return hardest(self._hinge(d1, d2, True), keep), hardest(self._hinge(d1, d3, False), keep)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """1 - PR-AUC of held-out true pairs against all false ones, and the share of right nearest neighbours."""
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.validation.draw(generator, self.options.validation_pairs)
        patches = self.validation.descriptor_patches(drawn, (0, 1), generator)
        d1, d2 = (self._describe(patches[:, i : i + 1]) for i in (0, 1))
        area = matching_precision(d1, d2)
        return {"error": 1 - area, "pr_auc": area, "nearest": float(nearest_is_right(d1, d2).float().mean())}
