"""LIFT's response: keypoints of any size that are found again at their position and at their size."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.compact.response.keypoints import (
    ChosenKeypoints,
    choose_keypoints,
    distances_of_pairs,
    found_again,
)
from kornia_lift.training.compact.response.levels import (
    LevelGrid,
    budget_threshold,
    expected_repeatability,
    keypoint_probabilities,
    land,
    moving_threshold,
    scale_space_maxima,
    seen_by_other,
)
from kornia_lift.training.compact.response.matches import (
    KeypointMatcher,
    expected_by_homography,
    mismatch_maps,
)
from kornia_lift.training.stage import Measure
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig
from kornia_lift.training.warped.stage import VALIDATION_BUDGET, mean_on_crops
from kornia_lift.training.warped.windows import loss_by_windows

SOFTNESS = 24.0  # score of the last chosen keypoint above the median, in units of the soft decisions
THRESHOLD_WIDTH = 3.0  # in units of the soft decisions: keypoints this near to the threshold move it with them
SCALE_WEIGHT = 1e-3  # keeps the scores, whose scale nothing else decides, near 1
SLOTS = 2  # most keypoints of a crop, as a multiple of the largest budget, which the crops of an image share

#: Resolutions within an octave and a half, to which the levels add more, and ratios of scale up to 2.
SCALE_CROPS = CropConfig(
    size=256, per_image=4, min_step=0.6, max_step=2.0, scale=2.0, stretch=1.6, perspective=0.2, shift=16.0
)


class ScaleSpaceResponseStage:
    """Train LIFT's response on pairs of crops that differ by scale, rotation and slant.

    The crops are searched as images are at run time: on all levels of a pyramid, where the strongest keypoint of a
    location suppresses the others, and the crops of an image share one threshold, as its parts do. Two terms: the
    expected repeatability of the keypoints that would be chosen
    (:func:`~kornia_lift.training.compact.response.levels.expected_repeatability`), and the distance between the
    sub-pixel positions of those that are found in both crops. Decisions are soft relative to how far the chosen
    keypoints stand out, so that the network cannot gain by raising all of its scores.

    Args:
        network: the response.
        crops: training crops, such as of :data:`SCALE_CROPS`.
        validation: held-out crops.
        images: images of a batch.
        budget: smallest and largest number of keypoints of a crop, in the mean over those of its image, log-uniform.
        grid: levels of the crops.
        tolerance: in pixels of the level.
        radius: in pixels of the level, of the soft suppression.
        precision_weight: factor of the mean distance in pixels of the level.
        matcher: when given, keypoints that it matches wrongly count as not found again.
        pixels_per_crop: pixels, in the mean over the batch, whose gradient is followed into the network; they carry
            nine tenths of it.
        seed: seed of the validation batches.

    Raises:
        ValueError: if the crops have another size than the grid, or validation another number of crops of an image.

    """

    name = "response"
    divisible = False  # means over the batch

    def __init__(
        self,
        network: LIFTResponse,
        crops: WarpedCrops,
        validation: WarpedCrops,
        images: int = 3,
        budget: tuple[int, int] = (15, 150),
        grid: LevelGrid | None = None,
        tolerance: float = 0.7,
        radius: int = 3,
        precision_weight: float = 0.15,
        matcher: KeypointMatcher | None = None,
        pixels_per_crop: int = 250,
        seed: int = 0,
    ) -> None:
        grid = grid or LevelGrid(crops.config.size)
        per_image = crops.config.per_image
        for drawn in (crops, validation):
            if (drawn.config.per_image, drawn.config.size) != (per_image, grid.size):
                raise ValueError(
                    f"the stage 'response' expects {per_image} crops of {grid.size} pixels of each image, got "
                    f"per_image {drawn.config.per_image} and size {drawn.config.size}"
                )
        self.network: nn.Module = network
        self.response = network
        self.crops, self.validation = crops, validation
        self.images, self.per_image, self.budget, self.seed = images, per_image, budget, seed
        self.grid = grid
        self.tolerance, self.radius, self.precision_weight = tolerance, radius, precision_weight
        self.matcher, self.pixels_per_crop = matcher, pixels_per_crop

    @property
    def measure(self) -> Measure:
        """Keypoints that the other crop does not have."""
        count = VALIDATION_BUDGET * len(self.validation)
        return Measure("keypoints of warped crops not found again within 1 pixel of their level", 1.0, count)

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        batch = self.crops.draw(generator, self.images)
        low, high = self.budget
        budget = low * (high / low) ** torch.rand(self.images, generator=generator)
        return {**batch, "budget": budget.round().long().repeat_interleave(self.per_image)}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        crops = torch.cat([batch["first"], batch["second"]])
        with torch.no_grad(), torch.autocast(crops.device.type, enabled=False):
            levels = self.grid.levels(crops)
        keep = self.pixels_per_crop * len(crops)
        return loss_by_windows(self.response, levels, lambda scores: self.warped_loss(scores, batch), keep)

    def _choose(
        self, scores: list[Tensor], common: list[Tensor], budget: Tensor
    ) -> tuple[list[Tensor], ChosenKeypoints]:
        """Probabilities of all pixels (per level), and the keypoints that are chosen."""
        with torch.no_grad():
            fixed = [score.detach() for score in scores]
            maxima = scale_space_maxima(fixed, self.radius)
            limit = budget_threshold(fixed, maxima, common, budget, self.per_image)
            median = torch.cat([score.flatten(1) for score in fixed], 1).median(1).values.mean()
            limit = limit.clamp(min=median)  # crops may have fewer maxima than the budget
            unit = ((limit.mean() - median) / SOFTNESS).clamp(min=1e-4)
        moving = moving_threshold(scores, maxima, common, limit, THRESHOLD_WIDTH * unit, self.per_image)
        # so that the gradient knows: scaling or shifting all scores changes no keypoint
        level = torch.cat([score.flatten() for score in scores]).mean()
        unit = unit + (moving.mean() - limit.mean() - (level - level.detach())) / SOFTNESS
        p = keypoint_probabilities([score / unit for score in scores], moving / unit, common, self.radius)
        return p, choose_keypoints(self.grid, scores, maxima, common, limit, SLOTS * self.budget[1])

    def warped_loss(self, scores: list[Tensor], batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of the score maps of all levels (2 N, 1, side, side), first crops first."""
        grid = self.grid
        with torch.no_grad():
            scorable = [grid.scorable(batch[f"inside_{name}"]) for name in ("first", "second")]
            landings = [land(grid, batch[f"to_{name}"]) for name in ("second", "first")]
            seen = [seen_by_other(grid, there, at) for there, at in zip(reversed(scorable), landings, strict=True)]
            common = [torch.cat([scorable[side][n] * seen[side][n] for side in (0, 1)]) for n in range(grid.count)]
        p, chosen = self._choose(scores, common, torch.cat([batch["budget"]] * 2))
        first, second = ([each.chunk(2)[side] for each in p] for side in (0, 1))
        figures: dict[str, float] = {}
        worth: list[list[Tensor] | None] = [None, None]
        if self.matcher is not None:
            crops = torch.cat([batch["first"], batch["second"]])
            expected = expected_by_homography(chosen, batch["to_second"], batch["to_first"])
            repeated, matched = self.matcher(crops, chosen, expected)
            wrong = repeated & ~matched
            figures["mismatched"] = float(wrong.sum() / repeated.sum().clamp(min=1))
            maps = mismatch_maps(grid, chosen.pixel, wrong)
            worth = [[each.chunk(2)[side] for each in maps] for side in (0, 1)]
        forth = expected_repeatability(grid, first, second, landings[0], seen[0], self.tolerance, worth[0])
        back = expected_repeatability(grid, second, first, landings[1], seen[1], self.tolerance, worth[1])
        distance = distances_of_pairs(grid, scores, common, chosen, batch["to_second"])
        deviation = torch.stack([score.std() for score in scores]).mean()
        loss = 1 - (forth + back) / 2 + self.precision_weight * distance + SCALE_WEIGHT * deviation.log().square()
        if torch.is_grad_enabled():
            figures |= {"repeatability": float((forth + back).detach() / 2), "distance_px": float(distance.detach())}
            return loss, figures
        return loss, figures | found_again(self.grid, chosen, batch["to_second"])

    def validate(self, batches: int = 6) -> dict[str, float]:
        """Share of keypoints that are not found again (``error``), and more of :func:`found_again`."""
        figures = mean_on_crops(self, self.validation, self.images, batches)
        return {"error": 1 - figures["repeated"], **figures}
