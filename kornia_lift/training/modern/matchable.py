"""Modern recipe, detector: rank first the keypoints that the whole pipeline matches, and keep their peaks sharp."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.modern.ranking import RankingSet, concordance, ranking_loss
from kornia_lift.training.modern.repeatable import RepeatableDetectorStage
from kornia_lift.training.stage import Measure


class MatchableDetectorStage:
    """Train the response on its own detections, labelled by matching real pairs and warped images.

    Detections that match where the geometry says are pushed above those of the same image that do not. What matters is
    the order within an image, since the best of each image are kept. Nothing is said about edges, occlusion boundaries
    or repeated texture: they lose rank because they do not match. Every step adds the repeatability of warped crops.

    Args:
        response: the network to train.
        repeatable: stage whose loss is added; it trains the same network.
        ranking: labelled detections of the training images.
        validation: those of held-out images.
        weight: factor of the ranking loss.
        temperature: differences of scores are divided by it before they are compared.
        per_image: detections drawn of each image; one image for each pair of crops.

    """

    name = "response"
    divisible = False  # detections are compared with those of the same image

    def __init__(
        self,
        response: LIFTResponse,
        repeatable: RepeatableDetectorStage,
        ranking: RankingSet,
        validation: RankingSet,
        weight: float = 0.5,
        temperature: float = 10.0,
        per_image: int = 256,
    ) -> None:
        self.network: nn.Module = response
        self.response = response
        self.repeatable = repeatable
        self.ranking = ranking
        self.validation = validation
        self.weight = weight
        self.temperature = temperature
        self.per_image = per_image

    @property
    def measure(self) -> Measure:
        """That of the repeatability."""
        return self.repeatable.measure

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        crops = self.repeatable.batch(generator, step)
        # the first dimension is the sample everywhere
        return crops | self.ranking.draw(generator, len(crops["first"]), self.per_image)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        repeated, figures = self.repeatable.loss(batch)
        score = self._score(batch["window"]) / self.temperature
        ranked = ranking_loss(score, batch["label"], batch["rank_weight"])
        return repeated + self.weight * ranked, figures | {"ranking_loss": float(ranked.detach())}

    def _score(self, windows: Tensor) -> Tensor:
        """Score windows (B, N, 625); (B, N)."""
        images, count, _ = windows.shape
        with torch.autocast(windows.device.type, enabled=False):  # differences of scores decide: no half precision
            scores = self.response.score_windows(windows.reshape(-1, 1, FILTER_SIZE, FILTER_SIZE))
        return scores.view(images, count)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Repeatability of held-out crops, and how the detections of held-out images are ordered.

        ``concordance`` is the share of pairs of detections of one image that are in the order of their labels. It
        does not decide: its detections are those of the response before this stage, and count less the more that moves.
        """
        figures = self.repeatable.validate()
        self.parts = self.repeatable.parts
        self.network.eval()
        shares = []
        for image in range(len(self.validation)):
            part = slice(*self.validation.start[image : image + 2].tolist())
            score = self._score(self.validation.windows[part].to(self.response.conv.weight)[None]).cpu()
            shares.append(concordance(score, self.validation.label[part][None], self.validation.weight[part][None]))
        self.network.train()
        return figures | {"concordance": sum(shares) / max(len(shares), 1)}
