r"""Pairs of views, and where every pixel of one lies in the other.

Convention:
    A batch of views is a dictionary: ``first`` and ``second``, images (B, 1, S, S) in [0, 1]; and for either direction
    the warp of its pixels: ``to_second`` positions (B, S, S, 2) in the second view of the pixels of the first one,
    pixel centres at integers; ``seen_first`` where that is known and the second view shows the point, booleans
    (B, S, S); ``zoom_first``, how many times larger things are in the second view, (B, S, S); ``rotation_first``, by
    how much they are rotated there, radians, clockwise on screen, (B, S, S). Likewise ``to_first``, ``seen_second``,
    ``zoom_second`` and ``rotation_second``.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Generator, Tensor

from kornia_lift.geometry import rotation_matrix
from kornia_lift.training.data.bank import ImageBank
from kornia_lift.training.data.photometric import Photometric, augment
from kornia_lift.training.warped.crops import WarpedCrops, sample_crops
from kornia_lift.training.warped.homographies import CropConfig, sample_pixels, warp_grid

Views = dict[str, Tensor]


class ViewSource(Protocol):
    """Where pairs of views come from."""

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw ``count`` pairs, a function of the state of the generator only."""
        ...


class ImageSource(ViewSource, Protocol):
    """Draws them from images that it holds."""

    def with_rotation(self, limit: float) -> ImageSource:
        """Return a source that shares the images, with another largest rotation in degrees."""
        ...


def join_views(parts: Sequence[Views]) -> Views:
    """Join batches of views."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def homography_warp(matrix: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return positions, magnification and rotation of a homography at every pixel of a square image.

    .. math:: J = \frac{1}{w} \left(H_{2 \times 2} - x' h_3^T\right)

    is its Jacobian; the magnification is :math:`\sqrt{|\det J|}`, the rotation that of the nearest similarity.

    Args:
        matrix: H, shape (B, 3, 3).
        size: S.

    Returns:
        Positions (B, S, S, 2), magnification (B, S, S), rotation in radians, clockwise on screen, (B, S, S).

    """
    xy = warp_grid(matrix, size)
    at = torch.arange(size, dtype=matrix.dtype, device=matrix.device)
    row, column = torch.meshgrid(at, at, indexing="ij")
    h = matrix[:, None, None]
    depth = (h[..., 2, 0] * column + h[..., 2, 1] * row + h[..., 2, 2]).clamp(min=1e-3)
    jacobian = (h[..., :2, :2] - xy[..., :, None] * h[..., 2:, :2]) / depth[..., None, None]
    (a, b), (c, d) = (line.unbind(-1) for line in jacobian.unbind(-2))
    zoom = (a * d - b * c).abs().sqrt().clamp(min=1e-6)  # torch.linalg.det factorises each matrix
    rotation = torch.atan2(c - b, a + d)
    return xy, zoom, rotation


class WarpedViews:
    """An image and a synthetic warp of it: the relation of their pixels is known wherever both show the image.

    Args:
        images: for each scene its aligned images, uint8, shape (H, W).
        size: side of the views in pixels.
        steps: finest and coarsest resolution, in pixels of the image per pixel.
        scale: largest ratio of scale between the views.
        rotation: largest rotation between the views, degrees.
        photometric: how the illumination of the views is changed.

    Raises:
        ValueError: if there are no images.

    """

    def __init__(
        self,
        images: Sequence[Sequence[Tensor]],
        size: int,
        steps: tuple[float, float] = (0.8, 3.0),
        scale: float = 1.414,
        rotation: float = 180.0,
        photometric: Photometric | None = None,
    ) -> None:
        crops = CropConfig(
            size=size,
            per_image=1,
            min_step=steps[0],
            max_step=steps[1],
            scale=scale,
            shift=size / 16,
            full_circle=1.0,
            rotation=rotation,
        )
        self.crops = WarpedCrops(images, crops, photometric)
        self.size = size

    def with_rotation(self, limit: float) -> WarpedViews:
        """Return a source of the same images that adds another largest rotation, degrees."""
        other = copy.copy(self)
        other.crops = copy.copy(self.crops)
        other.crops.config = replace(self.crops.config, rotation=limit)
        return other

    def draw(self, generator: Generator, count: int) -> Views:
        """Draw pairs of views."""
        found = self.crops.draw(generator, count)
        views = {"first": found["first"], "second": found["second"]}
        for mine, other in (("first", "second"), ("second", "first")):
            # the homographies of the crops map from the second view to the first one, and back
            xy, zoom, rotation = homography_warp(found[f"to_{other}"], self.size)
            inside = is_inside(xy, (self.size, self.size)) & (sample_pixels(found[f"inside_{other}"], xy)[:, 0] > 0.999)
            views |= {
                f"to_{other}": xy,
                f"seen_{mine}": inside & (found[f"inside_{mine}"][:, 0] > 0),
                f"zoom_{mine}": zoom,
                f"rotation_{mine}": rotation,
            }
        return views


