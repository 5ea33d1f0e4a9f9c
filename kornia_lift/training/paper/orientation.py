"""Paper recipe, second stage: the orientation through a frozen descriptor (paper Sec. 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.training.limits import check_limits
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.paper.losses import orientation_loss
from kornia_lift.training.paper.quadruplets import Quadruplets, QuadrupletSampler, draw_angle, draw_shift
from kornia_lift.training.paper.siamese import describe, freeze, nearest_is_correct, orient
from kornia_lift.training.stage import Measure


@dataclass(frozen=True)
class OrientationOptions:
    """Options of the stage.

    Args:
        pairs: corresponding pairs per step.
        full_circle: rotate every patch by its own angle in [0, 360) degrees. The published LIFT without it works for
            about +-30 degrees only.
        validation_pairs: held-out pairs, each compared with all others.

    """

    pairs: int = 64
    full_circle: bool = True
    validation_pairs: int = 300

    def __post_init__(self) -> None:
        check_limits(self, "pairs", at_least=1)
        check_limits(self, "validation_pairs", at_least=2)


class PaperOrientationStage:
    """Minimise the distance of the descriptors of two views of a point after orientation correction.

    Args:
        network: the orientation network.
        descriptor: any patch descriptor, (B, 1, S, S) to (B, D), through which gradients pass: the trained
            :class:`~kornia_lift.LIFTDescriptor`, kornia's SIFT, HardNet... It is frozen.
        train: training data.
        validation: held-out data.
        options: options of the stage.
        seed: seed of the validation pairs.

    """

    name = "orientation"

    def __init__(
        self,
        network: LIFTOrientation,
        descriptor: nn.Module,
        train: QuadrupletSampler,
        validation: QuadrupletSampler,
        options: OrientationOptions | None = None,
        seed: int = 0,
    ) -> None:
        freeze([descriptor])
        self.network: nn.Module = network
        self.descriptor: Callable[[Tensor], Tensor] = descriptor
        self.train, self.validation, self.seed = train, validation, seed
        self.options = options or OrientationOptions()

    @property
    def measure(self) -> Measure:
        """Chance is one in the number of candidates."""
        count = min(self.options.validation_pairs, self.validation.num_points)
        return Measure(f"pairs with a wrong nearest neighbour among {count}, once oriented", 1 - 1 / count, count)

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        """P1 and P2 (N, 2, 128, 128), the position of the point in them (N, 2, 2), their angle (N, 2)."""
        return self._batch(self.train, self.train.draw(generator, self.options.pairs), generator)

    def _batch(self, sampler: QuadrupletSampler, drawn: Quadruplets, generator: Generator) -> dict[str, Tensor]:
        count = len(drawn.image)
        angle = draw_angle(generator, count, 2, self.options.full_circle)
        shift = draw_shift(generator, count, 2)
        return {
            "patches": sampler.moved_patches(drawn, (0, 1), angle, shift, generator),
            "xy": shift,
            "angle": angle,
            "sift": drawn.theta[:, :2] + angle,
        }

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean distance (paper Eq. 4)."""
        (d1, d2), theta = self._branches(batch)
        return orientation_loss(d1, d2).mean(), {"within20": _within(theta, batch)}

    def _branches(self, batch: dict[str, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        patches = batch["patches"].transpose(0, 1).flatten(0, 1)[:, None]
        xy = batch["xy"].transpose(0, 1).flatten(0, 1)
        theta = orient(self.network, patches, xy).float()
        d1, d2 = describe(self.descriptor, patches, xy, theta).float().chunk(2)
        return (d1, d2), theta.view(2, -1).T

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """1 - share of held-out pairs that are each other's nearest neighbour once oriented.

        ``sift`` is the same with SIFT's angles, ``within20`` the share of pairs whose two angles agree with SIFT's
        change of angle to 20 degrees.
        """
        self.network.eval()
        generator = torch.Generator().manual_seed(self.seed)
        drawn = self.validation.draw(generator, self.options.validation_pairs)
        batch = to_device_of(self.network, self._batch(self.validation, drawn, generator))
        (d1, d2), theta = self._branches(batch)
        correct = float(nearest_is_correct(d1, d2).float().mean())
        patches, xy = batch["patches"], batch["xy"]
        s1, s2 = (
            describe(self.descriptor, patches[:, i : i + 1], xy[:, i], batch["sift"][:, i]).float() for i in (0, 1)
        )
        return {
            "error": 1 - correct,
            "nearest": correct,
            "distance": float(orientation_loss(d1, d2).detach().mean()),
            "within20": _within(theta, batch),
            "sift": float(nearest_is_correct(s1, s2).float().mean()),
        }


def _within(theta: Tensor, batch: dict[str, Tensor], degrees: float = 20.0) -> float:
    """Share of pairs whose change of angle is that of SIFT."""
    off = (theta[:, 1] - theta[:, 0] - batch["sift"][:, 1] + batch["sift"][:, 0]).detach()
    off = torch.remainder(off + math.pi, 2 * math.pi) - math.pi
    return float((off.abs() <= math.radians(degrees)).float().mean())
