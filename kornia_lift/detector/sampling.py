r"""How the levels of a scale space are sampled from the image, and where their pixels lie in it.

Two ways: :class:`CentredSampling`, and :class:`ReleasedSampling`, which reproduces the released run-time code of LIFT.

Convention:
    Pixel centres lie at integers. A level is the whole image resized, so pixel ``c`` of a level of ``n`` pixels is at
    ``(c + 0.5) * N / n - 0.5`` of the image of ``N`` pixels. The released code departs from it.

"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.detector.scale_space import Level, ScaleSpaceConfig
from kornia_lift.geometry.pyramid import one_behind_the_other


class LevelMaps:
    """Maps of all levels, joined so that pixels of any levels are read by the same few operations.

    Args:
        maps: map of each level, shape (B, h, w).

    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self._values, self._table = one_behind_the_other(maps)

    def __len__(self) -> int:
        return len(self._table)

    def sizes(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return height and width of levels (M,)."""
        _, height, width = self._table[level].unbind(-1)
        return height, width

    def read(self, level: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """Read pixels; all shapes broadcast."""
        return self._values.take(self._index(level, image, row, col)[0])

    def read_own(self, level: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """Collect the 3x3 values around M pixels, none on the outermost row or column; shape (M, 9)."""
        index, width = self._index(level, image, row, col)
        offset = torch.arange(-1, 2, device=row.device)
        around = (index[:, None] + width[:, None] * offset)[:, :, None] + offset
        return self._values.take(around.flatten(1))

    def _index(self, level: Tensor, image: Tensor, row: Tensor, col: Tensor) -> tuple[Tensor, Tensor]:
        """Return the numbers of pixels among all, and the widths of their levels."""
        begin, _, width = self._table[level].unbind(-1)
        return image * self._values.shape[1] + begin + row * width + col, width


class Sampling(ABC):
    """How the levels are sampled and read.

    Attributes:
        equal_scores_stay_equal: pixels that look alike must get the same score to the bit, since the tests for
            keypoints do not allow for rounding errors; otherwise maxima that rounding errors can cause are dropped.

    """

    equal_scores_stay_equal: bool

    @abstractmethod
    def resizer(self, img: Tensor) -> Callable[[Level], Tensor]:
        """Return a function that resizes images (B, 1, H, W) to one level after another, finest first."""

    @abstractmethod
    def to_other_level(self, index: Tensor, size: int | Tensor, other: int | Tensor) -> Tensor:
        """Map pixel coordinates of a level of ``size`` pixels to a level of ``other`` pixels (not rounded).

        Sizes may be tensors of the shape of ``index``: its values are then on levels of their own.
        """

    @abstractmethod
    def to_image(self, index: Tensor, size: int | Tensor, image_size: int, resize: float | Tensor) -> Tensor:
        """Map (sub-)pixel coordinates of a level of ``size`` pixels to the image."""

    @abstractmethod
    def read(self, score: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        """Read score maps (B, h, w) at M coordinates, float64, of the images ``image``; shape (M,)."""

    @abstractmethod
    def report(self, scores: LevelMaps, level: Tensor, image: Tensor, position: Tensor, fitted: Tensor) -> Tensor:
        """Return the scores to report for keypoints.

        Args:
            scores: score maps of all levels.
            level: level of each keypoint, shape (M,).
            image: index of the image, shape (M,).
            position: refined x, y in pixels of the level, and scale in levels relative to it, shape (M, 3).
            fitted: scores of the quadratic there, shape (M,).

        """

    def nearest(self, index: Tensor, size: int, other: int) -> Tensor:
        """Return the pixel of a level of ``other`` pixels nearest to a pixel of a level of ``size`` pixels."""
        mapped = self.to_other_level(index.to(torch.float64), size, other)
        return mapped.round().long().clamp_(0, other - 1)


class CentredSampling(Sampling):
    """Pixel centres stay in place, nothing is aliased, levels are read between their pixels."""

    equal_scores_stay_equal = False

    def resizer(self, img: Tensor) -> Callable[[Level], Tensor]:
        return _Halving(img)

    def to_other_level(self, index: Tensor, size: int | Tensor, other: int | Tensor) -> Tensor:
        return (index + 0.5) * _ratio(other, size, index) - 0.5

    def to_image(self, index: Tensor, size: int | Tensor, image_size: int, resize: float | Tensor) -> Tensor:
        return self.to_other_level(index, size, image_size)

    def read(self, score: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        height, width = score.shape[-2:]
        row, col = row.clamp(0, height - 1), col.clamp(0, width - 1)
        top, left = row.floor().clamp(max=max(height - 2, 0)), col.floor().clamp(max=max(width - 2, 0))
        down, right = (row - top).to(score.dtype), (col - left).to(score.dtype)
        r0, c0 = top.long(), left.long()
        r1, c1 = (r0 + 1).clamp(max=height - 1), (c0 + 1).clamp(max=width - 1)
        upper = score[image, r0, c0] * (1 - right) + score[image, r0, c1] * right
        lower = score[image, r1, c0] * (1 - right) + score[image, r1, c1] * right
        return upper * (1 - down) + lower * down

    def report(self, scores: LevelMaps, level: Tensor, image: Tensor, position: Tensor, fitted: Tensor) -> Tensor:
        return fitted


class ReleasedSampling(Sampling):
    """Sampling of LIFT's release: corners of images coincide, and positions are rounded to pixels and levels."""

    equal_scores_stay_equal = True

    def resizer(self, img: Tensor) -> Callable[[Level], Tensor]:
        return lambda level: _resize(img, level)

    def to_other_level(self, index: Tensor, size: int | Tensor, other: int | Tensor) -> Tensor:
        return index * _ratio(other - 1, size - 1, index)

    def to_image(self, index: Tensor, size: int | Tensor, image_size: int, resize: float | Tensor) -> Tensor:
        return index / resize

    def read(self, score: Tensor, image: Tensor, row: Tensor, col: Tensor) -> Tensor:
        height, width = score.shape[-2:]
        return score[image, row.round().long().clamp_(0, height - 1), col.round().long().clamp_(0, width - 1)]

    def report(self, scores: LevelMaps, level: Tensor, image: Tensor, position: Tensor, fitted: Tensor) -> Tensor:
        x, y, shift = position.detach().to(torch.float64).unbind(1)
        height, width = scores.sizes(level)
        read = level + shift.round().long()
        there = (shift.round().abs() <= 1) & (read >= 0) & (read < len(scores))
        read = read.clamp(0, len(scores) - 1)
        rows, cols = scores.sizes(read)
        row = self.to_other_level(y, height, rows).round().long()
        col = self.to_other_level(x, width, cols).round().long()
        row, col = (torch.minimum(v.clamp(min=0), n - 1) for v, n in ((row, rows), (col, cols)))
        return torch.where(there, scores.read(read, image, row, col), fitted)


def _ratio(above: int | Tensor, below: int | Tensor, like: Tensor) -> float | Tensor:
    if not isinstance(below, Tensor):
        return above / below
    below = below.to(like.dtype)  # whole numbers are exact in it; Apple's GPUs have no double precision
    # a number over a tensor would be a product with its reciprocal, which rounds twice
    return (above if isinstance(above, Tensor) else torch.full_like(below, above)) / below


def sampling_of(config: ScaleSpaceConfig) -> Sampling:
    """Return the sampling that options ask for."""
    return ReleasedSampling() if config.faithful else CentredSampling()


class _Halving:
    """Resize one batch of images to levels, finest level first.

    Levels below half the image size come from an image halved with antialiasing, so that the cost of a level
    depends on its own size and nothing is aliased.
    """

    def __init__(self, img: Tensor) -> None:
        self._source = img

    def __call__(self, level: Level) -> Tensor:
        height, width = level.size
        while self._source.shape[-2] >= 4 * height and self._source.shape[-1] >= 4 * width:
            halved = [math.ceil(side / 2) for side in self._source.shape[-2:]]
            self._source = _shrink(self._source, halved)
        if height >= self._source.shape[-2]:
            return _resize(self._source, level)
        return _shrink(self._source, [height, width])


def _resize(x: Tensor, level: Level) -> Tensor:
    return F.interpolate(x, size=level.size, mode="bilinear", align_corners=False)


def _shrink(x: Tensor, size: list[int]) -> Tensor:
    """Resize to fewer pixels with the triangle filter of the new pixel's width."""
    # the antialiasing kernels exist for float32 and float64 only
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    for sides in ([size[0], x.shape[-1]], size):  # rows first: torch begins with the columns, which takes longer
        wide = F.interpolate(wide, size=sides, mode="bilinear", align_corners=False, antialias=True)
    return wide.to(x.dtype)
