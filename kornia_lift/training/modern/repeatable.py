"""Modern recipe, detector: maximise the expected repeatability of the keypoints that would be chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.warped.crops import WarpedCrops, common_view
from kornia_lift.training.warped.maxima import (
    budget_threshold,
    expected_repeatability,
    keypoint_probability,
    repeated_maxima,
)
from kornia_lift.training.warped.stage import WarpedCropsStage


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
        with torch.autocast(images.device.type, enabled=False):  # differences of scores decide: no half precision
            with torch.no_grad():
                images = self.response.normalize(images)
                score = self.response.score_normalized(images).float()
            if not torch.is_grad_enabled():
                return self.crop_loss(score, batch)
            score.requires_grad_()
            loss, figures = self.crop_loss(score, batch)
            (gradient,) = torch.autograd.grad(loss, score)
            return self._through_network(images, gradient, loss.detach()), figures

    def _through_network(self, images: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
        """A scalar with the value of the loss, whose gradient reaches the network where it matters.

        Few pixels, those around candidates, carry the gradient, and the backward pass of a dense 25x25 convolution is
        ten times slower than scoring these few windows again.
        """
        keep = min(self.pixels_per_crop * len(images), gradient.numel())
        strongest = gradient.flatten().abs().topk(keep).indices
        image, rest = strongest // gradient[0].numel(), strongest % gradient[0].numel()
        y, x = rest // gradient.shape[-1], rest % gradient.shape[-1]
        half = FILTER_SIZE // 2
        padded = F.pad(images[:, 0], (half,) * 4, mode="replicate")
        windows = padded.unfold(1, FILTER_SIZE, 1).unfold(2, FILTER_SIZE, 1)[image, y, x]
        weighted = (self.response.score_windows(windows[:, None]) * gradient.flatten()[strongest]).sum()
        return value + weighted - weighted.detach()

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
