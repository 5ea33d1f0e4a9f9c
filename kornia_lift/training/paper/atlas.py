"""Images of any size in one tensor, from which patches of many images are cut at once, on any device."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from kornia_lift._checks import Device, check_device
from kornia_lift._extras import require
from kornia_lift.geometry import rotation_matrix


class ImageAtlas:
    """All images with their half-size, quarter-size ... copies, so that large patches are cut without aliasing.

    Cutting many patches is one gather for all of them: the images need not have one size, and no patch waits for the
    image of another.
    :class:`~kornia_lift.geometry.pyramid.PatchPyramid` cuts the patches of one image at a time, on the CPU.

    Args:
        images: 8-bit gray images, shape (H, W) each.
        device: where patches are cut. Memory: 1.33 bytes per pixel.
        levels: sizes of each image; a patch sampled coarser than 1 pixel is cut from the next smaller copy.

    Raises:
        ValueError: if there are no images, or this machine has no such device.

    """

    def __init__(self, images: Sequence[Tensor], device: Device = "cpu", levels: int = 4) -> None:
        device = check_device(device, type(self).__name__)
        if not images:
            raise ValueError("an atlas needs at least one image")
        cv2 = require("cv2", extra="train")
        parts, shapes = [], []
        for image in images:
            level = image.cpu().numpy()
            for _ in range(levels):
                parts.append(torch.from_numpy(level.copy()).flatten())
                shapes.append(level.shape)
                level = cv2.pyrDown(level)
        size = torch.tensor(shapes, device=device)
        self.levels = levels
        self.pixels = torch.cat(parts).to(device)
        self.height, self.width = size.unbind(1)
        self.begin = (self.height * self.width).cumsum(0) - self.height * self.width

    @property
    def device(self) -> torch.device:
        """Device of the images and of the patches."""
        return self.pixels.device

    def __len__(self) -> int:
        return len(self.height) // self.levels

    def cut(self, image: Tensor, xy: Tensor, axes: Tensor, size: int) -> Tensor:
        """Cut parallelograms by bilinear interpolation; beyond the border the image is replicated.

        Args:
            image: index of the image of each patch, shape (N,).
            xy: centre in pixels, shape (N, 2).
            axes: half sides: the patch point (u, v), -1 and 1 the first and last pixel centres, lies at
                ``xy + axes @ (u, v)``; shape (N, 2, 2).
            size: side of the patch in pixels.

        Returns:
            Patches with values in [0, 1], shape (N, 1, size, size), on the atlas' device.

        """
        image, xy, axes = image.to(self.device), xy.to(self.device), axes.to(self.device)
        step = torch.linalg.det(axes).abs().sqrt() * 2 / (size - 1)  # image pixels per patch pixel
        level = step.clamp(min=1).log2().floor().long().clamp(max=self.levels - 1)
        row = image.long() * self.levels + level
        ticks = torch.linspace(-1, 1, size, device=self.device)
        v, u = torch.meshgrid(ticks, ticks, indexing="ij")
        offsets = torch.stack([u, v]).view(2, -1)
        # pyrDown keeps every other pixel: pixel k of a copy is pixel 2k
        at = (xy[:, :, None] + axes @ offsets) / (2.0**level)[:, None, None]
        width, height, begin = (t[row][:, None] for t in (self.width, self.height, self.begin))
        x = at[:, 0].clamp(min=0).minimum(width - 1.0)
        y = at[:, 1].clamp(min=0).minimum(height - 1.0)
        x0, y0 = x.long(), y.long()
        fx, fy = x - x0, y - y0
        right = (x0 + 1 < width).long()
        down = (y0 + 1 < height).long() * width
        corner = begin + y0 * width + x0
        top = torch.lerp(self.pixels[corner].float(), self.pixels[corner + right].float(), fx)
        corner = corner + down
        bottom = torch.lerp(self.pixels[corner].float(), self.pixels[corner + right].float(), fx)
        return (torch.lerp(top, bottom, fy) / 255).view(-1, 1, size, size)


def rotated_axes(half_side: Tensor, theta: Tensor) -> Tensor:
    """Axes of squares rotated clockwise on screen by ``theta``.

    Args:
        half_side: in pixels, shape (N,).
        theta: radians, shape (N,).

    Returns:
        ``axes`` of :meth:`ImageAtlas.cut`, shape (N, 2, 2).

    """
    return half_side[:, None, None] * rotation_matrix(theta)


def gray_statistics(images: Sequence[Tensor]) -> tuple[float, float]:
    """Mean and standard deviation of the gray values of images, in [0, 1] units."""
    count = sum(i.numel() for i in images)
    total = sum(int(i.sum(dtype=torch.int64)) for i in images)
    square = sum(int((i.int() ** 2).sum(dtype=torch.int64)) for i in images)
    mean = total / count
    return mean / 255, math.sqrt(square / count - mean**2) / 255
