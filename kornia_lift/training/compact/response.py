"""A response for compact models: corners of many sizes that are found again within a fraction of a pixel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import read_own
from kornia_lift.detector.refinement import newton_step
from kornia_lift.networks.compact_response import CompactResponse
from kornia_lift.training.warped.crops import WarpedCrops, common_view
from kornia_lift.training.warped.maxima import (
    budget_threshold,
    chosen_maxima,
    expected_repeatability,
    keypoint_probability,
    mutual_nearest,
    repeated_maxima,
)
from kornia_lift.training.warped.stage import WarpedCropsStage

SOFTNESS = 24.0  # the score that the last chosen keypoint has over the median, in units of the soft decisions
SCALE_WEIGHT = 1e-3  # keeps the scores, whose scale nothing else decides, near 1
FARTHEST = 2.0  # pixels: what lies farther away is another keypoint
WARM_RATE = 1e-2
CORNER_SIGMA = 1.5  # pixels


class CompactResponseStage(WarpedCropsStage):
    """Train the compact response on pairs of warped crops: keypoints that are found again, and precisely.

    Two terms: the expected repeatability of the keypoints that would be chosen, as for LIFT's response
    (:func:`~kornia_lift.training.warped.maxima.expected_repeatability`), and the distance between the sub-pixel
    positions of those that are found in both crops. Decisions are soft relative to how far the chosen keypoints stand
    out, so that the network cannot gain by raising all of its scores.

    Args:
        network: the response.
        crops: training crops.
        validation: held-out crops.
        num_images: images per batch.
        budget: keypoints per image.
        tolerance: in pixels.
        radius: in pixels, of the soft non-maximum suppression.
        precision_weight: factor of the mean distance in pixels.
        seed: seed of the validation batches.

    """

    def __init__(
        self,
        network: CompactResponse,
        crops: WarpedCrops,
        validation: WarpedCrops,
        num_images: int = 2,
        budget: tuple[int, int] = (80, 400),
        tolerance: float = 0.7,
        radius: int = 3,
        precision_weight: float = 0.15,
        seed: int = 0,
    ) -> None:
        super().__init__(network, crops, validation, num_images, budget, tolerance, seed)
        self.response = network
        self.radius = radius
        self.precision_weight = precision_weight

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            images = self.response.normalize(torch.cat([batch["first"], batch["second"]]))
        score = self.response.score_normalized(images).float()  # in the precision of the loop, but for the last layers
        with torch.autocast(score.device.type, enabled=False):
            return self.crop_loss(score, batch)

    def crop_loss(self, score: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        scores = tuple(score.chunk(2))
        budget, view = int(batch["budget"][0]), common_view(batch)
        limits = [budget_threshold(s, m, self.num_images, budget) for s, m in zip(scores, view.common, strict=True)]
        with torch.no_grad():
            median = score.flatten(1).median(1).values.mean()
            limits = [limit.clamp(min=median) for limit in limits]  # crops may have fewer maxima than the budget
            unit = ((torch.cat(limits).mean() - median) / SOFTNESS).clamp(min=1e-4) / score.abs().mean()
        unit = unit * score.abs().mean()  # the gradient knows that larger scores change nothing
        p = [
            keypoint_probability(s / unit, limit / unit, mask, self.radius)
            for s, limit, mask in zip(scores, limits, view.common, strict=True)
        ]
        forth = expected_repeatability(p[0], p[1], view.to_second, view.visible[0], self.tolerance)
        back = expected_repeatability(p[1], p[0], view.to_first, view.visible[1], self.tolerance)
        distance = _distance(scores, limits, view.common, batch["to_second"])
        loss = 1 - (forth + back) / 2 + self.precision_weight * distance + SCALE_WEIGHT * score.std().log().square()
        if torch.is_grad_enabled():
            return loss, {"distance_px": float(distance.detach())}
        found = repeated_maxima((scores[0], scores[1]), view.common, batch["to_second"], self.num_images, budget)
        return loss, found


def _distance(
    scores: Sequence[Tensor], limits: Sequence[Tensor], common: Sequence[Tensor], to_second: Tensor
) -> Tensor:
    """Mean distance in pixels of the sub-pixel maxima that are found in both crops; its gradient moves the peaks."""
    sides = []
    for score, limit, mask in zip(scores, limits, common, strict=True):
        at = chosen_maxima(score.detach(), mask, limit)
        around = read_own(score[:, 0], at)
        with torch.no_grad():
            trusted = (newton_step(around)[0].abs() < 1).all(1)
        step, _ = newton_step(around[trusted])
        at = at.take(trusted)
        sides.append((at.image, torch.stack([at.col, at.row], 1) + step[:, :2]))
    distances = []
    for n in range(len(to_second)):
        one, two = (xy[image == n] for image, xy in sides)
        if not len(one) or not len(two):
            continue
        moved, found_again = mutual_nearest(one, two, to_second[n])
        square = (moved - found_again).square().sum(1)
        square = square[square < FARTHEST**2]
        distances.append((square + 0.01).sqrt() - 0.1)  # smooth at 0
    return torch.cat(distances).mean() if distances else scores[0].sum() * 0


def init_as_corner_detector(network: CompactResponse, crops: WarpedCrops, steps: int = 100, seed: int = 1) -> None:
    """Start from corners: fit the smaller eigenvalue of the structure tensor (Shi and Tomasi, CVPR 1994).

    From random weights the score has no peaks that repeatability could sharpen.
    """
    optimizer = torch.optim.AdamW(network.parameters(), WARM_RATE)
    generator = torch.Generator().manual_seed(seed)
    weight = next(network.parameters())
    network.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = WARM_RATE * (1 - step / steps)
        with torch.no_grad():
            drawn = crops.draw(generator, 1)
            z = network.normalize(torch.cat([drawn["first"], drawn["second"]]).to(weight))
            target = _corner_score(z)
        inner = slice(12, -12)
        loss = F.mse_loss(network.score_normalized(z)[..., inner, inner], target[..., inner, inner])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()


def _corner_score(z: Tensor) -> Tensor:
    """Root of the smaller eigenvalue of the structure tensor, shape of the input (N, 1, H, W)."""
    dy, dx = torch.gradient(z, dim=(2, 3))
    at = torch.arange(-4, 5, dtype=z.dtype, device=z.device)
    kernel = torch.exp(-0.5 * (at / CORNER_SIGMA) ** 2)
    kernel = kernel / kernel.sum()
    products = torch.cat([dx * dx, dy * dy, dx * dy])
    smooth = F.conv2d(products, kernel.view(1, 1, 1, -1), padding=(0, 4))
    xx, yy, xy = F.conv2d(smooth, kernel.view(1, 1, -1, 1), padding=(4, 0)).chunk(3)
    smaller = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square() + 1e-12).sqrt()
    return 8 * (smaller.clamp(min=0) + 1e-4).sqrt()
