"""Candidates of all levels, and the best of them in the slots of the output."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from kornia.feature import get_laf_center, get_laf_scale, laf_is_filled
from torch import Tensor, nn

from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.detector.suppression import suppress
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, lafs_from_lift

SPARE = 1.15  # candidates per slot that are localized: some of them turn out to be the same keypoint


class Candidates:
    """Keypoints of all levels of a batch of images.

    Args:
        img: the images, shape (B, 1, H, W).
        config: which of them suppress each other, and how far from the border they lie.

    """

    def __init__(self, img: Tensor, config: ScaleSpaceConfig) -> None:
        self._img, self._config = img, config
        wide = torch.promote_types(img.dtype, torch.float32)
        self._image = [torch.empty(0, dtype=torch.long, device=img.device)]
        self._frames = [img.new_empty(0, 3, dtype=wide)]
        self._value = [img.new_empty(0)]

    def add(self, image: Tensor, frames: Tensor, value: Tensor) -> None:
        """Add keypoints.

        Args:
            image: index of the image, shape (M,).
            frames: x, y and sigma in pixels of the image, shape (M, 3).
            value: score, shape (M,).

        """
        self._image.append(image)
        self._frames.append(frames)
        self._value.append(value)

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the responses (B, count) and upright LAFs (B, count, 2, 3) of the best keypoints, empty slots last."""
        image, frames, value = torch.cat(self._image), torch.cat(self._frames), torch.cat(self._value)
        if self._config.border > 0:
            inside = self._inside(frames.detach(), self._config.border)
            image, frames, value = image[inside], frames[inside], value[inside]
        lafs = lafs_from_lift(frames[None, :, :2], frames[None, :, 2])[0]
        return self._fill(image, lafs, value, count)

    def best_localized(self, count: int, localizer: nn.Module, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Do the same with frames that ``localizer`` corrects, ``(lafs, img) -> lafs``, before the last suppression.

        What it moves out of the image, or to where the mask (1 or B, 1, H, W) is 0, is dropped.
        """
        responses, lafs = self.best(math.ceil(SPARE * count))
        filled = laf_is_filled(lafs)
        lafs = localizer(lafs, self._img)
        height, width = self._img.shape[-2:]
        x, y = get_laf_center(lafs).detach().unbind(-1)
        kept = filled & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
        image = torch.arange(len(lafs), device=lafs.device)[:, None].expand_as(filled)
        if mask is not None:
            row, col = (v.round().long().clamp(0, n - 1) for v, n in ((y, height), (x, width)))
            kept &= mask[image if len(mask) > 1 else torch.zeros_like(image), 0, row, col] > 0
        return self._fill(image[kept], lafs[kept], responses[kept], count)

    def _fill(self, image: Tensor, lafs: Tensor, value: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Choose the best ``count`` keypoints of every image, one for each location."""
        config, batch = self._config, len(self._img)
        sigma = get_laf_scale(lafs.detach()[None])[0, :, 0, 0] / LAF_SCALE_PER_SIGMA
        radius = (config.suppression_sigma * sigma).clamp(min=config.suppression_pixels)
        order = suppress(image, lafs[:, :, 2], value, radius, count)
        image, lafs, value = image[order], lafs[order], value[order]
        number = torch.bincount(image, minlength=batch)
        slot = torch.arange(len(image), device=image.device) - (number.cumsum(0) - number)[image]
        kept = slot < count
        index = image[kept], slot[kept]
        responses = value.new_zeros(batch, count).index_put(index, value[kept])
        return responses, lafs.new_zeros(batch, count, 2, 3).index_put(index, lafs[kept])

    def _inside(self, frames: Tensor, border: float) -> Tensor:
        height, width = self._img.shape[-2:]
        x, y, sigma = frames.unbind(1)
        radius = border * sigma
        return (torch.minimum(x, y) - radius >= 1) & (x + radius < width - 1) & (y + radius < height - 1)


def apply_mask(
    mask: Tensor, size: tuple[int, int], image: Tensor, position: Tensor, value: Tensor
) -> tuple[Tensor, Tensor]:
    """Return which keypoints of a level the mask keeps (M,), and the weighted scores of those.

    A level pixel takes the smallest mask value that it covers, so that a thin excluded region cannot fall between two
    pixels; a keypoint takes the smallest of the pixels around its refined position.
    """
    weights = mask.clamp(max=1).to(value.dtype) if mask.is_floating_point() else mask.ne(0).to(value.dtype)
    weights = -F.adaptive_max_pool2d(-weights, size)[:, 0]
    image = image if len(mask) > 1 else torch.zeros_like(image)
    x, y = position[:, 0].detach(), position[:, 1].detach()
    corners = [
        weights[image, row.long().clamp(0, size[0] - 1), col.long().clamp(0, size[1] - 1)]
        for row in (y.floor(), y.ceil())
        for col in (x.floor(), x.ceil())
    ]
    weight = torch.stack(corners).amin(0)
    kept = weight > 0
    weight, value = weight[kept], value[kept]
    return kept, torch.where(value >= 0, value * weight, value / weight)
