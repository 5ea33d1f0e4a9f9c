"""Which maxima become keypoints: chosen from all of them, or from a fixed number, as a graph needs it.

In the graphs of ``torch.compile`` and ``torch.export`` no shape may depend on values: there every level yields the same
number of candidates, of which some do not count.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.extrema import Pixels, all_pixels, strongest_pixels
from kornia_lift.detector.padding import mask_maps, read_mask, sees_padding, weighted
from kornia_lift.detector.refinement import make_safe, scale_step
from kornia_lift.detector.sampling import LevelMaps, Sampling
from kornia_lift.detector.scale_space import SCORE_BORDER, Level, ScaleSpaceConfig
from kornia_lift.detector.suppression import suppress, suppress_all
from kornia_lift.geometry import lafs_from_lift


class Refined(NamedTuple):
    """Refined maxima of all levels.

    Attributes:
        level: level of each, shape (M,).
        image: index of the image, shape (M,).
        position: x, y in pixels of the level, and scale in levels relative to it, shape (M, 3).
        value: scores of the quadratics fitted there, shape (M,).
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


@dataclass(frozen=True)
class SearchedLevels:
    """The levels of a batch of images, and what decides which of their maxima count.

    Args:
        levels: their scales and sizes.
        scores: their score maps.
        paddings: for each level, which of its pixels do not belong to the image, shape (B, h, w). ``None``: all do.
        mask: mask of the images, shape (1 or B, 1, H, W).
        size: height and width of the images.

    """

    levels: Sequence[Level]
    scores: LevelMaps
    paddings: Sequence[Tensor] | None
    mask: Tensor | None
    size: Sequence[int]

    def candidates(self, found: Refined, config: ScaleSpaceConfig, sampling: Sampling) -> Candidates:
        """Interpolate the scales of refined maxima, and decide which of them count."""
        level, image, position, value, keep = found
        if config.subpixel and not config.scale_nms:
            scale = scale_step(self.scores, level, image, position[:, :2], sampling)
            position = torch.cat([position[:, :2], scale[:, None]], 1)
        value = sampling.report(self.scores, level, image, position, value)
        fixed = position.detach()
        if self.paddings is not None:
            seen = LevelMaps([sees_padding(padding, SCORE_BORDER) for padding in self.paddings])
            row, col = fixed[:, 1].round().long(), fixed[:, 0].round().long()
            keep = keep & ~seen.read(level, image, row, col)
        if self.mask is not None:
            weights = mask_maps(self.mask, [each.size for each in self.levels], position)
            weight = read_mask(weights, level, image if len(self.mask) > 1 else torch.zeros_like(image), fixed)
            keep, value = keep & (weight > 0), weighted(value, weight)
        frames = self._frames(level, position, config, sampling)
        if config.border > 0:
            keep = keep & self._contain(frames.detach(), config.border)
        return Candidates(image, frames, value, keep)

    def _frames(self, level: Tensor, position: Tensor, config: ScaleSpaceConfig, sampling: Sampling) -> Tensor:
        """Return x, y and sigma (M, 3), in pixels of the image, of positions on levels."""
        table = position.new_tensor([[*each.size, each.resize, each.sigma] for each in self.levels])
        rows, cols, resize, sigma = table[level].unbind(1)
        x = sampling.to_image(position[:, 0], cols, self.size[1], resize)
        y = sampling.to_image(position[:, 1], rows, self.size[0], resize)
        return torch.stack([x, y, sigma * torch.exp2(position[:, 2] / config.levels_per_octave)], 1)

    def _contain(self, frames: Tensor, border: float) -> Tensor:
        """Return which boxes of half-width ``border * sigma`` lie in the image, shape (M,)."""
        x, y, sigma = frames.unbind(1)
        radius, (height, width) = border * sigma, self.size
        return (torch.minimum(x, y) - radius >= 1) & (x + radius < width - 1) & (y + radius < height - 1)


class Selection(ABC):
    """How candidates are gathered, and the best of them selected."""

    @abstractmethod
    def pixels(self, maxima: Tensor, margin: int, score: Tensor) -> tuple[Pixels, Tensor]:
        """Return candidates of a map of :func:`~kornia_lift.detector.extrema.level_maxima`, and which of them count."""

    @abstractmethod
    def join(self, levels: Sequence[Tensor], batch: int) -> Tensor:
        """Join a property of the candidates of all levels, shape (M, ...) for each level."""

    @abstractmethod
    def drop(self, keep: Tensor, around: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Drop the candidates that do not count from ``keep``, from the scores around them and from their positions."""

    @abstractmethod
    def strongest(self, found: Refined, batch: int, count: int) -> tuple[Refined, Tensor | None]:
        """Choose the maxima of the highest scores, among which the best keypoints nearly always are.

        Args:
            found: maxima that all count.
            batch: number of images.
            count: keypoints wanted of each.

        Returns:
            The strongest, or all; and the images some of whose maxima were left out, shape (batch,), ``None`` if there
            are none.

        """

    @abstractmethod
    def best(self, found: Candidates, batch: int, count: int, config: ScaleSpaceConfig) -> tuple[Tensor, Tensor]:
        """Return the best keypoints of each image.

        Args:
            found: the candidates.
            batch: number of images.
            count: number of slots.
            config: defines which keypoints suppress others.

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
        kept = keep.nonzero()[:, 0]  # once, since it waits for a GPU
        return keep[kept], around[kept], [each[kept] for each in at]

    def strongest(self, found: Refined, batch: int, count: int) -> tuple[Refined, Tensor | None]:
        most = _candidates_for(count)
        rest = torch.bincount(found.image, minlength=batch) > most
        if not bool(rest.any()):
            return found, None
        value, strong = found.value.detach(), torch.zeros_like(found.keep)
        for image in range(batch):
            mine = found.image == image
            own = value.masked_fill(~mine, float("-inf"))
            strong |= mine & (own >= own.topk(min(most, len(own))).values[-1])
        first = strong.nonzero()[:, 0]
        return Refined(*(each[first] for each in found)), rest

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

    The result is exact within two limits, both far beyond what images need: keypoints are among a certain number of
    candidates with the highest scores, and chains of suppressed suppressors do not exceed a certain length.

    Args:
        count: number of slots.

    """

    def __init__(self, count: int) -> None:
        self._limit = _candidates_for(count)

    def pixels(self, maxima: Tensor, margin: int, score: Tensor) -> tuple[Pixels, Tensor]:
        return strongest_pixels(maxima, margin, score, self._limit)

    def join(self, levels: Sequence[Tensor], batch: int) -> Tensor:
        # every level has its candidates image by image, equally many of each
        return torch.cat([level.unflatten(0, (batch, -1)) for level in levels], 1).flatten(0, 1)

    def drop(self, keep: Tensor, around: Tensor, at: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        return keep, make_safe(around, keep), list(at)

    def strongest(self, found: Refined, batch: int, count: int) -> tuple[Refined, Tensor | None]:
        return found, None

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
    """Return the selection for a graph if one is being built, else the exact one."""
    return FixedNumber(count) if torch.compiler.is_compiling() else AnyNumber()


def _candidates_for(count: int) -> int:
    """Return the number of best candidates among which ``count`` keypoints are found.

    On 14 images of our training scenes the best N were among the best 2.3 N to 2.8 N.
    """
    return 3 * count + 1024


def _radius(frames: Tensor, config: ScaleSpaceConfig) -> Tensor:
    """Return the radius, in pixels, within which each keypoint (..., 3) suppresses weaker ones."""
    return (config.suppression_sigma * frames[..., 2].detach()).clamp(min=config.suppression_pixels)
