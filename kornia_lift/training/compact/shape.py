"""Compact recipe, affine shapes: the frames of a keypoint and of its warped copy must cover the same surface."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from kornia_lift.feature.shape import CONTEXT
from kornia_lift.networks.shape import KeypointShape, stretch
from kornia_lift.training.compact.copies import KeypointPairs, PairedPatches
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.loop.batches import to_device_of
from kornia_lift.training.stage import ERROR, Measure

WRONG = 1.25  # ratio of the axes that is left between two frames of which more count as errors
AT_ONCE = 1024  # patches of the validation
PARTS = 6  # of the held-out pairs, compared with each other


class ShapeStage:
    """Train affine shapes on pairs of detections whose relation is known.

    The loss is half the logarithm of the ratio of the axes, by which the map between the two stretched frames still
    differs from a similarity: 0 where one stretched frame is shown as the other, up to a rotation.

    Args:
        network: the shapes.
        pairs: training pairs.
        validation: held-out pairs.
        images: images of a batch.
        per_image: largest number of pairs of each.
        jitter: standard deviation by which training frames are moved, in sigmas, and rescaled, logarithmic.
        photometric: photometric augmentation of the patches.
        seed: of the validation batch.

    """

    name = "shape"

    def __init__(
        self,
        network: KeypointShape,
        pairs: Sequence[KeypointPairs],
        validation: Sequence[KeypointPairs],
        images: int = 6,
        per_image: int = 64,
        jitter: float = 0.05,
        photometric: Photometric | None = None,
        seed: int = 0,
    ) -> None:
        self.network: nn.Module = network
        self.pairs = PairedPatches(pairs)
        self.images, self.per_image, self.jitter = images, per_image, jitter
        self.photometric = photometric or Photometric()
        generator, held_out = torch.Generator().manual_seed(seed), PairedPatches(validation)
        self._held_out = held_out.draw(range(len(validation)), per_image, generator, context=CONTEXT)
        self.parts: list[float] = []

    @property
    def measure(self) -> Measure:
        """Circles leave the whole stretch of the copies."""
        jacobian = self._held_out["jacobian"]
        left = unexplained(torch.zeros(len(jacobian), 2), torch.zeros(len(jacobian), 2), jacobian)
        what = f"keypoints whose frames differ by a stretch of more than {WRONG}"
        return Measure(what, float(_wrong(left).mean()), len(jacobian))

    def batch(self, generator: Generator, step: int) -> dict[str, Tensor]:
        chosen = torch.randint(len(self.pairs.pairs), (self.images,), generator=generator).tolist()
        drawn = self.pairs.draw(chosen, self.per_image, generator, self.jitter, CONTEXT, rotate=True)
        for side in ("first", "second"):
            drawn[side] = augment(drawn[side], self.photometric, generator)
        return drawn

    def _left(self, batch: dict[str, Tensor]) -> Tensor:
        first, second = self.network(torch.cat([batch["first"], batch["second"]])).float().chunk(2)
        with torch.autocast(first.device.type, enabled=False):
            return unexplained(first, second, batch["jacobian"])

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        left = self._left(batch)
        return left.mean(), {"wrong": float(_wrong(left.detach()).mean())}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of pairs that differ by a stretch of more than 1.25 (``error``), and the mean of the loss."""
        self.network.eval()
        rows = torch.arange(len(self._held_out["jacobian"])).split(AT_ONCE)
        parts = [{key: value[index] for key, value in self._held_out.items()} for index in rows]
        left = torch.cat([self._left(to_device_of(self.network, part)) for part in parts]).cpu()
        self.network.train()
        wrong = _wrong(left)
        self.parts = [float(part.mean()) for part in wrong.tensor_split(PARTS) if len(part)]
        return {ERROR: float(wrong.mean()), "left": float(left.mean())}


def unexplained(first: Tensor, second: Tensor, between: Tensor) -> Tensor:
    """Return the stretch that is left between frames with affine shapes, as half the logarithm of its axes' ratio.

    Args:
        first: shapes of the first frames, see :func:`~kornia_lift.networks.shape.stretch`, (N, 2).
        second: those of the second frames, (N, 2).
        between: maps from the first frames to the second ones, as they are without the shapes, (N, 2, 2).

    Returns:
        Values of 0 and more, (N,).

    """
    area = between / between.det().abs().sqrt()[:, None, None]
    left = stretch(-second) @ area @ stretch(first)
    # the squares of the axes r and 1 / r, summed and halved, are cosh(2 log r); its root has no gradient at 1
    return torch.acosh((left.square().sum((1, 2)) / 2).clamp(min=1 + 1e-6)) / 2


def _wrong(left: Tensor) -> Tensor:
    return (2 * left > math.log(WRONG)).float()
