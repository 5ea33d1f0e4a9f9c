"""A dense response: keypoints that two views of a scene share, and that are matched correctly."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Generator, Tensor, nn

from kornia_lift.detector.scale_space import SCORE_BORDER
from kornia_lift.training.compact.dense.config import DenseConfig
from kornia_lift.training.compact.response.keypoints import NEAR, ChosenKeypoints, choose_keypoints
from kornia_lift.training.compact.response.levels import (
    LevelGrid,
    budget_threshold,
    keypoint_probabilities,
    moving_threshold,
    scale_space_maxima,
)
from kornia_lift.training.compact.response.matches import KeypointMatcher, mismatch_maps
from kornia_lift.training.lfnet.views import Views, ViewSource
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.stage import Measure
from kornia_lift.training.warped.degraded import with_degraded
from kornia_lift.training.warped.maxima import expected_repeatability

SIDES = ("first", "second")
THRESHOLD_WIDTH = 3.0  # scores this near to the threshold move it with them


class DenseResponseStage:
    """Train a dense response on pairs of views: two images of a scene, or an image and a warp of it.

    The loss is one minus the expected share of keypoints that the other view has too
    (:func:`~kornia_lift.training.warped.maxima.expected_repeatability`), where keypoints that are matched wrongly count
    as not found again.

    Args:
        network: the response.
        views: training pairs.
        validation: held-out pairs.
        config: options.
        matcher: matches keypoints as at run time; without it repeatability alone counts.
        seed: of the validation.

    """

    name = "response"
    divisible = False  # batch normalisation and the matches see all pairs

    def __init__(
        self,
        network: nn.Module,
        views: ViewSource,
        validation: ViewSource,
        config: DenseConfig | None = None,
        matcher: KeypointMatcher | None = None,
        seed: int = 0,
    ) -> None:
        self.network, self.seed = network, seed
        self.views, self.validation = views, validation
        self.config = config or DenseConfig()
        self.matcher = matcher
        self.grid = LevelGrid(self.config.size, 1)

    @property
    def measure(self) -> Measure:
        """Keypoints that the other view does not have, or that are matched wrongly."""
        what = "not found again within 3 pixels" if self.matcher is None else "not matched within 3 pixels"
        return Measure(f"keypoints of pairs of views {what}", 1.0, self.config.validation_pairs)

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> Views:
        c = self.config
        batch = self.views.draw(generator, c.pairs_per_batch)
        for name in SIDES:
            batch[name] = with_degraded(batch[name], batch[name], c.degraded, generator)
        density = c.fewest * (c.most / c.fewest) ** torch.rand(c.pairs_per_batch, generator=generator)
        return {**batch, "density": density}

    def loss(self, batch: Views) -> tuple[Tensor, dict[str, float]]:
        views = torch.cat([batch[name] for name in SIDES])
        with torch.autocast(views.device.type, enabled=False):  # differences of scores decide: no half precision
            scores = self.network(views).float()
        probability, chosen, common = self._choose(scores, batch)
        figures: dict[str, float] = {}
        worth: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.matcher is not None:
            repeated, matched = self.matcher(views, chosen, self._expected(chosen, batch))
            wrong = repeated & ~matched
            figures["mismatched"] = float(wrong.sum() / repeated.sum().clamp(min=1))
            first, second = mismatch_maps(self.grid, chosen.pixel, wrong)[0].chunk(2)
            worth = first, second
        one, two = probability.chunk(2)
        seen = common.chunk(2)
        tolerance = self.config.tolerance
        forth = expected_repeatability(one, two, batch["to_second"], seen[0], tolerance, worth[0])
        back = expected_repeatability(two, one, batch["to_first"], seen[1], tolerance, worth[1])
        mean = (forth + back) / 2
        return 1 - mean, {"repeatability": float(mean.detach()), **figures}

    def _choose(self, scores: Tensor, batch: Views) -> tuple[Tensor, ChosenKeypoints, Tensor]:
        """Probabilities of all pixels to become keypoints, those that do, and where they may; first views first."""
        c = self.config
        with torch.no_grad():
            common = torch.zeros_like(scores)
            inner = slice(SCORE_BORDER, -SCORE_BORDER)
            seen = torch.cat([batch[f"seen_{name}"] for name in SIDES])[:, None]
            common[..., inner, inner] = seen[..., inner, inner].to(common)
            area = common.sum((1, 2, 3))
            budget = (torch.cat([batch["density"]] * 2).to(area) * area / 1e6).round().clamp(min=1).long()
            fixed = [scores.detach()]
            maxima = scale_space_maxima(fixed, c.radius)
            limit = budget_threshold(fixed, maxima, [common], budget)
        moving = moving_threshold([scores], maxima, [common], limit, limit.new_tensor(THRESHOLD_WIDTH), 1)
        probability = keypoint_probabilities([scores], moving, [common], c.soft_radius)[0]
        most = max(int(budget.max()), 1)
        return probability, choose_keypoints(self.grid, [scores.detach()], maxima, [common], limit, most), common

    def _expected(self, chosen: ChosenKeypoints, batch: Views) -> list[tuple[Tensor, Tensor]]:
        """Where the other views show the keypoints; see :meth:`KeypointMatcher.forward`."""
        found = []
        for xy, pixel, name, other in zip(chosen.xy.chunk(2), chosen.pixel.chunk(2), SIDES, SIDES[::-1], strict=True):
            to_other = batch[f"to_{other}"].flatten(1, 2)
            at = to_other.gather(1, pixel[..., None].expand(-1, -1, 2)).nan_to_num(nan=-1e4)
            seen = batch[f"seen_{name}"].flatten(1).gather(1, pixel)
            found.append((at, torch.where(seen, NEAR, -1.0).to(xy)))
        return found

    @cached_property
    def _held_out(self) -> list[Views]:
        """The batches of every validation."""
        c, generator = self.config, torch.Generator().manual_seed(self.seed)
        counts = [len(part) for part in torch.arange(c.validation_pairs).split(c.pairs_per_batch)]
        density = math.sqrt(c.fewest * c.most)
        return [self.validation.draw(generator, n) | {"density": torch.full((n,), density)} for n in counts]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of the keypoints of held-out pairs that are not matched, or without a matcher not found again."""
        self.network.eval()
        found = [self._score_pairs(to_device_of(self.network, views)) for views in self._held_out]
        self.network.train()
        total = max(sum(each["keypoints"] for each in found), 1)
        shares = {name: sum(each[name] for each in found) / total for name in found[0] if name != "keypoints"}
        return {"error": 1 - shares["repeated_3px" if self.matcher is None else "matched"], **shares}

    def _score_pairs(self, batch: Views) -> dict[str, int]:
        """Count the keypoints of the first views, and those that are found again, one to one, and matched."""
        views = torch.cat([batch[name] for name in SIDES])
        _, chosen, _ = self._choose(self.network(views).float(), batch)
        expected = self._expected(chosen, batch)
        at, within = expected[0]
        count = len(at)
        ours, theirs = chosen.valid[:count] & (within > 0), chosen.valid[count:]
        apart = torch.cdist(at, chosen.xy[count:]).masked_fill(~(ours[:, :, None] & theirs[:, None]), math.inf)
        nearest, partner = apart.min(2)
        mutual = apart.argmin(1).gather(1, partner) == torch.arange(partner.shape[1], device=partner.device)
        figures = {"keypoints": int(ours.sum())}
        for name, limit in (("repeated", 1.0), ("repeated_3px", NEAR)):
            figures[name] = int((ours & mutual & (nearest < limit)).sum())
        if self.matcher is not None:
            figures["matched"] = int((self.matcher(views, chosen, expected)[1][:count] & ours).sum())
        return figures
