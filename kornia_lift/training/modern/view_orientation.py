"""Modern recipe, polar orientation: the distributions over angles of two views have to agree."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from kornia_lift.training.modern.views import ViewPairs
from kornia_lift.networks.polar_orientation import peak_angle as peak


def agreement(first: Tensor, second: Tensor, relative: Tensor, width: float) -> Tensor:
    r"""Probability that angles drawn from two distributions agree, softly: sum of p_k q_l K(phi_k + relative - phi_l).

    Args:
        first: probabilities of n bins, shape (N, n).
        second: likewise.
        relative: clockwise angle by which the first frame is rotated against the second, radians, (N,).
        width: standard deviation of the kernel K in radians, K(0) = 1.

    Returns:
        Shape (N,).

    """
    n = first.shape[1]
    phi = torch.arange(n, device=first.device) * (2 * math.pi / n)
    difference = phi[:, None] - phi[None] + relative[:, None, None]
    kernel = torch.exp((difference.cos() - 1) / width**2)
    return torch.einsum("nk,nkl,nl->n", first, kernel, second)


class PolarOrientationStage:
    name = "orientation"

    def __init__(
        self,
        network: nn.Module,
        pairs: ViewPairs,
        validation: ViewPairs,
        context: float = 1.0,
        width: float = 0.12,
        seed: int = 0,
    ) -> None:
        self.network = network
        self.pairs, self.validation = pairs, validation
        self.context, self.width, self.seed = context, width, seed

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator)

    @torch.no_grad()
    def _batch(self, pairs: ViewPairs, generator: Generator, context: float | None = None, size=None) -> dict[str, Tensor]:
        context = context or self.context
        anchor, positive, reach, other = pairs.draw(generator)
        n = len(anchor)
        turns = torch.rand((2, n), generator=generator) * (2 * math.pi)
        stretch = pairs.random_stretch(anchor, positive, generator)
        a = pairs.frames(anchor, reach, turns[0], generator, torch.ones(n))
        p = pairs.frames(positive, other, turns[1], generator, stretch)
        a[:, :, :2] *= context
        p[:, :, :2] *= context
        return {
            "first": pairs.light(pairs.cut(anchor, a, size), generator),
            "second": pairs.light(pairs.cut(positive, p, size), generator),
            "turns": turns.T,
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        logits = self.network.logits(torch.cat([batch["first"], batch["second"]]))
        with torch.autocast(logits.device.type, enabled=False):
            first, second = logits.float().softmax(1).chunk(2)
            turns = batch["turns"]
            loss = -(agreement(first, second, turns[:, 0] - turns[:, 1], self.width) + 1e-4).log().mean()
            error = wrapped(peak(first) + turns[:, 0] - peak(second) - turns[:, 1]).abs()
        return loss, {"within20": float((error < math.radians(20)).float().mean())}

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, errors, sure, twos, either = [], [], [], [], []
        for _ in range(batches):
            batch = self._batch(self.validation, generator)
            logits = self.network.logits(torch.cat([batch["first"], batch["second"]]))
            first, second = logits.softmax(1).chunk(2)
            turns = batch["turns"]
            losses.append(float(-(agreement(first, second, turns[:, 0] - turns[:, 1], self.width) + 1e-4).log().mean()))
            errors.append(wrapped(peak(first) + turns[:, 0] - peak(second) - turns[:, 1]).abs())
            sure.append(torch.minimum(first.amax(1), second.amax(1)))
        self.network.train()
        error, certain = torch.cat(errors), torch.cat(sure)
        best = error[certain >= certain.median()]
        return {
            "error": float((error > math.radians(20)).float().mean()),
            "off10": float((error > math.radians(10)).float().mean()),
            "median": float(error.median().rad2deg()),
            "off20_certain_half": float((best > math.radians(20)).float().mean()),
            "loss": sum(losses) / batches,
        }


def wrapped(angle: Tensor) -> Tensor:
    return torch.atan2(angle.sin(), angle.cos())
