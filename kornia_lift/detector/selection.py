"""Which maxima become keypoints: all of them, as many as there are, or a fixed number, as a graph needs it.

What ``torch.compile`` and ``torch.export`` make of the detector has no shape that depends on values: there every level
yields equally many candidates, of which some do not count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import Pixels, all_pixels, strongest_pixels
from kornia_lift.detector.refinement import make_safe
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.detector.suppression import suppress, suppress_all
from kornia_lift.geometry import lafs_from_lift


class Refined(NamedTuple):
    """Refined maxima of all levels.

    Attributes:
        level: of each, shape (M,).
        image: index of the image, shape (M,).
        position: x, y in pixels of the level, and scale in levels relative to it, shape (M, 3).
        value: scores, shape (M,).
        keep: which of them count, shape (M,).
    """

    level: Tensor
    image: Tensor
    position: Tensor
    value: Tensor
    keep: Tensor


class Candidates(NamedTuple):
    """Candidates of all levels, in pixels of the image.

    Attributes:
        image: index of the image of each, shape (M,).
        frames: x, y, sigma in pixels of the image, shape (M, 3).
        value: scores, shape (M,).
        keep: which of them count, shape (M,).
    """

    image: Tensor
    frames: Tensor
    value: Tensor
    keep: Tensor


class Selection(ABC):
    """How candidates are gathered, and the best of them selected."""

    @abstractmethod
    def pixels(self, maxima: Tensor, margin: int, score: Tensor) -> tuple[Pixels, Tensor]:
        """Turn a map of maxima (:func:`~kornia_lift.detector.extrema.level_maxima`) into candidates; which count?"""

    @abstractmethod
    def join(self, levels: Sequence[Tensor], batch: int) -> Tensor:
        """Join what the candidates of each level have, shape (M, ...)."""

    @abstractmethod
    def drop(self, keep: Tensor, around: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Drop candidates that do not count: from ``keep``, the scores around them, and what says where they are."""

    @abstractmethod
    def best(self, found: Candidates, batch: int, count: int, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor]:
        """Return the best keypoints of each image.

        Args:
            found: the candidates.
            batch: number of images.
            count: number of slots.
            config: says which keypoints suppress others.

        Returns:
            Responses (batch, count) and upright frames (batch, count, 2, 3), empty slots last.

        """


class AnyNumber(Selection):
    """All maxima, in lists as long as needed."""

    def pixels(self, maxima: Tensor, margin: int, score: Tensor) -> tuple[Pixels, Tensor]:
        at = all_pixels(maxima, margin)
        return at, torch.ones_like(at.row, dtype=torch.bool)

    def join(self, levels: Sequence[Tensor], batch: int) -> Tensor:
        return torch.cat(list(levels))

    def drop(self, keep: Tensor, around: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        kept = keep.nonzero()[:, 0]  # once, since a GPU is waited for
        return keep[kept], around[kept], [each[kept] for each in at]

    def best(self, found: Candidates, batch: int, count: int, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor]:
        kept = found.keep.nonzero()[:, 0]
        image, frames, value = found.image[kept], found.frames[kept], found.value[kept]
        order = suppress(image, frames[:, :2], value, _radius(frames, config), count)
        image, frames, value = image[order], frames[order], value[order]
        number = torch.bincount(image, minlength=batch)
        slot = torch.arange(len(image), device=image.device) - (number.cumsum(0) - number)[image]
        first = slot < count
        index = image[first], slot[first]
        lafs = lafs_from_lift(frames[None, first, :2], frames[None, first, 2])[0]
        responses = value.new_zeros(batch, count).index_put(index, value[first])
        return responses, lafs.new_zeros(batch, count, 2, 3).index_put(index, lafs)


class FixedNumber(Selection):
    """The strongest maxima of each level, always equally many.

    Two limits keep it from the exact result, far beyond what images need: the keypoints must be among so many
    candidates of the highest scores, and chains of suppressed suppressors have a greatest length.

    Args:
        count: number of slots. On 14 images of our training scenes the best N keypoints were among the best 2.3 N to
            2.8 N candidates.

    """

    def __init__(self, count: int) -> None:
        self._limit = 3 * count + 1024

    def pixels(self, maxima: Tensor, margin: int, score: Tensor) -> tuple[Pixels, Tensor]:
        return strongest_pixels(maxima, margin, score, self._limit)

    def join(self, levels: Sequence[Tensor], batch: int) -> Tensor:
        # every level has its candidates image by image, equally many of each
        return torch.cat([level.unflatten(0, (batch, -1)) for level in levels], 1).flatten(0, 1)

    def drop(self, keep: Tensor, around: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        return keep, make_safe(around, keep), list(at)

    def best(self, found: Candidates, batch: int, count: int, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor]:
        lowest = float("-inf")
        value = found.value.masked_fill(~found.keep, lowest).view(batch, -1)
        frames = found.frames.view(batch, -1, 3)
        value, index = value.topk(min(self._limit, value.shape[1]), dim=1)
        frames = frames.gather(1, index[..., None].expand(-1, -1, 3))
        survives = suppress_all(frames[..., :2].detach(), _radius(frames, config), value > lowest)
        value = F.pad(value.masked_fill(~survives, lowest), (0, max(0, count - value.shape[1])), value=lowest)
        frames = F.pad(frames, (0, 0, 0, max(0, count - frames.shape[1])), value=1.0)
        value, index = value.topk(count, dim=1)
        frames = frames.gather(1, index[..., None].expand(-1, -1, 3))
        lafs = lafs_from_lift(frames[..., :2], frames[..., 2])
        filled = value > lowest
        return value.masked_fill(~filled, 0), lafs.masked_fill(~filled[..., None, None], 0)


def selection_for(count: int) -> Selection:
    """Return what suits the way that the detector runs: in a graph that is being built, or not."""
    return FixedNumber(count) if torch.compiler.is_compiling() else AnyNumber()


def _radius(frames: Tensor, config: ScaleSpaceConfig) -> Tensor:
    """Return within how many pixels each keypoint (..., 3) suppresses weaker ones."""
    return (config.suppression_sigma * frames[..., 2].detach()).clamp(min=config.suppression_pixels)
