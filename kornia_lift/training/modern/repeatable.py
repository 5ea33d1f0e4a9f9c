"""Modern recipe, detector: maximise the expected repeatability of the keypoints that would be chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.warped.crops import WarpedCrops, common_view
from kornia_lift.training.warped.maxima import (
    budget_threshold,
    expected_repeatability,
    keypoint_probability,
    repeated_maxima,
)
from kornia_lift.training.warped.stage import WarpedCropsStage
from kornia_lift.training.warped.windows import loss_by_windows


class RepeatableDetectorStage(WarpedCropsStage):
    """Train LIFT's response for repeatability; see :class:`WarpedCropsStage`.

    Args:
        network: the response.
        crops: training crops.
        validation: held-out crops.
        num_images: images per batch.
        budget: keypoints per image.
        tolerance: in pixels.
        pixels_per_crop: pixels, in the mean over the batch, whose gradient is followed into the network.
        seed: seed of the validation batches.

    """

    def __init__(
        self,
        network: LIFTResponse,
        crops: WarpedCrops,
        validation: WarpedCrops,
        num_images: int = 4,
        budget: tuple[int, int] = (60, 250),
        tolerance: float = 0.7,
        pixels_per_crop: int = 300,
        seed: int = 0,
    ) -> None:
        super().__init__(network, crops, validation, num_images, budget, tolerance, seed)
        self.pixels_per_crop = pixels_per_crop
        self.response = network

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images = torch.cat([batch["first"], batch["second"]])
        keep = self.pixels_per_crop * len(images)
        return loss_by_windows(self.response, [images], lambda scores: self.crop_loss(scores[0], batch), keep)

    def crop_loss(self, score: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        first, second = score.chunk(2)
        num_images, budget = self.num_images, int(batch["budget"][0])
        view = common_view(batch)
        common, visible = view.common, view.visible
        p = [
            keypoint_probability(s, budget_threshold(s, m, num_images, budget), m)
            for s, m in zip((first, second), common, strict=True)
        ]
        forth = expected_repeatability(p[0], p[1], view.to_second, visible[0], self.tolerance)
        back = expected_repeatability(p[1], p[0], view.to_first, visible[1], self.tolerance)
        loss = 1 - (forth + back) / 2
        if torch.is_grad_enabled():
            return loss, {}
        return loss, repeated_maxima((first, second), common, batch["to_second"], num_images, budget)
