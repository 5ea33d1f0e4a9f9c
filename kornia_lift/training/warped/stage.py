"""Common part of the stages that train a response on pairs of warped crops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.stage import Measure
from kornia_lift.training.warped.crops import WarpedCrops

VALIDATION_BUDGET = 60  # keypoints: of an image over all of its crops, or of a crop, as the stage counts them


class WarpedCropsStage(ABC):
    """Common part of the stages that train a response on pairs of warped crops, without any other network.

    Args:
        network: the response.
        crops: training crops.
        validation: held-out crops.
        num_images: images per batch, each with several crops.
        budget: smallest and largest number of keypoints per image, over all of its crops; drawn for every batch,
            so that the ranking is right at any cut.
        tolerance: standard deviation, in pixels, of where a keypoint may be found again.
        seed: seed of the validation batches.

    """

    name = "response"
    divisible = False  # the budget and the means are those of whole images, each with several crops

    def __init__(
        self,
        network: nn.Module,
        crops: WarpedCrops,
        validation: WarpedCrops,
        num_images: int,
        budget: tuple[int, int],
        tolerance: float,
        seed: int,
    ) -> None:
        self.network = network
        self.crops, self.validation = crops, validation
        self.num_images, self.budget = num_images, budget
        self.tolerance, self.seed = tolerance, seed

    @abstractmethod
    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Score the crops of a batch and return what :meth:`crop_loss` makes of the scores."""

    @abstractmethod
    def crop_loss(self, score: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Return the loss of score maps (2 N, 1, S, S), first crops first; without gradient :func:`repeated_maxima`."""

    @cached_property
    def measure(self) -> Measure:
        """Chance is the share of the maxima of white noise that are found again."""
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.validation.draw(generator, self.num_images) | {"budget": torch.full((1,), VALIDATION_BUDGET)}
        with torch.no_grad():
            noise = torch.rand((2, *drawn["first"].shape), generator=generator).flatten(0, 1)
            found = self.crop_loss(noise, drawn)[1]["repeated_1px"]
        count = VALIDATION_BUDGET * len(self.validation)
        return Measure("keypoints of warped crops not found again within 1 pixel", 1 - found, count)

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        batch = self.crops.draw(generator, self.num_images)
        budget = torch.randint(self.budget[0], self.budget[1] + 1, (1,), generator=generator)
        # the first dimension is the sample everywhere
        return {**batch, "budget": budget.expand(len(batch["first"]))}

    def validate(self, batches: int = 8) -> dict[str, float]:
        found = figures_on_crops(self, self.validation, self.num_images, batches)
        self.parts = [1 - figures["repeated_1px"] for figures in found]
        figures = _mean(found)
        return {"error": 1 - figures["repeated_1px"], **figures}


class _LearnsFromCrops(Protocol):
    network: nn.Module
    seed: int

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]: ...


def mean_on_crops(stage: _LearnsFromCrops, crops: WarpedCrops, num_images: int, batches: int) -> dict[str, float]:
    """Average what :func:`figures_on_crops` returns."""
    return _mean(figures_on_crops(stage, crops, num_images, batches))


def _mean(found: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(figures[key] for figures in found) / len(found) for key in found[0]}


@torch.no_grad()
def figures_on_crops(
    stage: _LearnsFromCrops, crops: WarpedCrops, num_images: int, batches: int
) -> list[dict[str, float]]:
    """Return the loss of a stage, and its figures, on held-out batches that are the same every time.

    Args:
        stage: whose network is in eval mode meanwhile.
        crops: held-out crops.
        num_images: images of a batch.
        batches: number of batches, each with a budget of :data:`VALIDATION_BUDGET`.

    Returns:
        ``loss`` and the figures of the stage, of every batch.

    """
    stage.network.eval()
    generator = torch.Generator().manual_seed(stage.seed)
    found = []
    for _ in range(batches):
        drawn = crops.draw(generator, num_images)
        drawn["budget"] = torch.full((len(drawn["first"]),), VALIDATION_BUDGET)
        loss, figures = stage.loss(to_device_of(stage.network, drawn))
        found.append({"loss": loss.item(), **figures})
    stage.network.train()
    return found
