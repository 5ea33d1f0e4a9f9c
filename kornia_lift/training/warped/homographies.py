"""Homographies between crops: how they are drawn, where they take points and pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.training.limits import check_limits

NEAREST = 1e-3  # depth from which points count as in front of the camera
SMALL_ROTATION = 0.35  # radians


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
        full_circle: share of pairs rotated by up to ``rotation``; the others by up to 20 degrees, if that is less.
        rotation: largest rotation between the two crops, degrees.
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
    rotation: float = 180.0
    black_corner: float = 0.0

    def __post_init__(self) -> None:
        check_limits(self, "size", "per_image", at_least=1)
        check_limits(self, "min_step", above=0)
        check_limits(self, "max_step", at_least=self.min_step)
        check_limits(self, "scale", "stretch", at_least=1)
        check_limits(self, "perspective", "shift", at_least=0)
        check_limits(self, "full_circle", "black_corner", at_least=0, at_most=1)
        check_limits(self, "rotation", at_least=0, at_most=180)


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
    largest = math.radians(c.rotation)
    angle = uniform() * torch.where(full, largest, min(largest, SMALL_ROTATION))
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


def depths(matrix: Tensor, xy: Tensor) -> Tensor:
    """Third coordinate of points (P, 2) or (N, P, 2) under homographies (N, 3, 3); of one matrix (3, 3) shape (P,)."""
    return (F.pad(xy, (0, 1), value=1.0) @ matrix[..., 2, :, None])[..., 0]


def warp_points(matrix: Tensor, xy: Tensor) -> Tensor:
    """Map points by homographies; points behind the camera go far away.

    Not ``kornia.geometry.linalg.transform_points``, which mirrors points behind the camera to its front.

    Args:
        matrix: homographies, shape (N, 3, 3), or one (3, 3).
        xy: positions, shape (P, 2) or (N, P, 2).

    Returns:
        Positions (N, P, 2), of one matrix (P, 2).

    """
    moved = F.pad(xy, (0, 1), value=1.0) @ matrix.mT
    return moved[..., :2] / moved[..., 2:].clamp(min=NEAREST)


def zooms(matrix: Tensor, xy: Tensor) -> Tensor:
    """Return the magnification at points (P, 2) or (N, P, 2), shape (N, P).

    It is the root of the determinant of the Jacobian of homographies (N, 3, 3).
    """
    return (torch.linalg.det(matrix).abs()[:, None] / depths(matrix, xy).clamp(min=NEAREST) ** 3).sqrt()


def warp_grid(matrix: Tensor, size: int) -> Tensor:
    """Positions, in pixels, to which the pixels of a square map go; (N, 3, 3) -> (N, size, size, 2)."""
    index = torch.arange(size, dtype=matrix.dtype, device=matrix.device)
    y, x = torch.meshgrid(index, index, indexing="ij")
    return warp_points(matrix, torch.stack([x, y], -1).view(-1, 2)).view(len(matrix), size, size, 2)


def sample_pixels(image: Tensor, position: Tensor, padding_mode: str = "zeros") -> Tensor:
    """Bilinear samples of (N, C, H, W) at pixel positions (N, h, w, 2), pixel centres at integers."""
    height, width = image.shape[-2:]
    extent = position.new_tensor([width - 1, height - 1])
    return F.grid_sample(image, position / extent * 2 - 1, padding_mode=padding_mode, align_corners=True)
