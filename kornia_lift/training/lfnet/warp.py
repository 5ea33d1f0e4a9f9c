"""Where the pixels of one view lie in another, by depth and relative pose, and what is visible there.

Convention:
    Pixel centres lie at integers. Maps are fetched by inverse warping: the map of view 2, read where the pixels of
    view 1 lie, is a map on the grid of view 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-6  # added to depths that divide


class Warp(NamedTuple):
    """Where the pixels of view 1 lie in view 2.

    Attributes:
        xy: positions in view 2, shape (B, H, W, 2).
        depth: depth along the axis of camera 2, shape (B, H, W).
    """

    xy: Tensor
    depth: Tensor


def warp_by_depth(depth: Tensor, intrinsics: tuple[Tensor, Tensor], rotation: Tensor, translation: Tensor) -> Warp:
    """Carry every pixel of view 1 to view 2.

    Args:
        depth: depth of view 1, shape (B, H, W).
        intrinsics: K of view 1 and view 2, each (B, 3, 3).
        rotation: R, shape (B, 3, 3), with X_2 = R X_1 + t.
        translation: t, shape (B, 3), in the unit of the depth.

    """
    height, width = depth.shape[-2:]
    row, column = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device),
        torch.arange(width, dtype=depth.dtype, device=depth.device),
        indexing="ij",
    )
    pixels = torch.stack([column, row, torch.ones_like(row)], -1).flatten(0, 1)
    first, second = intrinsics
    points = (pixels @ torch.linalg.inv(first).mT) * depth.flatten(1)[..., None]
    moved = points @ rotation.mT + translation[:, None]
    projected = moved @ second.mT
    xy = projected[..., :2] / (projected[..., 2:] + TINY)
    return Warp(xy.unflatten(1, (height, width)), moved[..., 2].unflatten(1, (height, width)))


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


def is_inside(xy: Tensor, size: tuple[int, int]) -> Tensor:
    """Say which positions (..., 2) have four pixels of an image of ``size`` (rows, columns) around them."""
    x, y = xy.detach().floor().unbind(-1)
    return (x >= 0) & (x + 1 < size[1]) & (y >= 0) & (y + 1 < size[0])


def visibility(warp: Warp, depth: Tensor, tolerance: float = 0.05, *, relative: bool = True) -> Tensor:
    """Say which pixels of view 1 are seen in view 2.

    They land inside, lie in front of the camera, and the depth of view 2 there is that of the point: what stands
    in front of it would be nearer. The authors' code compares with the depth in view 1 instead, which motion along the
    axis changes.

    Args:
        warp: of view 1 to view 2.
        depth: depth of view 2, shape (B, H, W); 0 where unknown.
        tolerance: largest difference of depths.
        relative: the tolerance is a share of the depth: reconstructions from images have no unit of length.

    Returns:
        Booleans of shape (B, H, W).

    Raises:
        ValueError: if the depth is of another size than the warp.

    """
    if depth.shape != warp.depth.shape:
        raise ValueError(f"visibility expects depth {tuple(warp.depth.shape)}, got {tuple(depth.shape)}")
    there = fetch_bilinear(depth, warp.xy)
    largest = tolerance * warp.depth if relative else torch.full_like(warp.depth, tolerance)
    size = depth.shape[-2], depth.shape[-1]
    return is_inside(warp.xy, size) & (warp.depth > 0) & (there > 0) & ((there - warp.depth).abs() < largest)
