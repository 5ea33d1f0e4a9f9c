"""Modern recipe, detector: maximise the expected repeatability of the keypoints that would be chosen."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kornia_lift.networks.layers import ghh
from kornia_lift.networks.response import FILTER_SIZE, LIFTResponse
from kornia_lift.training.batches import to_device_of
from kornia_lift.training.modern.crops import WarpedCrops, sample_pixels, warp_grid


def _window_maximum(score: Tensor, radius: int) -> Tensor:
    """Maximum over square windows, first along rows, then along columns."""
    window = 2 * radius + 1
    rows = F.max_pool2d(score, (1, window), 1, (0, radius))
    return F.max_pool2d(rows, (window, 1), 1, (radius, 0))


def local_maxima(score: Tensor, radius: int = 3) -> Tensor:
    """Where a score map (N, 1, H, W) attains the maximum of its (2 radius + 1)^2 window; boolean."""
    return score == _window_maximum(score, radius)


def keypoint_probability(score: Tensor, threshold: Tensor, inside: Tensor, radius: int = 4) -> Tensor:
    r"""Probability that a pixel becomes a keypoint: it wins its window, and it is among the best of the photograph.

    .. math:: p(x) = \frac{e^{s(x)}}{\sum_{|y-x|\le r} e^{s(y)}} \cdot \sigma(s(x) - t)

    Args:
        score: score maps s, shape (N, 1, H, W).
        threshold: t, shape (N,): the score that the budget of keypoints leaves just outside.
        inside: weight of each pixel, 0 where it cannot be chosen, shape (N, 1, H, W).
        radius: r of the soft non-maximum suppression.

    Returns:
        p, shape (N, 1, H, W).

    """
    wins = (score - _window_logsumexp(score, radius)).exp()
    return wins * torch.sigmoid(score - threshold.view(-1, 1, 1, 1)) * inside


def _window_logsumexp(score: Tensor, radius: int) -> Tensor:
    """log sum exp over square windows, first along rows, then along columns: exact and free of overflow."""
    window = 2 * radius + 1
    padded = F.pad(score, (radius, radius, radius, radius), value=-1e4)
    return padded.unfold(3, window, 1).logsumexp(-1).unfold(2, window, 1).logsumexp(-1)


def budget_threshold(score: Tensor, inside: Tensor, photos: int, budget: int) -> Tensor:
    """Score of the ``budget``-th best local maximum of each photograph, over all of its crops; shape (N,)."""
    candidates = score.detach().masked_fill(~local_maxima(score.detach()) | (inside == 0), -1e4)
    per_photo = candidates.view(photos, -1)
    best = per_photo.topk(min(budget, per_photo.shape[1]), dim=1).values[:, -1]
    return best.repeat_interleave(len(score) // photos)


def expected_repeatability(
    probability: Tensor, other: Tensor, to_other: Tensor, visible: Tensor, tolerance: float = 1.0
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
    reach = 3
    offset = torch.arange(-reach, reach + 1, dtype=other.dtype, device=other.device)
    kernel = torch.exp(-0.5 * (offset / tolerance) ** 2)
    found = F.conv2d(
        F.conv2d(other, kernel.view(1, 1, -1, 1), padding=(reach, 0)), kernel.view(1, 1, 1, -1), padding=(0, reach)
    ).clamp(max=1)
    again = sample_pixels(found, to_other)
    weight = probability * visible
    return (weight * again).sum() / weight.sum().clamp(min=1e-6)


def init_as_blob_detector(network: LIFTResponse, sigma: float = 1.958, strength: float = 4.0) -> None:
    """Start from the magnitude of a Laplacian of Gaussian at the scale of the level, plus noise on all filters.

    GHH can express it exactly, max(z, -z); a random start reaches the same place later.
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
        photos: photographs per batch.
        min_budget: smallest number of keypoints per photograph, over all of its crops.
        max_budget: largest one; drawn anew for every batch, so that the ranking is right at any cut.
        pixels_per_crop: pixels, in the mean over the batch, whose gradient is followed into the network.
        seed: seed of the validation batches.

    """

    name = "response"
    divisible = False  # the budget and the means are those of whole photographs, each with several crops

    def __init__(
        self,
        network: LIFTResponse,
        crops: WarpedCrops,
        validation: WarpedCrops,
        photos: int = 4,
        min_budget: int = 30,
        max_budget: int = 150,
        pixels_per_crop: int = 3000,
        seed: int = 0,
    ) -> None:
        self.network: nn.Module = network
        self.pixels_per_crop = pixels_per_crop
        self.response = network
        self.crops = crops
        self.validation = validation
        self.photos = photos
        self.min_budget = min_budget
        self.max_budget = max_budget
        self.seed = seed

    @torch.no_grad()
    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        batch = self.crops.draw(generator, self.photos)
        budget = torch.randint(self.min_budget, self.max_budget + 1, (1,), generator=generator)
        # the first dimension is the sample everywhere
        return {**batch, "budget": budget.expand(len(batch["first"]))}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        images = torch.cat([batch["first"], batch["second"]])
        with torch.no_grad():
            score = self.network(images).float()
        with torch.autocast(images.device.type, enabled=False):  # differences of scores decide: no half precision
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
        windows = (
            F.pad(images[:, 0], (half,) * 4, mode="replicate")
            .unfold(1, FILTER_SIZE, 1)
            .unfold(2, FILTER_SIZE, 1)[image, y, x]
        )
        linear = self.response.conv
        z = F.linear(
            (windows.flatten(1) - self.response.mean) / self.response.std, linear.weight.flatten(1), linear.bias
        )
        weighted = (ghh(z)[:, 0] * gradient.flatten()[strongest]).sum()
        return value + weighted - weighted.detach()

    def _loss(self, score: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        first, second = score.chunk(2)
        size, margin = first.shape[-1], FILTER_SIZE
        photos, budget = self.photos, int(batch["budget"][0])
        inside = [_eroded(batch[key], margin) for key in ("inside_first", "inside_second")]
        to_second, to_first = warp_grid(batch["to_second"], size), warp_grid(batch["to_first"], size)
        visible = [sample_pixels(inside[1], to_second).floor(), sample_pixels(inside[0], to_first).floor()]
        common = [inside[0] * visible[0], inside[1] * visible[1]]
        p = [
            keypoint_probability(s, budget_threshold(s, m, photos, budget), m)
            for s, m in zip((first, second), common, strict=True)
        ]
        forth = expected_repeatability(p[0], p[1], to_second, visible[0])
        back = expected_repeatability(p[1], p[0], to_first, visible[1])
        hard = hard_repeatability(first.detach(), second.detach(), common, to_second, photos, budget)
        return 1 - (forth + back) / 2, {"repeated": hard}

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, hard = [], []
        for _ in range(batches):
            drawn = self.validation.draw(generator, self.photos)
            drawn["budget"] = torch.full((len(drawn["first"]),), 60)
            loss, figures = self.loss(to_device_of(self.network, drawn))
            losses.append(loss.item())
            hard.append(figures["repeated"])
        self.network.train()
        return {"error": 1 - sum(hard) / batches, "loss": sum(losses) / batches}


@torch.no_grad()
def hard_repeatability(
    first: Tensor, second: Tensor, common: list[Tensor], to_second: Tensor, photos: int, budget: int, radius: int = 2
) -> float:
    """Share of the chosen maxima of the first crops that have a chosen maximum within ``radius`` pixels."""
    chosen = []
    for score, mask in zip((first, second), common, strict=True):
        limit = budget_threshold(score, mask, photos, budget).view(-1, 1, 1, 1)
        chosen.append((local_maxima(score) & (mask > 0) & (score >= limit)).float())
    near = _window_maximum(chosen[1], radius)
    again = sample_pixels(near, to_second).round()
    return float((chosen[0] * again).sum() / chosen[0].sum().clamp(min=1))


def _eroded(inside: Tensor, margin: int) -> Tensor:
    """Pixels whose whole filter window lies in the photograph and in the crop."""
    half = margin // 2
    kept = 1 - _window_maximum(1 - inside, half)
    border = torch.zeros_like(kept)
    border[..., half:-half, half:-half] = 1
    return kept * border
