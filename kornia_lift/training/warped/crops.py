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
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.limits import check_limits


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
    """Draw pairs of crops from images in memory.

    Args:
        images: for each scene its aligned images (one, or several exposures), uint8, shape (H, W).
        config: how pairs are drawn.
        photometric: photometric augmentation of both crops.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        config: CropConfig | None = None,
        photometric: Photometric | None = None,
    ) -> None:
        self.config = config or CropConfig()
        self.photometric = photometric or Photometric()
        if not images or not all(images):
            raise ValueError("pairs of crops need at least one image of every scene")
        # coarser copies by 2x2 means: sampling at most every second pixel never aliases much. The binomial filter of
        # PatchPyramid (variance 1.25 pixels) would blur more than the detector's levels do (0.75)
        self.pyramids = [[halvings(image, self.config.max_step) for image in scene] for scene in images]

    def draw(self, generator: Generator, num_images: int) -> dict[str, Tensor]:
        """Draw a batch.

        Returns:
            ``first``, ``second``: crops (N, 1, S, S) in [0, 1], N = num_images * per_image, image-major;
            ``to_first``, ``to_second``: maps between their pixels (N, 3, 3); ``inside_first``, ``inside_second``:
            1 where the pixel lies in the image and not in a black corner (N, 1, S, S).

        """
        c = self.config
        first: list[Tensor] = []
        second: list[Tensor] = []
        maps: list[Tensor] = []
        inside: list[Tensor] = []
        for index in torch.randint(len(self.pyramids), (num_images,), generator=generator).tolist():
            scene = self.pyramids[index]
            for _ in range(c.per_image):
                step = math.exp(_uniform(generator, math.log(c.min_step), math.log(c.max_step)))
                exposures = torch.randint(len(scene), (2,), generator=generator).tolist()
                height, width = scene[0][0].shape
                # crops larger than the image at this level are centred
                reach = step * c.size / 2
                x = _uniform(generator, *_range(reach, width))
                y = _uniform(generator, *_range(reach, height))
                angle = _uniform(generator, -0.2, 0.2)
                placed = similarities(torch.tensor([step]), torch.tensor([angle]), torch.tensor([[x, y]]))[0]
                to_image = placed @ translation(torch.full((2,), (1 - c.size) / 2))
                warp = random_homography(generator, c, (c.size, c.size))
                for out, exposure, matrix in ((first, exposures[0], to_image), (second, exposures[1], to_image @ warp)):
                    crop, mask = sample_crop(scene[exposure], matrix, c.size)
                    out.append(crop)
                    inside.append(mask)
                maps.append(warp)
        to_first = torch.stack(maps)
        augmented = [augment(torch.cat(crops), self.photometric, generator) for crops in (first, second)]
        inside_second = torch.cat(inside[1::2])
        if c.black_corner > 0:  # nothing is drawn without, so that the batches of older runs stay what they were
            picture = _cut_corners(inside_second, c.black_corner, generator)
            augmented[1], inside_second = augmented[1] * picture, inside_second * picture
        return {
            "first": augmented[0],
            "second": augmented[1],
            "to_first": to_first,
            "to_second": torch.linalg.inv(to_first),
            "inside_first": torch.cat(inside[0::2]),
            "inside_second": inside_second,
        }


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


def halvings(image: Tensor, max_step: float) -> list[Tensor]:
    """Coarser copies of an image (H, W), uint8, by 2x2 means: the levels that crops of up to ``max_step`` need."""
    levels = [image]
    while 2 ** len(levels) <= max_step and min(levels[-1].shape) >= 8:
        smaller = F.avg_pool2d(levels[-1][None, None].float(), 2)[0, 0]
        levels.append(smaller.round().to(torch.uint8))
    return levels


def sample_crop(pyramid: Sequence[Tensor], to_image: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Sample a crop (1, 1, S, S) in [0, 1] and its mask from the level whose pixels are just finer than the crop's.

    Args:
        pyramid: see :func:`halvings`.
        to_image: map from the pixels of the crop to those of the image, shape (3, 3).
        size: S.

    """
    step = float(torch.linalg.det(to_image[:2, :2]).abs().sqrt())
    level = min(len(pyramid) - 1, max(0, math.floor(math.log2(max(step, 1e-6)))))
    position = warp_grid(to_image[None], size)
    height, width = pyramid[0].shape
    mask = ((position >= 0) & (position <= position.new_tensor([width - 1, height - 1]))).all(-1)
    position = (position + 0.5) / 2**level - 0.5
    image = pyramid[level][None, None].float() / 255
    return sample_pixels(image, position, "border"), mask[:, None].float()


def _cut_corners(like: Tensor, share: float, generator: Generator) -> Tensor:
    """Masks (N, 1, S, S), of which ``share`` are 0 beyond a straight line through the crop."""
    count, size = len(like), like.shape[-1]
    angle = torch.rand(count, generator=generator) * (2 * math.pi)
    # at most half of the crop is lost
    distance = torch.rand(count, generator=generator) * (size / 2)
    distance[torch.rand(count, generator=generator) >= share] = 2.0 * size
    offset = torch.arange(size) - (size - 1) / 2
    along = angle.cos().view(-1, 1, 1) * offset + angle.sin().view(-1, 1, 1) * offset[:, None]
    return (along <= distance.view(-1, 1, 1)).to(like.dtype)[:, None]


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


def _range(reach: float, extent: int) -> tuple[float, float]:
    return (reach, extent - 1 - reach) if extent - 1 > 2 * reach else ((extent - 1) / 2, (extent - 1) / 2)


def _uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * torch.rand((), generator=generator).item()
