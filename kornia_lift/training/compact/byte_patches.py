"""Patches cut from many images: pyramids in 8 bits, sampled by OpenCV, or on a GPU all at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kornia_lift._checks import Device, check_device
from kornia_lift._extras import require
from kornia_lift.geometry.pyramid import halve
from kornia_lift.training.data.bank import ImageBank

SMALLEST = 32  # side of the smallest level of a bank


class CutsPatches(Protocol):
    """What cuts patches of frames from many images."""

    def cut(self, image: Tensor, lafs: Tensor, size: int) -> Tensor:
        """Cut the patches of frames (N, 2, 3) from the images (N,); (N, 1, size, size) in [0, 1]."""
        ...


def patches_from(images: Sequence[Tensor], device: Device) -> CutsPatches:
    """Return what cuts patches fastest on a device."""
    device = check_device(device, "patches_from")
    return BytePatches(images) if device.type == "cpu" else BankPatches(images, device)


class BytePatches:
    """Cuts patches of frames from gray images.

    Convention:
        The samples and levels of :class:`~kornia_lift.geometry.pyramid.PatchPyramid`, which runs after training.

    Args:
        images: gray images, uint8, shape (H, W) each.

    """

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._images = images
        self._pyramids: dict[int, list[np.ndarray]] = {}

    def cut(self, image: Tensor, lafs: Tensor, size: int) -> Tensor:
        """Cut the patches of frames from their images.

        Args:
            image: index of the image of each frame, shape (N,).
            lafs: frames, shape (N, 2, 3).
            size: side of the patches in pixels.

        Returns:
            Patches (N, 1, size, size) in [0, 1].

        """
        cv2 = require("cv2", extra="train")
        out = np.empty((len(image), size, size), np.uint8)
        scale = lafs[:, :, :2].det().abs().sqrt()
        levels = (2 / size * scale).log2().floor().clamp(min=0).long().tolist()
        for row, (number, level, laf) in enumerate(zip(image.tolist(), levels, lafs.double().numpy(), strict=True)):
            pyramid = self._pyramid(number, size)
            height, width = pyramid[0].shape
            source = pyramid[min(level, len(pyramid) - 1)]
            zoom = np.array([source.shape[1] / width, source.shape[0] / height])[:, None]
            # column u of the patch is at (2 u + 1) / size - 1 of the frame
            axes = laf[:, :2] * zoom * (2 / size)
            origin = (laf[:, 2:] + 0.5) * zoom - 0.5 + axes.sum(1, keepdims=True) * (0.5 - size / 2)
            out[row] = cv2.warpAffine(
                source,
                np.concatenate([axes, origin], 1),
                (size, size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
        return torch.from_numpy(out)[:, None].float() / 255

    def _pyramid(self, image: int, size: int) -> list[np.ndarray]:
        """Levels of an image in 8 bits, made at their first use."""
        if image not in self._pyramids:
            level = self._images[image][None, None].float()
            levels = [level]
            while min(level.shape[-2:]) // 2 >= size:
                level = halve(level)
                levels.append(level)
            self._pyramids[image] = [level[0, 0].round().to(torch.uint8).numpy() for level in levels]
        return self._pyramids[image]


class BankPatches:
    """Cuts patches of frames from gray images on a GPU, as :class:`BytePatches` does on a CPU.

    Args:
        images: gray images, uint8, shape (H, W) each.
        device: where the images are kept and the patches are cut.

    """

    def __init__(self, images: Sequence[Tensor], device: Device) -> None:
        self._bank = ImageBank(images, device, halve, SMALLEST)

    def cut(self, image: Tensor, lafs: Tensor, size: int) -> Tensor:
        """Cut the patches of frames (N, 2, 3) from their images (N,); (N, 1, size, size) in [0, 1], on the device."""
        device = self._bank.device
        image, lafs = image.to(device), lafs.to(device)
        level = (2 / size * lafs[:, :, :2].det().abs().sqrt()).log2().floor().clamp(min=0).long()
        at = (torch.arange(size, dtype=lafs.dtype, device=device) * 2 + 1) / size - 1
        y, x = torch.meshgrid(at, at, indexing="ij")
        position = torch.stack([x, y], -1).view(-1, 2) @ lafs[:, :, :2].mT + lafs[:, None, :, 2]
        return self._bank.sample(image, position, level).view(-1, 1, size, size)