def augment_views(views: Views, photometric: Photometric, generator: Generator) -> Views:
    """Change the illumination of both views independently."""
    return {**views, **{name: augment(views[name], photometric, generator) for name in ("first", "second")}}


def is_inside(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Say which positions (..., 2) have four pixels of an image of ``size`` (rows, columns) around them."""
    x, y = xy.detach().floor().unbind(-1)
    return (x >= 0) & (x + 1 < size[1]) & (y >= 0) & (y + 1 < size[0])


def fetch_nearest(maps: Tensor, xy: Tensor) -> Tensor:
    """Read maps (B, H', W') at the pixels nearest to positions (B, H, W, 2); 0 outside."""
    column, row = xy.detach().nan_to_num(nan=-9.0).clamp(-9, 1e6).round().long().unbind(-1)
    height, width = maps.shape[-2:]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    image = torch.arange(len(maps), device=maps.device)[:, None, None]
    return torch.where(inside, maps[image, row.clamp(0, height - 1), column.clamp(0, width - 1)], 0)


def fetch_bilinear(maps: Tensor, xy: Tensor) -> Tensor:
    """Read maps (B, H', W') bilinearly at positions (B, H, W, 2); 0 where one of the four pixels around is outside."""
    height, width = maps.shape[-2:]
    inside = is_inside(xy, (height, width))
    at = torch.where(inside[..., None], xy, 0.0)
    left, top = at.detach().floor().unbind(-1)
    right, down = at[..., 0] - left, at[..., 1] - top
    column, row = left.long(), top.long()
    image = torch.arange(len(maps), device=maps.device)[:, None, None]
    upper = maps[image, row, column] * (1 - right) + maps[image, row, column + 1] * right
    lower = maps[image, row + 1, column] * (1 - right) + maps[image, row + 1, column + 1] * right
    return torch.where(inside, upper * (1 - down) + lower * down, 0.0)


def pixel_positions(size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Positions (x, y) of the pixels of a square view, row by row, shape (S * S, 2)."""
    at = torch.arange(size, dtype=dtype)
    row, column = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([column, row], -1).view(-1, 2)


def cut_around(
    banks: Sequence[ImageBank], points: Sequence[Tensor], linear: Sequence[Tensor], size: int, generator: Generator
) -> tuple[Views, list[Tensor], list[Tensor]]:
    """Cut a view of each of two images around a point that both show.

    The point lies off the centres of the views, so that the network does not learn where keypoints are.

    Args:
        banks: the images, one in each bank.
        points: position of the point in each image, pixels, shape (2,).
        linear: linear part of the map from the pixels of each view to those of its image, shape (2, 2).
        size: side of the views in pixels.
        generator: source of the offset.

    Returns:
        The images of the views; their maps to the pixels of the images, (3, 3) each; and where they lie inside of the
        images, booleans (1, S, S) each.

    """
    shift = (torch.rand(2, generator=generator) - 0.5) * (size / 2)
    middle = torch.full((2,), (size - 1) / 2)
    views: Views = {}
    maps, inside = [], []
    for name, bank, point, a in zip(("first", "second"), banks, points, linear, strict=True):
        origin = point + a @ shift - a @ middle
        to_image = torch.cat([torch.cat([a, origin[:, None]], 1), torch.tensor([[0.0, 0.0, 1.0]])])
        views[name], mask = sample_crops(bank, torch.tensor([0]), to_image[None], size)
        maps.append(to_image)
        inside.append(mask[:, 0] > 0)
    return views, maps, inside


def random_similarity(generator: Generator, scale: float, rotation: float) -> Tensor:
    """Draw a rotation up to ``rotation`` degrees and a log-uniform factor up to ``scale``, shape (2, 2)."""
    u = torch.rand(2, generator=generator) * 2 - 1
    factor, angle = scale ** float(u[0]), math.radians(rotation) * float(u[1])
    return factor * rotation_matrix(torch.tensor([angle]))[0]
