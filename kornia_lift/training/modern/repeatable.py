"""Modern recipe, detector: maximise the expected repeatability of the keypoints that would be chosen."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kornia_lift.detector.extrema import Pixels, max_filter, read_own
from kornia_lift.detector.refinement import newton_step
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.crops import WarpedCrops, sample_pixels, warp_grid


def local_maxima(score: Tensor, radius: int = 3) -> Tensor:
    """Where a score map (N, 1, H, W) attains the maximum of its (2 radius + 1)^2 window; boolean."""
    return score == max_filter(score, radius)


def keypoint_probability(score: Tensor, threshold: Tensor, inside: Tensor, radius: int = 4) -> Tensor:
    r"""Probability that a pixel becomes a keypoint: it wins its window, and it is among the best of the image.

    .. math:: p(x) = \frac{e^{s(x)}}{\sum_{|y-x|\le r} e^{s(y)}} \cdot \sigma(s(x) - t)

    Args:
        score: score maps s, shape (N, 1, H, W).
        threshold: t, shape (N,): the score that the budget of keypoints leaves just outside.
        inside: weight of each pixel, 0 where it cannot be chosen, shape (N, 1, H, W).
        radius: r of the soft non-maximum suppression. Two keypoints are more than r apart, so that with a tolerance
            below r / 2 none of the other image can serve both: the expected repeatability counts one-to-one.

    Returns:
        p, shape (N, 1, H, W).

    """
    # float64 holds exp of -700: a plain sum over the window, five times faster than a logsumexp of each window
    exponent = score.double() - score.detach().amax((1, 2, 3), keepdim=True)
    exponential = exponent.clamp(min=-700).exp()
    wins = (exponential / _window_sum(exponential, radius)).to(score.dtype)
    return wins * torch.sigmoid(score - threshold.view(-1, 1, 1, 1)) * inside


def _window_sum(x: Tensor, radius: int) -> Tensor:
    """Sum over square windows, first along rows, then along columns; the outside counts as 0."""
    window = 2 * radius + 1
    rows = F.avg_pool2d(x, (1, window), 1, (0, radius), divisor_override=1)
    return F.avg_pool2d(rows, (window, 1), 1, (radius, 0), divisor_override=1)


def budget_threshold(score: Tensor, inside: Tensor, num_images: int, budget: int) -> Tensor:
    """Score of the ``budget``-th best local maximum of each image, over all of its crops; shape (N,)."""
    candidates = score.detach().masked_fill(~local_maxima(score.detach()) | (inside == 0), -1e4)
    per_image = candidates.view(num_images, -1)
    best = per_image.topk(min(budget, per_image.shape[1]), dim=1).values[:, -1]
    return best.repeat_interleave(len(score) // num_images)


def expected_repeatability(
    probability: Tensor, other: Tensor, to_other: Tensor, visible: Tensor, tolerance: float = 0.7
) -> Tensor:
    r"""Share of the expected keypoints of one image that are found again in the other.

    .. math:: R = \frac{\sum_x p_1(x) v(x) \sum_y k(|y - W x|) p_2(y)}{\sum_x p_1(x) v(x)}

    with k a Gaussian of height 1 that says how far a keypoint may lie from where it should be.

    Args:
        probability: p1, shape (N, 1, H, W).
        other: p2, shape (N, 1, H, W).
        to_other: positions in the other image of the pixels of this one, shape (N, H, W, 2).
        visible: v, shape (N, 1, H, W).
        tolerance: standard deviation of k in pixels.

    Returns:
        R over the whole batch, a scalar in [0, 1].

    """
    found = _spread(_spread(other, tolerance, -1), tolerance, -2).clamp(max=1)
    again = sample_pixels(found, to_other)
    weight = probability * visible
    return (weight * again).sum() / weight.sum().clamp(min=1e-6)


def _spread(x: Tensor, tolerance: float, dim: int) -> Tensor:
    """Correlate with a Gaussian of height 1 along one dimension; the outside counts as 0."""
    reach = math.ceil(3 * tolerance)
    padded = F.pad(x, (reach, reach) if dim == -1 else (0, 0, reach, reach))
    # a sum of few shifted copies: the backward pass of a convolution with one channel is five times slower
    out = x
    for shift in range(1, reach + 1):
        weight = math.exp(-0.5 * (shift / tolerance) ** 2)
        before = padded.narrow(dim, reach - shift, x.shape[dim])
        after = padded.narrow(dim, reach + shift, x.shape[dim])
        out = out + weight * (before + after)
    return out


def init_as_blob_detector(network: LIFTResponse, sigma: float = 1.958, strength: float = 4.0) -> None:
    """Start from the magnitude of a Laplacian of Gaussian at the scale of the level, plus noise on all filters.

    GHH can express it exactly, max(z, -z); a random start reaches the same later.
    """
    offset = torch.arange(FILTER_SIZE, dtype=torch.float32) - FILTER_SIZE // 2
    square = (offset[:, None] ** 2 + offset[None, :] ** 2) / (2 * sigma**2)
    blob = (1 - square) * torch.exp(-square)
    blob = blob - blob.mean()
    blob = blob / blob.abs().sum() * strength
    with torch.no_grad():
        network.conv.weight.normal_(std=0.05 * float(blob.abs().max()))
        nn.init.zeros_(network.conv.bias)  # type: ignore[arg-type]
        network.conv.weight[0, 0] += blob
        network.conv.weight[1, 0] -= blob


class RepeatableDetectorStage:
    """Train the response on pairs of warped crops, without any other network.

    Args:
        network: the response.
        crops: training crops.
        validation: held-out crops.
        num_images: images per batch.
        min_budget: smallest number of keypoints per image, over all of its crops.
        max_budget: largest one; drawn anew for every batch, so that the ranking is right at any cut.
        tolerance: standard deviation, in pixels, of where a keypoint may be found again.
        pixels_per_crop: pixels, in the mean over the batch, whose gradient is followed into the network.
        seed: seed of the validation batches.

    """

    name = "response"
    divisible = False  # the budget and the means are those of whole images, each with several crops

    def __init__(
        self,
        network: LIFTResponse,
        crops: WarpedCrops,
        validation: WarpedCrops,
        num_images: int = 4,
        min_budget: int = 60,
        max_budget: int = 250,
        tolerance: float = 0.7,
        pixels_per_crop: int = 300,
        seed: int = 0,
    ) -> None:
        self.network: nn.Module = network
        self.pixels_per_crop = pixels_per_crop
        self.response = network
        self.crops = crops
        self.validation = validation
        self.num_images = num_images
        self.min_budget = min_budget
        self.max_budget = max_budget
        self.tolerance = tolerance
        self.seed = seed

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        batch = self.crops.draw(generator, self.num_images)
        budget = torch.randint(self.min_budget, self.max_budget + 1, (1,), generator=generator)
        # the first dimension is the sample everywhere
        return {**batch, "budget": budget.expand(len(batch["first"]))}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images = torch.cat([batch["first"], batch["second"]])
        with torch.autocast(images.device.type, enabled=False):  # differences of scores decide: no half precision
            with torch.no_grad():
                images = self.response.normalize(images)
                score = self.response.score_normalized(images).float()
            if not torch.is_grad_enabled():
                return self._loss(score, batch)
            score.requires_grad_()
            loss, figures = self._loss(score, batch)
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

    def _loss(self, score: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        first, second = score.chunk(2)
        size, margin = first.shape[-1], FILTER_SIZE
        num_images, budget = self.num_images, int(batch["budget"][0])
        inside = [_eroded(batch[key], margin) for key in ("inside_first", "inside_second")]
        to_second, to_first = warp_grid(batch["to_second"], size), warp_grid(batch["to_first"], size)
        visible = [sample_pixels(inside[1], to_second).floor(), sample_pixels(inside[0], to_first).floor()]
        common = [inside[0] * visible[0], inside[1] * visible[1]]
        p = [
            keypoint_probability(s, budget_threshold(s, m, num_images, budget), m)
            for s, m in zip((first, second), common, strict=True)
        ]
        forth = expected_repeatability(p[0], p[1], to_second, visible[0], self.tolerance)
        back = expected_repeatability(p[1], p[0], to_first, visible[1], self.tolerance)
        loss = 1 - (forth + back) / 2
        if torch.is_grad_enabled():
            return loss, {}
        return loss, repeated_maxima((first, second), common, batch["to_second"], num_images, budget)

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, found = [], []
        for _ in range(batches):
            drawn = self.validation.draw(generator, self.num_images)
            drawn["budget"] = torch.full((len(drawn["first"]),), 60)
            loss, figures = self.loss(to_device_of(self.network, drawn))
            losses.append(loss.item())
            found.append(figures)
        self.network.train()
        mean = {key: sum(figures[key] for figures in found) / batches for key in found[0]}
        return {"error": 1 - mean["repeated_1px"], "loss": sum(losses) / batches, **mean}


@torch.no_grad()
def repeated_maxima(
    scores: tuple[Tensor, Tensor], common: list[Tensor], to_second: Tensor, num_images: int, budget: int
) -> dict[str, float]:
    """Share of the chosen maxima that are found again, one-to-one and at sub-pixel positions.

    Args:
        scores: score maps of both crops, each of shape (N, 1, H, W).
        common: where a maximum may be chosen, each of shape (N, 1, H, W).
        to_second: map from the pixels of the first crops to those of the second, shape (N, 3, 3).
        num_images: images of the batch.
        budget: maxima chosen per image.

    Returns:
        ``repeated_1px``: mutual nearest neighbours within 1 px, as a share of the chosen maxima of the crop that has
        fewer; ``error_px``: mean distance of those within 3 px.

    """
    sides = []
    for score, mask in zip(scores, common, strict=True):
        limit = budget_threshold(score, mask, num_images, budget).view(-1, 1, 1, 1)
        maps = score[:, 0]
        chosen = local_maxima(score) & (mask > 0) & (score >= limit)
        at = Pixels(*chosen[:, 0, 1:-1, 1:-1].nonzero(as_tuple=True))
        at = Pixels(at.image, at.row + 1, at.col + 1)
        step, _ = newton_step(read_own(maps, at))
        xy = torch.stack([at.col, at.row], 1) + step[:, :2].nan_to_num().clamp(-1, 1)
        sides.append((at.image, xy))
    near, fewest, distances = 0, 0, []
    for n in range(len(to_second)):
        one, two = (xy[image == n] for image, xy in sides)
        fewest += min(len(one), len(two))
        if not len(one) or not len(two):
            continue
        moved = F.pad(one, (0, 1), value=1.0) @ to_second[n].mT
        distance = torch.cdist(moved[:, :2] / moved[:, 2:], two)
        best = distance.argmin(1)
        mutual = distance.argmin(0)[best] == torch.arange(len(one), device=best.device)
        found = distance[mutual].gather(1, best[mutual][:, None])[:, 0]
        near += int((found < 1).sum())
        distances.append(found[found < 3])
    every = torch.cat(distances) if distances else to_second.new_zeros(0)
    return {"repeated_1px": near / max(fewest, 1), "error_px": float(every.mean()) if len(every) else 3.0}


def _eroded(inside: Tensor, margin: int) -> Tensor:
    """Pixels whose whole filter window lies in the image and in the crop."""
    half = margin // 2
    kept = 1 - max_filter(1 - inside, half)
    kept[..., :half, :] = kept[..., -half:, :] = 0
    kept[..., :half] = kept[..., -half:] = 0
    return kept
