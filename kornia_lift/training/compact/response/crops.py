"""Pairs of crops of one image that differ by scale, rotation and slant, drawn and sampled as one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits
from kornia_lift.training.warped.crops import warp_grid


@dataclass(frozen=True)
class ScaleCropConfig:
    """How pairs of crops are drawn.

    Args:
        size: side of the crops in pixels.
        min_step: finest resolution of the first crop, in image pixels per crop pixel.
        max_step: coarsest one.
        scale: largest ratio of scale between the two crops.
        stretch: largest ratio of the axes (slant of the second view).
        perspective: largest relative change of scale from the centre to the border.
        shift: largest displacement of the second crop, in pixels.
        full_circle: share of pairs rotated by any angle; the others by up to 20 degrees.

    """

    size: int = 256
    min_step: float = 0.6
    max_step: float = 2.0
    scale: float = 2.0
    stretch: float = 1.6
    perspective: float = 0.2
    shift: float = 16.0
    full_circle: float = 0.5

    def __post_init__(self) -> None:
        check_limits(self, "size", at_least=64)
        check_limits(self, "min_step", above=0)
        check_limits(self, "max_step", at_least=self.min_step)
        check_limits(self, "scale", "stretch", at_least=1)
        check_limits(self, "perspective", "shift", at_least=0)
        check_limits(self, "full_circle", at_least=0, at_most=1)


class ScaleCrops:
    """Draw pairs of crops from images in memory, on the device where they are kept.

    Args:
        images: for each scene its aligned images (one, or several exposures), uint8, shape (H, W).
        config: how pairs are drawn.
        photometric: photometric augmentation of both crops.
        device: where the crops are sampled.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        config: ScaleCropConfig | None = None,
        photometric: Photometric | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not images or not all(images):
            raise ValueError("pairs of crops need at least one image of every scene")
        self.config = config or ScaleCropConfig()
        self.photometric = photometric or Photometric()
        self.bank = ImageBank([image for scene in images for image in scene], device, halve_by_means, smallest=8)
        counts = torch.tensor([len(scene) for scene in images])
        self._count, self._first = counts, counts.cumsum(0) - counts
        self._size = torch.tensor([list(scene[0].shape) for scene in images]).flip(1).float()  # width, height

    def __len__(self) -> int:
        return len(self._count)

    def draw(self, generator: Generator, pairs: int) -> dict[str, Tensor]:
        """Draw a batch.

        Returns:
            ``first``, ``second``: crops (N, 1, S, S) in [0, 1]; ``to_first``, ``to_second``: maps between their pixels
            (N, 3, 3); ``inside_first``, ``inside_second``: 1 where the pixel lies in the image, (N, 1, S, S).

        """
        c = self.config

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(pairs, generator=generator)

        scene = torch.randint(len(self), (pairs,), generator=generator)
        exposures = (torch.rand(2, pairs, generator=generator) * self._count[scene]).long() + self._first[scene]
        step = torch.exp(uniform(math.log(c.min_step), math.log(c.max_step)))
        width_height = self._size[scene]
        room = (width_height - 1 - step[:, None] * c.size).clamp(min=0) / 2  # crops larger than the image are centred
        centre = (width_height - 1) / 2 + room * (2 * torch.rand(pairs, 2, generator=generator) - 1)
        to_image = similarities(step, uniform(-0.2, 0.2), centre) @ _translation(pairs, -(c.size - 1) / 2)
        to_first = draw_homographies(generator, pairs, c)
        batch = {"to_first": to_first, "to_second": torch.linalg.inv(to_first)}
        device = self.bank.device
        batch = {name: matrix.to(device) for name, matrix in batch.items()}
        for name, index, matrix in (
            ("first", exposures[0], to_image),
            ("second", exposures[1], to_image @ to_first),
        ):
            crop, inside = self._sample(index.to(device), matrix.to(device))
            batch |= {name: augment(crop, self.photometric, generator), f"inside_{name}": inside}
        return batch

    def _sample(self, index: Tensor, to_image: Tensor) -> tuple[Tensor, Tensor]:
        size = self.config.size
        position = warp_grid(to_image, size).flatten(1, 2)
        last = self.bank.sizes(index).flip(1)[:, None] - 1
        inside = ((position >= 0) & (position <= last)).all(-1)
        # the scale in the middle of the crop
        middle = to_image @ to_image.new_tensor([(size - 1) / 2, (size - 1) / 2, 1])
        step = (torch.linalg.det(to_image).abs() / middle[:, 2].abs() ** 3).sqrt()
        level = step.clamp(min=1e-6).log2().floor().clamp(min=0).long()
        crop = self.bank.sample(index, position, level)
        return crop.view(-1, 1, size, size), inside.view(-1, 1, size, size).float()


def halve_by_means(x: Tensor) -> Tensor:
    """Halve images by means of 2x2 pixels, as the levels of the detector blur little."""
    return F.avg_pool2d(x, 2)


def draw_homographies(generator: Generator, count: int, c: ScaleCropConfig) -> Tensor:
    """Draw maps from the pixels of second crops to those of the first, about their centres; (count, 3, 3)."""

    def uniform(low: float = -1.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    full = uniform(0, 1) < c.full_circle
    angle = torch.where(full, uniform() * math.pi, uniform() * 0.35)
    scale = torch.exp(uniform() * math.log(c.scale))
    ratio = torch.exp(uniform(0, 1) * math.log(c.stretch)).sqrt()
    axis = rotation_matrix(uniform() * math.pi)
    change = rotation_matrix(angle) @ axis @ torch.diag_embed(torch.stack([1 / ratio, ratio], 1)) @ axis.mT
    matrix = torch.eye(3).repeat(count, 1, 1)
    matrix[:, :2, :2] = scale[:, None, None] * change
    tilt = torch.eye(3).repeat(count, 1, 1)
    tilt[:, 2, :2] = torch.stack([uniform(), uniform()], 1) * c.perspective / (c.size / 2)
    shift = torch.stack([uniform(), uniform()], 1) * c.shift
    matrix = matrix @ tilt
    matrix[:, :2] += shift[:, :, None] * matrix[:, 2:]
    middle = (c.size - 1) / 2
    return _translation(count, middle) @ matrix @ _translation(count, -middle)


def similarities(scale: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that scale, rotate and then shift by (N, 2)."""
    matrix = torch.eye(3).repeat(len(scale), 1, 1)
    matrix[:, :2, :2] = scale[:, None, None] * rotation_matrix(angle)
    matrix[:, :2, 2] = shift
    return matrix


def _translation(count: int, by: float) -> Tensor:
    matrix = torch.eye(3).repeat(count, 1, 1)
    matrix[:, :2, 2] = by
    return matrix
