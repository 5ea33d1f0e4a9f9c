"""Pairs of crops of one image, related by a known homography, at the levels of an image pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift._checks import Device
from kornia_lift.detector.extrema import max_filter
from kornia_lift.networks.response import FILTER_SIZE
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.warped.degraded import DegradedCrops, with_degraded
from kornia_lift.training.warped.homographies import (
    CropConfig,
    random_homographies,
    sample_pixels,
    similarities,
    translation,
    warp_grid,
    zooms,
)

SMALLEST = 8  # side of the smallest level, pixels


class WarpedCrops:
    """Draw pairs of crops from images in memory, as one batch, on the device where the images are kept.

    Args:
        images: for each scene its aligned images (one, or several exposures), uint8, shape (H, W).
        config: how pairs are drawn.
        photometric: photometric augmentation of both crops.
        device: where the images are kept and the crops sampled.
        degraded: share of the crops that are degraded instead of augmented; none by default.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        config: CropConfig | None = None,
        photometric: Photometric | None = None,
        device: Device = "cpu",
        degraded: DegradedCrops | None = None,
    ) -> None:
        self.config = config or CropConfig()
        self.photometric, self.degraded = photometric or Photometric(), degraded
        if not images or not all(images):
            raise ValueError("pairs of crops need at least one image of every scene")
        self.bank = crop_bank([image for scene in images for image in scene], device)
        counts = torch.tensor([len(scene) for scene in images])
        self._count, self._first = counts, counts.cumsum(0) - counts
        self._size = torch.tensor([list(scene[0].shape) for scene in images]).flip(1).float()  # width, height

    def __len__(self) -> int:
        return len(self._count)

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Draw a batch.

        Returns:
            ``first``, ``second``: crops (N, 1, S, S) in [0, 1], N = num_images * per_image, image-major;
            ``to_first``, ``to_second``: maps between their pixels (N, 3, 3); ``inside_first``, ``inside_second``:
            1 where the pixel lies in the image and not in a black corner (N, 1, S, S).

        """
        c = self.config
        count = num_images * c.per_image

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, generator=generator)

        scene = torch.randint(len(self), (num_images,), generator=generator).repeat_interleave(c.per_image)
        exposures = (torch.rand(2, count, generator=generator) * self._count[scene]).long() + self._first[scene]
        step = torch.exp(uniform(math.log(c.min_step), math.log(c.max_step)))
        last = self._size[scene] - 1
        room = (last - step[:, None] * c.size).clamp(min=0) / 2  # crops larger than the image are centred
        centre = last / 2 + room * (2 * torch.rand(count, 2, generator=generator) - 1)
        to_image = similarities(step, uniform(-0.2, 0.2), centre) @ translation(torch.full((2,), (1 - c.size) / 2))
        to_first = random_homographies(generator, count, c, (c.size, c.size))
        device = self.bank.device
        batch = {"to_first": to_first.to(device), "to_second": torch.linalg.inv(to_first).to(device)}
        for name, index, matrix in (("first", exposures[0], to_image), ("second", exposures[1], to_image @ to_first)):
            crop, inside = sample_crops(self.bank, index.to(device), matrix.to(device), c.size)
            changed = augment(crop, self.photometric, generator)
            if self.degraded is not None:
                changed = with_degraded(crop, changed, self.degraded, generator)
            batch |= {name: changed, f"inside_{name}": inside}
        if c.black_corner > 0:
            kept = _cut_corners(batch["inside_second"], c.black_corner, generator)
            batch |= {name: batch[name] * kept for name in ("second", "inside_second")}
        return batch


def crop_bank(images: Sequence[Tensor], device: Device = "cpu") -> ImageBank:
    """Keep images (H, W), uint8, as :func:`sample_crops` needs them."""
    return ImageBank(images, device, halve_by_means, SMALLEST)


def halve_by_means(x: Tensor) -> Tensor:
    """Halve images (B, C, H, W) by means of 2x2 pixels.

    Sampling at most every second pixel of such levels never aliases much. The binomial filter of PatchPyramid (variance
    1.25 pixels) would blur more than the detector's levels do (0.75). Odd sides are interpolated.
    """
    return F.interpolate(x, size=[side // 2 for side in x.shape[-2:]], mode="bilinear", align_corners=False)


def sample_crops(bank: ImageBank, index: Tensor, to_image: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sample crops from the levels whose pixels are just finer than theirs.

    Args:
        bank: see :func:`crop_bank`.
        index: number of the image of each crop, shape (N,).
        to_image: maps from the pixels of the crops to those of the images, shape (N, 3, 3).
        size: S.

    Returns:
        Crops (N, 1, S, S) in [0, 1], and masks of their shape: 1 where the pixel lies in the image.

    """
    position = warp_grid(to_image, size).flatten(1, 2)
    last = bank.sizes(index).flip(1)[:, None] - 1
    inside = ((position >= 0) & (position <= last)).all(-1)
    step = zooms(to_image, to_image.new_full((1, 2), (size - 1) / 2))[:, 0]  # in the middle of the crop
    level = step.clamp(min=1e-6).log2().floor().clamp(min=0).long()
    crop = bank.sample(index, position, level)
    return crop.view(-1, 1, size, size), inside.view(-1, 1, size, size).float()


class CommonView(NamedTuple):
    """What two crops of a batch share.

    Args:
        to_second: positions in the second crop of the pixels of the first, shape (N, S, S, 2).
        to_first: the reverse.
        visible: of each crop, 1 where the other one shows the pixel and can score it, shape (N, 1, S, S).
        common: of each crop, 1 where moreover the pixel itself can be scored.

    """

    to_second: Tensor
    to_first: Tensor
    visible: list[Tensor]
    common: list[Tensor]


def common_view(batch: dict[str, Tensor]) -> CommonView:
    """Return what the crops of :meth:`WarpedCrops.draw` share."""
    size = batch["first"].shape[-1]
    inside = [_eroded(batch[key]) for key in ("inside_first", "inside_second")]
    to_second, to_first = warp_grid(batch["to_second"], size), warp_grid(batch["to_first"], size)
    visible = [sample_pixels(inside[1], to_second).floor(), sample_pixels(inside[0], to_first).floor()]
    return CommonView(to_second, to_first, visible, [inside[0] * visible[0], inside[1] * visible[1]])


def _eroded(inside: Tensor) -> Tensor:
    """Pixels whose whole filter window lies in the image and in the crop."""
    half = FILTER_SIZE // 2
    kept = 1 - max_filter(1 - inside, half)
    kept[..., :half, :] = kept[..., -half:, :] = 0
    kept[..., :half] = kept[..., -half:] = 0
    return kept


def _cut_corners(like: Tensor, share: float, generator: Generator) -> Tensor:
    """Masks (N, 1, S, S), of which ``share`` are 0 beyond a straight line through the crop."""
    count, size = len(like), like.shape[-1]
    angle = torch.rand(count, generator=generator) * (2 * math.pi)
    # at most half of the crop is lost
    distance = torch.rand(count, generator=generator) * (size / 2)
    distance[torch.rand(count, generator=generator) >= share] = 2.0 * size
    offset = torch.arange(size) - (size - 1) / 2
    along = angle.cos().view(-1, 1, 1) * offset + angle.sin().view(-1, 1, 1) * offset[:, None]
    return (along <= distance.view(-1, 1, 1)).to(like)[:, None]
