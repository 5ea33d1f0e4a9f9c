"""Many gray images and their halvings on one device, sampled in one pass, from which training on a GPU cuts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kornia_lift._checks import Device, check_device

Halve = Callable[[Tensor], Tensor]


class ImageBank:
    """Samples many images of different sizes at once, bilinearly; beyond the border they are replicated.

    All levels of all images lie one behind the other in one 8-bit tensor, so that a batch costs few kernels however
    many images it is cut from.

    Args:
        images: gray images, uint8, shape (H, W) each.
        device: where the images are kept and sampled.
        halve: halves an image (1, 1, H, W) of gray values up to 255.
        smallest: side of the smallest level in pixels; levels end before it.

    Raises:
        ValueError: if there are no images, or this machine has no such device.

    """

    def __init__(self, images: Sequence[Tensor], device: Device, halve: Halve, smallest: int = 32) -> None:
        device = check_device(device, type(self).__name__)
        if not images:
            raise ValueError("a bank needs at least one image")
        pixels: list[Tensor] = []
        tables: list[list[tuple[int, int, int]]] = []
        begin = 0
        for image in images:
            level = image.to(device)[None, None].float()
            table: list[tuple[int, int, int]] = []
            while True:
                height, width = level.shape[-2:]
                pixels.append(level.round().to(torch.uint8).flatten())
                table.append((begin, height, width))
                begin += height * width
                if min(height, width) < 2 * smallest:
                    break
                level = halve(level)
            tables.append(table)
        self._pixels = torch.cat(pixels)
        deepest = max(map(len, tables))
        rows = [[*table, *[table[-1]] * (deepest - len(table))] for table in tables]
        self._table = torch.tensor(rows, device=device)  # images, levels, (first pixel, height, width)
        self._depth = torch.tensor([len(table) for table in tables], device=device)

    def __len__(self) -> int:
        return len(self._table)

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self._pixels.device

    def sizes(self, image: Tensor) -> Tensor:
        """Height and width (N, 2) of images (N,)."""
        return self._table[image, 0, 1:]

    def sample(self, image: Tensor, position: Tensor, level: Tensor) -> Tensor:
        """Sample images at positions.

        Args:
            image: index of the image of each sample set, shape (N,).
            position: x and y in pixels of the image, pixel centres at integers, shape (N, P, 2).
            level: how often the image is halved before it is sampled, shape (N,); at most its last level is used.

        Returns:
            Gray values in [0, 1], shape (N, P), float32.

        """
        level = torch.minimum(level.clamp(min=0), self._depth[image] - 1)
        begin, height, width = self._table[image, level].unbind(-1)
        full = self._table[image, 0, 1:]
        zoom = torch.stack([width / full[:, 1], height / full[:, 0]], -1)[:, None]
        last = torch.stack([width, height], -1)[:, None] - 1
        at = (position + 0.5).mul_(zoom).sub_(0.5).clamp_(min=0)
        at = torch.minimum(at, last.to(position.dtype), out=at)
        low = torch.minimum(at.long(), (last - 1).clamp(min=0))
        x, y = at.sub_(low).unbind(-1)
        first = (low[..., 1] * width[:, None]).add_(low[..., 0]).add_(begin[:, None])
        right, down = (width > 1).long()[:, None], (width * (height > 1))[:, None]
        corners = [
            self._pixels.index_select(0, at_corner.flatten()).view(first.shape).float()
            for at_corner in (first, first + right, first + down, first + (down + right))
        ]
        top, bottom = corners[0].lerp_(corners[1], x), corners[2].lerp_(corners[3], x)
        return top.lerp_(bottom, y).div_(255)
