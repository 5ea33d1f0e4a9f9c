"""Pairs of crops of one image that differ by scale, rotation and slant, drawn and sampled as one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.warped.crops import CropConfig, random_homographies, similarities, translation, warp_grid

#: As levels are searched: resolutions within an octave and a half, of which the levels make more, ratios of scale to 2.
SCALE_CROPS = CropConfig(
    size=256, min_step=0.6, max_step=2.0, scale=2.0, stretch=1.6, perspective=0.2, shift=16.0, full_circle=0.5
)


class ScaleCrops:
    """Draw pairs of crops from images in memory, on the device where they are kept.

    Args:
        images: for each scene its aligned images (one, or several exposures), uint8, shape (H, W).
        config: how pairs are drawn; ``per_image`` and ``black_corner`` do not apply.
        photometric: photometric augmentation of both crops.
        device: where the crops are sampled.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        config: CropConfig = SCALE_CROPS,
        photometric: Photometric | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not images or not all(images):
            raise ValueError("pairs of crops need at least one image of every scene")
        self.config = config
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
        to_image = similarities(step, uniform(-0.2, 0.2), centre) @ translation(torch.full((2,), (1 - c.size) / 2))
        to_first = random_homographies(generator, pairs, c, (c.size, c.size))
        device = self.bank.device
        batch = {"to_first": to_first.to(device), "to_second": torch.linalg.inv(to_first).to(device)}
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
