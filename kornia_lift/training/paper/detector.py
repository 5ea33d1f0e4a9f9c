"""Paper recipe, last stages: the detector by overlap, then through the frozen rest (paper Sec. 3.5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from kornia_lift.geometry import DETECTOR_SIZE
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.limits import check_limits
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.paper.losses import descriptor_loss, detector_loss, overlap_loss, pair_loss
from kornia_lift.training.paper.mining import DETECTOR_RATIO, mine
from kornia_lift.training.paper.quadruplets import Quadruplets, QuadrupletSampler, draw_angle, draw_shift
from kornia_lift.training.paper.siamese import (
    describe,
    freeze,
    locate,
    nearest_is_correct,
    orient,
    precision_area,
    rotate_offsets,
)
from kornia_lift.training.stage import Measure


@dataclass(frozen=True)
class DetectorOptions:
    """Options of the detector stages.

    Args:
        quadruplets: K_b, quadruplets trained on per step.
        mining_ratio: K_f / K_b, fixed.
        gamma: weight of the classification. The paper gives none; the authors' TensorFlow code practically switches
            the term off (1e-8), which leaves the sign and the scale of the scores to chance, and with them the order
            in which a run-time detector ranks its keypoints.
        full_circle: rotate every patch by its own angle.
        validation_quadruplets: held-out quadruplets.

    """

    quadruplets: int = 32
    mining_ratio: int = DETECTOR_RATIO
    gamma: float = 1.0
    full_circle: bool = False
    validation_quadruplets: int = 300

    def __post_init__(self) -> None:
        check_limits(self, "quadruplets", "mining_ratio", at_least=1)
        check_limits(self, "validation_quadruplets", at_least=2)
        check_limits(self, "gamma", at_least=0)


class _DetectorStage(ABC):
    """What the stages share: quadruplets of rotated and shifted patches P, mining, validation."""

    name: str
    network: nn.Module
    described = 0  # how many of P1..P4 go through orientation and descriptor

    def __init__(
        self,
        response: LIFTResponse,
        train: QuadrupletSampler,
        validation: QuadrupletSampler,
        options: DetectorOptions | None = None,
        seed: int = 0,
    ) -> None:
        self.response, self.network = response, response
        self.train, self.validation, self.seed = train, validation, seed
        self.options = options or DetectorOptions()

    @property
    def measure(self) -> Measure:
        """Chance is that of random locations and scores; three of four regions show a point."""
        overlap = self._random_overlap()
        what = "overlap error of the locations in two views, plus 1 - PR-AUC of the scores of points and empty regions"
        return Measure(what, float(overlap.mean()) + 0.25, len(overlap))

    def _random_overlap(self) -> Tensor:
        """Overlap errors (N,) of random locations."""
        generator = torch.Generator().manual_seed(self.seed)
        count = min(self.options.validation_quadruplets, self.validation.num_points)
        angle = draw_angle(generator, count, 4, self.options.full_circle)
        batch = {"angle": angle, "xy": draw_shift(generator, count, 4)}
        # the score map covers the central half of the patch
        return self._overlap(batch, torch.rand((count, 4, 2), generator=generator) - 0.5)

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        """Draw quadruplets of patches and where the point lies in them.

        Returns:
            P1..P4 as the detector sees them (N, 4, 48, 48), the position of the point in P1..P3 (N, 4, 2), their
            rotation (N, 4), and the first of them as the descriptor sees them (N, k, 128, 128). The 48 pixels are cut
            from the image, not from the 128: at run time the detector sees the resized image too.

        """
        o = self.options
        return self._batch(self.train, self.train.draw(generator, o.quadruplets * o.mining_ratio), generator)

    def _batch(self, sampler: QuadrupletSampler, drawn: Quadruplets, generator: Generator) -> dict[str, Tensor]:
        count = len(drawn.image)
        angle = draw_angle(generator, count, 4, self.options.full_circle)
        shift = draw_shift(generator, count, 4)
        shift[:, 3] = 0  # there is no point in P4 that could be off
        small = sampler.moved_patches(drawn, (0, 1, 2, 3), angle, shift, generator, DETECTOR_SIZE)
        batch = {"patches": small, "xy": shift, "angle": angle}
        if self.described:
            k = self.described
            branches = tuple(range(k))
            batch["big"] = sampler.moved_patches(drawn, branches, angle[:, :k], shift[:, :k], generator)
        return batch

    def mine(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the hardest quadruplets."""
        keep = self.options.quadruplets
        return mine(batch, lambda part: self._losses(part)[0], keep, keep)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean over quadruplets (paper Eq. 8)."""
        losses, scores = self._losses(batch)
        positive, negative = scores.detach()[:, :3].mean(), scores.detach()[:, 3].mean()
        return losses.mean(), {"score_positive": float(positive), "score_negative": float(negative)}

    def _losses(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss (N,) and scores of P1..P4 (N, 4), with gradient."""
        xy, scores = self._locate(batch)
        return detector_loss(scores, self._pair(batch, xy), self.options.gamma), scores

    @abstractmethod
    def _pair(self, batch: dict[str, Tensor], xy: Tensor) -> Tensor:
        """Loss (N,) of the pairs P1, P2, whose soft maxima lie at ``xy``."""

    def _locate(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        patches = batch["patches"]
        xy, score = locate(self.response, patches.flatten(0, 1)[:, None])
        return xy.float().view(len(patches), 4, 2), score.float().view(len(patches), 4)

    def _overlap(self, batch: dict[str, Tensor], xy: Tensor) -> Tensor:
        # both offsets in the frame of the image: undo the rotation of the patch
        off = [rotate_offsets(xy[:, i] - batch["xy"][:, i], -batch["angle"][:, i]) for i in (0, 1)]
        return overlap_loss(off[0], off[1])

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Overlap error of held-out pairs plus 1 - PR-AUC of the scores of P1..P3 against P4."""
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.validation.draw(generator, self.options.validation_quadruplets)
        batch = to_device_of(self.network, self._batch(self.validation, drawn, generator))
        xy, scores = self._locate(batch)
        is_point = torch.ones_like(scores, dtype=torch.bool)
        is_point[:, 3] = False
        overlap = float(self._overlap(batch, xy).mean())
        area = precision_area(-scores.flatten(), is_point.flatten())
        return {"error": overlap + 1 - area, "overlap_error": overlap, "pr_auc": area} | self._more(batch, xy)

    def _more(self, batch: dict[str, Tensor], xy: Tensor) -> dict[str, float]:
        return {}


class OverlapDetectorStage(_DetectorStage):
    """Pre-train the detector: the proposals in two views of a point have to overlap (paper Eq. 11).

    Args:
        response: the detector network.
        train: training data.
        validation: held-out data.
        options: options of the stage.
        seed: seed of the validation quadruplets.

    """

    name = "detector_overlap"

    def _pair(self, batch: dict[str, Tensor], xy: Tensor) -> Tensor:
        return self._overlap(batch, xy)


class PaperDetectorStage(_DetectorStage):
    """Train the detector through the frozen orientation and descriptor (paper Eq. 10).

    Args:
        response: the detector network.
        orientation: trained orientation network, frozen here.
        descriptor: trained descriptor, frozen here.
        train: training data.
        validation: held-out data.
        options: options of the stage.
        seed: seed of the validation quadruplets.

    """

    name = "detector"
    described = 2

    def __init__(
        self,
        response: LIFTResponse,
        orientation: nn.Module,
        descriptor: nn.Module,
        train: QuadrupletSampler,
        validation: QuadrupletSampler,
        options: DetectorOptions | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(response, train, validation, options, seed)
        self.orientation, self.descriptor = orientation, descriptor
        self._freeze()

    @property
    def measure(self) -> Measure:
        """By chance the locations have to overlap, and the descriptor to be the nearest of all."""
        overlap = self._random_overlap()
        chance = float((overlap <= 0.5).float().mean()) / len(overlap)
        what = f"pairs whose locations do not overlap, or with a wrong nearest neighbour among {len(overlap)}"
        return Measure(what, 1 - chance, len(overlap))

    def _freeze(self) -> None:
        freeze([self.orientation, self.descriptor])

    def _pair(self, batch: dict[str, Tensor], xy: Tensor) -> Tensor:
        return pair_loss(*self._descriptors(batch, xy, 2))

    def _descriptors(self, batch: dict[str, Tensor], xy: Tensor, branches: int) -> tuple[Tensor, ...]:
        patches = batch["big"][:, :branches].transpose(0, 1).flatten(0, 1)[:, None]
        positions = xy[:, :branches].transpose(0, 1).flatten(0, 1)
        theta = orient(self.orientation, patches, positions).float()
        return describe(self.descriptor, patches, positions, theta).float().chunk(branches)

    def _more(self, batch: dict[str, Tensor], xy: Tensor) -> dict[str, float]:
        d1, d2 = self._descriptors(batch, xy, 2)
        correct = nearest_is_correct(d1, d2) & (self._overlap(batch, xy) <= 0.5)
        return {"matched": float(correct.float().mean()), "error": 1 - float(correct.float().mean())}


class JointStage(PaperDetectorStage):
    """Fine-tune all three networks together; optional, it over-fits quickly (paper Sec. 4.4).

    To Eq. 8 it adds the hinge of P1 against P3, without which equal descriptors everywhere would be the optimum.
    """

    name = "joint"
    described = 3

    def _freeze(self) -> None:
        self.network = nn.ModuleDict(
            {"response": self.response, "orientation": self.orientation, "descriptor": self.descriptor}
        )
        self.network.requires_grad_(True)

    def _pair(self, batch: dict[str, Tensor], xy: Tensor) -> Tensor:
        d1, d2, d3 = self._descriptors(batch, xy, 3)
        return pair_loss(d1, d2) + descriptor_loss(d1, d3, torch.zeros(len(d1), dtype=torch.bool, device=d1.device))
