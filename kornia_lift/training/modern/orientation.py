"""Modern recipe, orientation: two views of a location, rotated independently, have to agree on one direction."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.pairs import PatchPairs
from kornia_lift.training.stage import Measure


def direction_loss(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    r"""Disagreement of two directions in a common frame, :math:`2 |\sin((\theta_1 - \theta_2) / 2)|`.

    It is the distance of the two points on the unit circle. Its slope does not vanish where the directions nearly
    agree, as that of :math:`1 - \cos` does: a few degrees matter to the descriptor.

    Args:
        first: vectors (cosine, sine) up to a factor, shape (N, 2).
        second: likewise.

    Returns:
        The loss per pair (N,), and the angle between the directions in radians (N,).

    """
    cosine = F.cosine_similarity(first, second, dim=1, eps=1e-6)
    return (2 - 2 * cosine + 1e-5).sqrt(), torch.acos(cosine.detach().clamp(-1, 1))


def angle_measure(pairs: int) -> Measure:
    """Measure of an orientation stage; by chance 40 of 360 degrees are within the limit.

    Args:
        pairs: number of held-out pairs.

    """
    return Measure("pairs whose angles differ by more than 20 degrees", 1 - 40 / 360, pairs)


class EquivariantOrientationStage:
    """Train the orientation network on pairs of views, each rotated by its own angle over the full circle.

    Args:
        network: the orientation network.
        pairs: training pairs; their stored context covers the whole support region at any rotation.
        validation: held-out pairs.
        seed: seed of the validation batches.

    """

    name = "orientation"

    def __init__(self, network: LIFTOrientation, pairs: PatchPairs, validation: PatchPairs, seed: int = 0) -> None:
        self.network: nn.Module = network
        self.orientation = network
        self.pairs = pairs
        self.validation = validation
        self.seed = seed

    @property
    def measure(self) -> Measure:
        """Pairs whose angles disagree."""
        return angle_measure(len(self.validation.track_count))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator)

    @torch.no_grad()
    def _batch(self, pairs: PatchPairs, generator: Generator) -> dict[str, Tensor]:
        anchor, positive = pairs.draw(generator)
        angles = torch.rand((2, len(anchor)), generator=generator) * (2 * math.pi)
        stretch = pairs.random_stretch(anchor, positive, generator)
        first = pairs.cut(anchor, angles[0], generator)
        second = pairs.cut(positive, angles[1], generator, stretch)
        return {"first": first, "second": second, "angles": angles.T}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        # through forward, so that DistributedDataParallel sees the call; kornia's sense is minus LIFT's
        angle = -self.network(torch.cat([batch["first"], batch["second"]])).float() + batch["angles"].T.flatten()
        first, second = torch.stack([angle.cos(), angle.sin()], 1).chunk(2)
        loss, error = direction_loss(first, second)
        return loss.mean(), {"within20": float((error < math.radians(20)).float().mean())}

    @torch.no_grad()
    def validate(self, batches: int = 8) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, within = [], []
        for _ in range(batches):
            loss, figures = self.loss(to_device_of(self.network, self._batch(self.validation, generator)))
            losses.append(float(loss))
            within.append(figures["within20"])
        self.network.train()
        self.parts = [1 - share for share in within]
        return {"error": 1 - sum(within) / batches, "loss": sum(losses) / batches}
