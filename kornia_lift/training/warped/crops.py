"""Pairs of crops of one image, related by a known homography, at the levels of an image pyramid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.detector.extrema import max_filter
from kornia_lift.geometry import rotation_matrix
from kornia_lift.networks.response import FILTER_SIZE
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits

SMALLEST = 8  # side of the smallest level, pixels


@dataclass(frozen=True)
class CropConfig:
    """How pairs of crops are drawn.

    Args:
        size: side of the crops in pixels.
        per_image: crops of each image, at different levels of its pyramid.
        min_step: smallest level, in image pixels per crop pixel (below 1 the image is enlarged).
        max_step: largest level.
        scale: largest ratio of scale between the two crops: what is left between the levels of a pyramid.
        stretch: largest ratio of the axes (slant of the second view).
        perspective: largest relative change of scale from the centre to the border.
        shift: largest displacement of the second crop, in pixels.
        full_circle: share of pairs rotated by any angle; the others by up to 20 degrees.
        black_corner: share of second crops of which a corner is black, as in a rotated or rectified image.

    """

    size: int = 200
    per_image: int = 4
    min_step: float = 0.7
    max_step: float = 4.5
    scale: float = 1.25
    stretch: float = 1.7
    perspective: float = 0.25
    shift: float = 12.0
    full_circle: float = 0.5
    black_corner: float = 0.0

    def __post_init__(self) -> None:
        check_limits(self, "size", "per_image", at_least=1)
        check_limits(self, "min_step", above=0)
        check_limits(self, "max_step", at_least=self.min_step)
        check_limits(self, "scale", "stretch", at_least=1)
        check_limits(self, "perspective", "shift", at_least=0)
        check_limits(self, "full_circle", "black_corner", at_least=0, at_most=1)


class WarpedCrops:
    """Draw pairs of crops from images in memory, as one batch, on the device where the images are kept.

    Args:
        images: for each scene its aligned images (one, or several exposures), uint8, shape (H, W).
        config: how pairs are drawn.
        photometric: photometric augmentation of both crops.
        device: where the images are kept and the crops sampled.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        config: CropConfig | None = None,
        photometric: Photometric | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.config = config or CropConfig()
        self.photometric = photometric or Photometric()
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
            batch |= {name: augment(crop, self.photometric, generator), f"inside_{name}": inside}
        if c.black_corner > 0:
            kept = _cut_corners(batch["inside_second"], c.black_corner, generator)
            batch |= {name: batch[name] * kept for name in ("second", "inside_second")}
        return batch


def crop_bank(images: Sequence[Tensor], device: torch.device | str = "cpu") -> ImageBank:
    """Keep images (H, W), uint8, as :func:`sample_crops` needs them."""
    return ImageBank(images, device, halve_by_means, SMALLEST)


def halve_by_means(x: Tensor) -> Tensor:
    """Halve images (B, C, H, W) by means of 2x2 pixels.

    Sampling at most every second pixel of such levels never aliases much. The binomial filter of PatchPyramid (variance
    1.25 pixels) would blur more than the detector's levels do (0.75). Of odd sides the positions are interpolated.
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
    # the scale in the middle of the crop
    middle = to_image @ to_image.new_tensor([(size - 1) / 2, (size - 1) / 2, 1])
    step = (torch.linalg.det(to_image).abs() / middle[:, 2].abs() ** 3).sqrt()
    level = step.clamp(min=1e-6).log2().floor().clamp(min=0).long()
    crop = bank.sample(index, position, level)
    return crop.view(-1, 1, size, size), inside.view(-1, 1, size, size).float()


def warp_grid(matrix: Tensor, size: int) -> Tensor:
    """Positions, in pixels, to which the pixels of a square map go; (N, 3, 3) -> (N, size, size, 2)."""
    index = torch.arange(size, dtype=matrix.dtype, device=matrix.device)
    y, x = torch.meshgrid(index, index, indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3)
    moved = pixel @ matrix.mT
    depth = torch.where(moved[..., 2:] > 1e-3, moved[..., 2:], torch.full_like(moved[..., 2:], 1e-3))
    return (moved[..., :2] / depth).view(len(matrix), size, size, 2)


def sample_pixels(image: Tensor, position: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Bilinear samples of (N, C, H, W) at pixel positions (N, h, w, 2), pixel centres at integers."""
    height, width = image.shape[-2:]
    extent = position.new_tensor([width - 1, height - 1])
    return F.grid_sample(image, position / extent * 2 - 1, padding_mode=padding_mode, align_corners=True)


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


def random_homography(generator: Generator, c: CropConfig, size: tuple[int, int]) -> Tensor:
    """Draw one homography (3, 3); see :func:`random_homographies`."""
    return random_homographies(generator, 1, c, size)[0]


def random_homographies(generator: Generator, count: int, c: CropConfig, size: tuple[int, int]) -> Tensor:
    """Draw maps from the pixels of second views to those of the first ones, about their centres.

    Args:
        generator: CPU generator.
        count: number of maps.
        c: how much of each change; perspective is relative to ``c.size``.
        size: width and height of both views.

    Returns:
        Homographies, shape (count, 3, 3).

    """

    def uniform(low: float = -1.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator)

    full = uniform(0, 1) < c.full_circle
    angle = uniform() * torch.where(full, math.pi, 0.35)
    scale = torch.exp(uniform() * math.log(c.scale))
    ratio = torch.exp(uniform(0, 1) * math.log(c.stretch)).sqrt()
    axis = rotation_matrix(uniform() * math.pi)
    slant, tilt = torch.eye(3).repeat(count, 1, 1), torch.eye(3).repeat(count, 1, 1)
    slant[:, :2, :2] = axis @ torch.diag_embed(torch.stack([1 / ratio, ratio], 1)) @ axis.mT
    tilt[:, 2, :2] = torch.stack([uniform(), uniform()], 1) * (c.perspective / (c.size / 2))
    shift = torch.stack([uniform(), uniform()], 1) * c.shift
    middle = torch.tensor([(side - 1) / 2 for side in size])
    return translation(middle) @ similarities(scale, angle, shift) @ slant @ tilt @ translation(-middle)


def similarities(scale: Tensor, angle: Tensor, shift: Tensor) -> Tensor:
    """Matrices (N, 3, 3) that scale by (N,), rotate by (N,) radians, clockwise on screen, and then shift by (N, 2)."""
    matrix = torch.eye(3).repeat(len(scale), 1, 1)
    matrix[:, :2, :2] = scale[:, None, None] * rotation_matrix(angle)
    matrix[:, :2, 2] = shift
    return matrix


def translation(by: Tensor) -> Tensor:
    """Matrix (3, 3) that shifts by (2,)."""
    matrix = torch.eye(3)
    matrix[:2, 2] = by
    return matrix
