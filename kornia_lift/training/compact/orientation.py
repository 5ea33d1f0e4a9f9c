"""Compact recipe, orientation: the distributions over angles of two views of a location have to agree."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from kornia_lift.networks.polar_orientation import PolarOrientation, peak_angle
from kornia_lift.training.compact.views import ViewPairs, wrap_angle
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.modern.orientation import angle_measure
from kornia_lift.training.stage import Measure


def agreement(first: Tensor, second: Tensor, relative: Tensor, tolerance: float) -> Tensor:
    r"""Probability that two angles, each drawn from its own distribution, agree.

    .. math:: \sum_{k,l} p_k \, q_l \, K(\phi_k + \Delta - \phi_l), \quad K(\delta) = e^{(\cos \delta - 1) / s^2}

    It grows when both distributions become sharper around the same direction; a location with two equally good
    directions reaches 1/2 by two peaks, and loses by betting on one of them at random.

    Args:
        first: probabilities of n directions, shape (N, n).
        second: likewise.
        relative: clockwise angle of the first frame minus that of the second, radians, shape (N,).
        tolerance: s, about the standard deviation of the kernel, radians.

    Returns:
        Values in (0, 1], shape (N,).

    """
    n = first.shape[1]
    phi = torch.arange(n, device=first.device) * (2 * math.pi / n)
    difference = phi[:, None] - phi + relative[:, None, None]
    kernel = torch.exp((difference.cos() - 1) / tolerance**2)
    return torch.einsum("nk,nkl,nl->n", first, kernel, second)


class AgreementOrientationStage:
    """Train the orientation on pairs of views, each rotated by its own angle over the full circle.

    Args:
        network: the orientation network.
        pairs: training pairs.
        validation: held-out pairs.
        context: side of the region that the network sees over that of the described one.
        tolerance: of :func:`agreement`, radians.
        seed: seed of the validation batches.

    """

    name = "orientation"

    def __init__(
        self,
        network: PolarOrientation,
        pairs: ViewPairs,
        validation: ViewPairs,
        context: float = 2.0,
        tolerance: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.network: torch.nn.Module = network
        self.orientation = network
        self.pairs, self.validation = pairs, validation
        self.context, self.tolerance, self.seed = context, tolerance, seed

    @property
    def measure(self) -> Measure:
        """Pairs whose angles disagree."""
        return angle_measure(len(self.validation.track_count))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        return self._batch(self.pairs, generator)

    @torch.no_grad()
    def _batch(self, pairs: ViewPairs, generator: Generator) -> dict[str, Tensor]:
        anchor, positive, reach, other = pairs.draw(generator)
        n = len(anchor)
        angles = torch.rand((2, n), generator=generator) * (2 * math.pi)
        stretch = pairs.random_stretch(anchor, positive, generator)
        a = pairs.frames(anchor, reach, angles[0], generator, torch.ones(n))
        p = pairs.frames(positive, other, angles[1], generator, stretch)
        for frames in (a, p):
            frames[:, :, :2] *= self.context
        return {
            "first": pairs.augment(pairs.cut(anchor, a), generator),
            "second": pairs.augment(pairs.cut(positive, p), generator),
            "angles": angles.T,
        }

    def _distributions(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        logits = self.orientation.logits(torch.cat([batch["first"], batch["second"]]))
        first, second = logits.float().softmax(1).chunk(2)
        return first, second

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        loss, error = self._compare(*self._distributions(batch), batch["angles"])
        return loss, {"within20": float((error < math.radians(20)).float().mean())}

    def _compare(self, first: Tensor, second: Tensor, angles: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and the angle between the two estimates in the common frame (N,)."""
        with torch.autocast(first.device.type, enabled=False):
            relative = angles[:, 0] - angles[:, 1]
            # the floor: a pair without any agreement (an occlusion, a wrong track) has a bounded gradient
            loss = -(agreement(first, second, relative, self.tolerance) + 1e-4).log().mean()
            return loss, wrap_angle(peak_angle(first) - peak_angle(second) + relative).abs()

    @torch.no_grad()
    def validate(self, batches: int = 6) -> dict[str, float]:
        """Share of pairs whose angles differ by more than 20 (``error``) and 10 degrees, and the median difference."""
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        losses, errors, certainties = [], [], []
        for _ in range(batches):
            batch = to_device_of(self.network, self._batch(self.validation, generator))
            first, second = self._distributions(batch)
            loss, error = self._compare(first, second, batch["angles"])
            losses.append(float(loss))
            errors.append(error)
            certainties.append(torch.minimum(first.amax(1), second.amax(1)))
        self.network.train()
        self.parts = [float((part.rad2deg() > 20).float().mean()) for part in errors]
        error, certainty = torch.cat(errors).rad2deg(), torch.cat(certainties)
        certain = error[certainty >= certainty.median()]
        return {
            "error": float((error > 20).float().mean()),
            "off10": float((error > 10).float().mean()),
            "off20_certain_half": float((certain > 20).float().mean()),
            "median_degrees": float(error.median()),
            "loss": sum(losses) / batches,
        }
