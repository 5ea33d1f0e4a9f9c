"""Rotated and rescaled copies of images, with the transfer that belongs to them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from kornia_lift.scenes.homographies import apply_homography
from kornia_lift.scenes.scene import FloatArray, HasLocalAffine, Pair, Scene, SkippedPair, Transferred, as_points


@dataclass(frozen=True)
class ImageWarp:
    """A rotation, or a change of size, of a whole image.

    Args:
        angle_deg: degrees counter-clockwise on screen. The canvas grows to hold the whole rotated image; what
            lies outside it is black. Multiples of 90 degrees move pixels without interpolation, others use bilinear.
        factor: size of the copy over the size of the original (anti-aliased bilinear).

    Raises:
        ValueError: if both are given, or the factor is not positive.
    """

    angle_deg: float = 0.0
    factor: float = 1.0

    def __post_init__(self) -> None:
        if not self.factor > 0:
            raise ValueError(f"factor must be positive; got {self.factor}")
        if self.angle_deg % 360 and self.factor != 1.0:
            raise ValueError("either rotate or rescale, not both at once")

    @property
    def label(self) -> str:
        """Short name, e.g. ``rotate45`` or ``scale0.5``; ``identity`` if nothing changes."""
        if self.angle_deg % 360:
            return f"rotate{self.angle_deg:g}"
        return f"scale{self.factor:g}" if self.factor != 1.0 else "identity"

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the copy of an image of this width and height."""
        width, height = size
        if self.factor != 1.0:
            return max(1, round(width * self.factor)), max(1, round(height * self.factor))
        cos, sin = (abs(v) for v in self._cos_sin())
        # The 1e-6 keeps a canvas of exactly n pixels from becoming n + 1 by rounding.
        return math.ceil(width * cos + height * sin - 1e-6), math.ceil(width * sin + height * cos - 1e-6)

    def matrix(self, size: tuple[int, int]) -> FloatArray:
        """Homography from the image's pixels to the copy's, shape (3, 3).

        Convention: pixel centres at integers; the outlines of the two canvases share their centre.
        """
        out = self.output_size(size)
        if self.factor != 1.0:
            sx, sy = out[0] / size[0], out[1] / size[1]
            return np.array([[sx, 0.0, (sx - 1) / 2], [0.0, sy, (sy - 1) / 2], [0.0, 0.0, 1.0]])
        cos, sin = self._cos_sin()
        linear = np.array([[cos, sin], [-sin, cos]])  # counter-clockwise on screen, y down
        shift = (np.array(out) - 1) / 2 - linear @ ((np.array(size) - 1) / 2)
        return np.block([[linear, shift[:, None]], [np.array([[0.0, 0.0, 1.0]])]])

    def __call__(self, image: Tensor) -> Tensor:
        """The copy of an image (B, C, H, W); device and dtype follow the input."""
        height, width = image.shape[-2:]
        if self.factor != 1.0:
            out_width, out_height = self.output_size((width, height))
            copy = interpolate(image, (out_height, out_width), mode="bilinear", antialias=True, align_corners=False)
            return copy.clamp(0.0, 1.0)
        if self.angle_deg % 90 == 0:
            return torch.rot90(image, int(self.angle_deg // 90) % 4, dims=(-2, -1))
        out_width, out_height = self.output_size((width, height))
        inverse = torch.from_numpy(np.linalg.inv(self.matrix((width, height)))).to(image)
        y, x = torch.meshgrid(
            torch.arange(out_height, device=image.device, dtype=image.dtype),
            torch.arange(out_width, device=image.device, dtype=image.dtype),
            indexing="ij",
        )
        source = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ inverse.T
        extent = torch.tensor([width, height], device=image.device, dtype=image.dtype)
        grid = (source[..., :2] + 0.5) * 2 / extent - 1
        grid = grid.expand(image.shape[0], -1, -1, -1)
        return grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _cos_sin(self) -> tuple[float, float]:
        angle = math.radians(self.angle_deg)
        cos, sin = math.cos(angle), math.sin(angle)
        # Exact for multiples of 90 degrees, so that the matrix is that of torch.rot90.
        return (round(cos), round(sin)) if self.angle_deg % 90 == 0 else (cos, sin)


#: The image as it is.
IDENTITY = ImageWarp()
#: The angles of the robustness protocol, degrees.
ROTATIONS = tuple(ImageWarp(angle_deg=a) for a in (15.0, 45.0, 90.0, 180.0))
#: The changes of size of the robustness protocol.
RESCALES = tuple(ImageWarp(factor=f) for f in (0.5, 0.7, 1.4, 2.0))


class WarpedScene:
    """A scene whose pairs have a warped copy as their second image.

    Image ``len(base.names) + k`` is the warped copy of image ``k``; the originals keep their indices and names, so
    their features can be shared between warps.
    """

    def __init__(self, base: Scene, warp: ImageWarp) -> None:
        self.base = base
        self.warp = warp
        self.name = base.name
        self._count = len(base.names)
        copies = tuple(f"{name}@{warp.label}" for name in base.names)
        self.names: tuple[str, ...] = (*base.names, *copies)
        self.pairs: tuple[Pair, ...] = tuple(Pair(p.i, self._count + p.j, p.angle_deg, p.overlap) for p in base.pairs)
        self.skipped: tuple[SkippedPair, ...] = tuple(
            SkippedPair(p.i, self._count + p.j, p.reason) for p in base.skipped
        )

    def image(self, index: int) -> Tensor:
        """Image or copy, float in [0, 1], shape (1, C, H, W)."""
        original, warped = self._split(index)
        image = self.base.image(original)
        return self.warp(image) if warped else image

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height in pixels."""
        original, warped = self._split(index)
        size = self.base.image_size(original)
        return self.warp.output_size(size) if warped else size

    def transfer(self, i: int, j: int, points: NDArray[np.floating] | Tensor) -> Transferred:
        """Carry points (N, 2): out of the copy, through the base scene, into the copy."""
        (first, from_copy), (second, to_copy) = self._split(i), self._split(j)
        start = as_points(points)
        if from_copy:
            start = apply_homography(_inverse(self.warp.matrix(self.base.image_size(first))), start)
        moved = self.base.transfer(first, second, start)
        if not to_copy:
            return moved
        matrix = self.warp.matrix(self.base.image_size(second))
        return Transferred(apply_homography(matrix, moved.points), moved.status)

    def _split(self, index: int) -> tuple[int, bool]:
        return (index - self._count, True) if index >= self._count else (index, False)


class WarpedAffineScene(WarpedScene):
    """A warped scene whose base knows how the surroundings of a point are distorted."""

    def local_affine(self, i: int, j: int, points: FloatArray) -> FloatArray:
        """Linear part of the transfer around each point (N, 2), shape (N, 2, 2); a warp is the same everywhere."""
        (first, from_copy), (second, to_copy) = self._split(i), self._split(j)
        before, after = np.eye(3), np.eye(3)
        if from_copy:
            before = _inverse(self.warp.matrix(self.base.image_size(first)))
            points = apply_homography(before, points)
        if to_copy:
            after = self.warp.matrix(self.base.image_size(second))
        assert isinstance(self.base, HasLocalAffine)  # ensured by warp_scene
        return np.asarray(after[:2, :2] @ self.base.local_affine(first, second, points) @ before[:2, :2])


def warp_scene(base: Scene, warp: ImageWarp) -> WarpedScene:
    """The scene with warped second images; it measures the overlap form if the base does."""
    return (WarpedAffineScene if isinstance(base, HasLocalAffine) else WarpedScene)(base, warp)


def _inverse(matrix: FloatArray) -> FloatArray:
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)
