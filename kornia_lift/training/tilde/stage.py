"""The stage that trains TILDE's filters on aligned stacks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from kornia_lift.convert.tilde import TILDEResponse
from kornia_lift.training.tilde.config import TildeConfig
from kornia_lift.training.tilde.losses import classification_loss, shape_loss, temporal_loss
from kornia_lift.training.tilde.stacks import Stack

INITIAL_STD = 1e-3  # of a filter that is divided by the square root of its size: gray values go up to 255


def make_response(config: TildeConfig) -> TILDEResponse:
    """Return a response with random full filters."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.seed)
        network = TILDEResponse(config.num_sum, config.num_max, config.channels, config.filter_size, rank=0, gain=1.0)
        nn.init.normal_(network.weight, std=INITIAL_STD / config.filter_size)
    return network


class TildeStage:
    """Train TILDE's response (Verdie et al., CVPR 2015).

    Args:
        network: the response, with full filters.
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
        self.stacks, self.validation = stacks, validation
        self.config = config or TildeConfig()

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        stack = self.stacks[int(torch.randint(len(self.stacks), (1,), generator=generator))]
        return self._cut(stack, generator, self.config.locations_per_batch)

    def _cut(self, stack: Stack, generator: Generator, count: int) -> dict[str, Tensor]:
        """Cut the regions that the score maps of some locations depend on, in some of the images."""
        c = self.config
        # the blur of the score reaches 10 pixels further
        half = c.map_size // 2 + c.filter_size // 2 + 10
        patches, positive, location = [], [], []
        padded = nn.functional.pad(stack.images, (half, half, half, half), mode="replicate")
        for label, points in ((True, stack.positives), (False, stack.negatives)):
            chosen = torch.randperm(len(points), generator=generator)[:count].tolist()
            for n in chosen:
                x, y = (int(v) for v in points[n].round())
                images = torch.randperm(len(stack.images), generator=generator)[: c.images_per_location]
                for t in images.tolist():
                    patches.append(padded[t, :, y : y + 2 * half + 1, x : x + 2 * half + 1])
                    positive.append(label)
                    location.append(n if label else -n - 1)
        return {
            "patches": torch.stack(patches),
            "positive": torch.tensor(positive),
            "location": torch.tensor(location),
        }

    def scores(self, patches: Tensor) -> Tensor:
        """Score maps (N, map_size, map_size) around the centres of patches (N, C, S, S)."""
        half = self.config.map_size // 2
        middle = patches.shape[-1] // 2
        kept = slice(middle - half, middle + half + 1)
        found: Tensor = self.network(patches)
        return found[:, 0, kept, kept]

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
        """Share of wrongly classified locations of the held-out stacks, both classes alike, and the loss."""
        generator = torch.Generator().manual_seed(0)
        wrong, total = [], []
        for stack in self.validation:
            batch = self._cut(stack, generator, 2 * self.config.locations_per_batch)
            device = next(self.network.parameters()).device
            batch = {name: t.to(device) for name, t in batch.items()}
            middle = self.config.map_size // 2
            centre = self.scores(batch["patches"])[:, middle, middle]
            right = (centre > 0) == batch["positive"]
            shares = [float((~right[batch["positive"] == label]).float().mean()) for label in (True, False)]
            wrong.append(sum(shares) / 2)
            total.append(float(self.loss(batch)[0]))
        mean = sum(wrong) / len(wrong)
        return {"error": mean + 1e-3 * sum(total) / len(total), "wrong": mean, "loss": sum(total) / len(total)}
