"""The stage that trains TILDE's filters on aligned stacks."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from kornia_lift.convert.tilde import BLUR_SIZE, TILDEResponse
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.losses import classification_loss, shape_loss, temporal_loss
from kornia_lift.training.tilde.stacks import Stack

INITIAL_STD = 0.5  # of the response to channels that are normalised and independent
STATISTICS_IMAGES = 3  # of each stack
SOBEL = 2  # pixels around one that its gradient depends on


def make_response(config: TildeConfig) -> TILDEResponse:
    """Return a response with random full filters, for normalised channels."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        network = TILDEResponse(config.num_sum, config.num_max, config.channels, config.filter_size, rank=0, gain=1.0)
        nn.init.normal_(network.weight, std=INITIAL_STD / network.weight[0].numel() ** 0.5)
    return network


class TildeStage:
    """Train TILDE's response (Verdie et al., CVPR 2015).

    The filters are learned on channels of mean 0 and variance 1: with the original channels, up to 255, the gradient
    would be dominated by the mean of the filters. :meth:`response` returns them as filters of images.

    Args:
        network: the response, with full filters, for normalised channels: see :func:`make_response`.
        stacks: training stacks.
        validation: held-out stacks.
        config: options.

    Raises:
        ValueError: if there is no stack, or one without negatives.

    """

    name = "tilde"
    divisible = False  # the terms are means over classes

    def __init__(
        self,
        network: TILDEResponse,
        stacks: Sequence[Stack],
        validation: Sequence[Stack],
        config: TildeConfig | None = None,
    ) -> None:
        for what, part in (("train on", stacks), ("validate with", validation)):
            if not part:
                raise ValueError(f"no aligned stack to {what}")
        for stack in (*stacks, *validation):
            if not len(stack.negatives):
                raise ValueError(f"{stack.name}: no location is far from all keypoints; lower apart or keypoints")
        self.network: nn.Module = network
        self.filters = network
        self.stacks, self.validation = stacks, validation
        self.config = config or TildeConfig()
        device = next(network.parameters()).device
        self.mean, self.std = (t.to(device) for t in channel_statistics(network, stacks))

    def response(self) -> TILDEResponse:
        """Return the filters as they are for images in [0, 1]."""
        found = copy.deepcopy(self.filters).eval()
        with torch.no_grad():
            found.weight.div_(self.std)
            found.bias.sub_((found.weight * self.mean).sum((1, 2, 3)))
        return found

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        stack = self.stacks[int(torch.randint(len(self.stacks), (1,), generator=generator))]
        return self._cut(stack, generator, self.config.locations_per_batch)

    def _cut(self, stack: Stack, generator: Generator, count: int) -> dict[str, Tensor]:
        """Cut the regions that the score maps of some locations depend on, in some of the images."""
        c = self.config
        half = reach(c)
        height, width = stack.images.shape[-2:]
        patches, positive, location = [], [], []
        for label, points in ((True, stack.positives), (False, stack.negatives)):
            chosen = torch.randperm(len(points), generator=generator)[:count].tolist()
            for n in chosen:
                # positions beyond the border become those of border pixels
                x, y = (torch.arange(int(v) - half, int(v) + half + 1) for v in points[n].round())
                images = torch.randperm(len(stack.images), generator=generator)[: c.images_per_location]
                rows, columns = y.clamp(0, height - 1)[:, None], x.clamp(0, width - 1)
                for t in images.tolist():
                    patches.append(stack.images[t, :, rows, columns])
                    positive.append(label)
                    location.append(n if label else -n - 1)
        return {
            "patches": torch.stack(patches),
            "positive": torch.tensor(positive),
            "location": torch.tensor(location),
        }

    def scores(self, patches: Tensor) -> Tensor:
        """Score maps (N, map_size, map_size) around the centres of patches (N, C, S, S)."""
        channels = self.filters.channels_of(patches)[..., SOBEL:-SOBEL, SOBEL:-SOBEL]
        linear = self.filters.filtered((channels - self.mean) / self.std)
        inner = slice(BLUR_SIZE // 2, -(BLUR_SIZE // 2))
        found: Tensor = self.filters.score(linear)
        return found[:, 0, inner, inner]

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        c = self.config
        maps, positive = self.scores(batch["patches"]), batch["positive"]
        middle = c.map_size // 2
        centre = maps[:, middle, middle]
        parts = {
            "classification": classification_loss(centre, positive),
            "shape": shape_loss(maps[positive], c.sharpness, c.reach),
            "temporal": temporal_loss(centre, batch["location"]),
        }
        loss = c.classification * parts["classification"] + c.shape * parts["shape"] + c.temporal * parts["temporal"]
        return loss, {name: float(value.detach()) for name, value in parts.items()}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of held-out pairs of a positive and a negative in the wrong order (by chance half), and the loss.

        A detector takes the highest maxima: an offset of all scores, which makes many of one class wrong, does
        not matter to it.
        """
        generator = torch.Generator().manual_seed(0)
        disordered, wrong, total = [], [], []
        for stack in self.validation:
            batch = to_device_of(self.network, self._cut(stack, generator, 2 * self.config.locations_per_batch))
            middle, positive = self.config.map_size // 2, batch["positive"]
            centre = self.scores(batch["patches"])[:, middle, middle]
            disordered.append(float((centre[positive][:, None] <= centre[~positive]).float().mean()))
            right = (centre > 0) == positive
            wrong.append(sum(float((~right[positive == label]).float().mean()) for label in (True, False)) / 2)
            total.append(float(self.loss(batch)[0]))
        count = len(self.validation)
        return {"error": sum(disordered) / count, "wrong": sum(wrong) / count, "loss": sum(total) / count}


def reach(config: TildeConfig) -> int:
    """Pixels around a location that its score map depends on: map, filter, blur of the score, gradient."""
    return config.map_size // 2 + config.filter_size // 2 + BLUR_SIZE // 2 + SOBEL


@torch.no_grad()
def channel_statistics(network: TILDEResponse, stacks: Sequence[Stack]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the channels in some images of every stack, each (C, 1, 1)."""
    moments = []
    for stack in stacks:
        for image in stack.images[:: -(-len(stack.images) // STATISTICS_IMAGES)]:
            channels = network.channels_of(image[None])
            moments.append(torch.stack([channels.mean((0, 2, 3)), channels.square().mean((0, 2, 3))]))
    mean, square = torch.stack(moments).mean(0)
    return mean[:, None, None], (square - mean.square()).clamp(min=1).sqrt()[:, None, None]
