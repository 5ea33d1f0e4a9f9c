r"""LIFT's scale space: the levels on which keypoints are searched, and where their pixels lie (paper Sec. 3.6).

Convention:
    Pixel centres lie at integers. A level is the whole image resized, so pixel ``c`` of a level of ``n`` pixels is at
    ``(c + 0.5) * N / n - 0.5`` of the image of ``N`` pixels.

"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.geometry import level_resize

SMALLEST_LEVEL = 26  # the filter's 25 pixels and one more: smaller levels have no score
DOUBLED_UP_TO = 1600  # LIFT enlarges images whose smaller side is at most this, in the authors' release


@dataclass(frozen=True)
class ScaleSpaceConfig:
    """Which scales are searched, and what counts as a keypoint.

    Args:
        min_sigma: SIFT scale of the finest level, in pixels of the image. Below 1.96 the image is enlarged.
        max_sigma: SIFT scale that the coarsest level does not exceed.
        levels_per_octave: levels per doubling of sigma.
        nms_radius: a keypoint is the strict maximum of a square of ``2 * nms_radius + 1`` pixels of its level.
        scale_nms: number of levels on each side that a keypoint must exceed; levels with fewer neighbours yield
            nothing. 0 searches every level by itself; then ``suppression_sigma`` decides between levels.
        suppression_sigma: across all levels, a keypoint suppresses the weaker ones that are closer than this many times
            its own sigma: one keypoint for each location, of the scale with the highest score. 0 keeps all of them.
        suppression_pixels: the same in pixels of the image; the larger of both radii counts.
        edge_threshold: largest ratio of the principal curvatures of the score; ``None`` keeps edges too.
        subpixel: refine position and score by one Newton step, and the scale too, or, without ``scale_nms``, by a
            parabola through three levels; without it keypoints sit on pixels of levels.
        border: a keypoint is dropped when the box of half-width ``border * sigma`` around it leaves the image. LIFT's
            value is ``12 * sqrt(2)``; the default keeps what the filter can score, about 7.7 sigma from the border.
        skip_padding: treat black regions around a rotated, rectified or padded image as lying beyond the border:
            no keypoints where the filter would see them (:func:`~kornia_lift.detector.padding.find_padding`).
            Otherwise their high contrast attracts keypoints: 30 % of those of an image rotated by 15 degrees.
        faithful: reproduce the released run-time code: plain bilinear resizes of the full image, neighbouring levels
            read at the nearest pixel, positions that are off by ``0.5 - 0.255 sigma`` pixels, scores
            that are not interpolated. See :meth:`lift`.

    Raises:
        ValueError: if a value makes no sense.

    """

    min_sigma: float = 2.0
    max_sigma: float = 16.0
    levels_per_octave: int = 3
    nms_radius: int = 5
    scale_nms: int = 0
    suppression_sigma: float = 1.5
    suppression_pixels: float = 0.0
    edge_threshold: float | None = None
    subpixel: bool = True
    border: float = 0.0
    skip_padding: bool = True
    faithful: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.min_sigma <= self.max_sigma < math.inf:
            raise ValueError(
                f"ScaleSpaceConfig expects 0 < min_sigma <= max_sigma, got {self.min_sigma} and {self.max_sigma}"
            )
        for name, least in (
            ("levels_per_octave", 1),
            ("nms_radius", 1),
            ("scale_nms", 0),
            ("suppression_sigma", 0),
            ("suppression_pixels", 0),
            ("border", 0),
        ):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"ScaleSpaceConfig expects {name} >= {least}, got {getattr(self, name)}")
        if self.edge_threshold is not None and self.edge_threshold < 1:
            raise ValueError(
                "ScaleSpaceConfig expects edge_threshold >= 1 (a ratio of curvatures) or None, "
                f"got {self.edge_threshold}"
            )

    @classmethod
    def lift(cls) -> ScaleSpaceConfig:
        """Return the settings of LIFT's release: 21 levels, NMS of 7x7 pixels and 5 levels, edge test 10."""
        return cls(
            min_sigma=1.0,
            max_sigma=16.0,
            levels_per_octave=5,
            nms_radius=3,
            scale_nms=2,
            suppression_sigma=0.0,
            edge_threshold=10.0,
            skip_padding=False,
            faithful=True,
        )

    def sigmas(self) -> tuple[float, ...]:
        """Return the scales of the levels, finest first, in pixels of the image."""
        count = int(math.log2(self.max_sigma / self.min_sigma) * self.levels_per_octave + 1e-6) + 1
        return tuple(self.min_sigma * 2 ** (i / self.levels_per_octave) for i in range(count))


@dataclass(frozen=True)
class Level:
    """One level: its scale in pixels of the image, its nominal resize factor, and its size (rows, columns)."""

    sigma: float
    resize: float
    size: tuple[int, int]


def plan_levels(height: int, width: int, config: ScaleSpaceConfig) -> list[Level]:
    """List the levels of an image of ``height`` x ``width`` pixels that are large enough to be scored."""
    levels = []
    for sigma in config.sigmas():
        resize = level_resize(sigma)
        if resize * min(height, width) <= SMALLEST_LEVEL:
            break
        if config.faithful and sigma < 2 - 1e-9 and min(height, width) > DOUBLED_UP_TO:
            continue
        levels.append(Level(sigma, resize, (round(height * resize), round(width * resize))))
    return levels


class LevelResizer:
    """Resize one batch of images to levels, finest level first.

    Levels below half the image size come from an image halved with antialiasing, so that what a level costs depends
    on its own size and nothing is aliased; ``faithful`` samples the full image, as LIFT does.

    Args:
        img: images, shape (B, 1, H, W).
        faithful: plain bilinear sampling of the full image.

    """

    def __init__(self, img: Tensor, faithful: bool) -> None:
        self._source = img
        self._faithful = faithful

    def __call__(self, level: Level) -> Tensor:
        """Return the images at ``level``, shape (B, 1, h, w)."""
        height, width = level.size
        if self._faithful:
            return F.interpolate(self._source, size=level.size, mode="bilinear", align_corners=False)
        while self._source.shape[-2] >= 4 * height and self._source.shape[-1] >= 4 * width:
            halved = [math.ceil(side / 2) for side in self._source.shape[-2:]]
            self._source = _shrink(self._source, halved)
        if height >= self._source.shape[-2]:
            return F.interpolate(self._source, size=level.size, mode="bilinear", align_corners=False)
        return _shrink(self._source, [height, width])


def _shrink(x: Tensor, size: list[int]) -> Tensor:
    """Resize to fewer pixels with the triangle filter of the new pixel's width."""
    # the antialiasing kernels exist for float32 and float64 only
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return F.interpolate(wide, size=size, mode="bilinear", align_corners=False, antialias=True).to(x.dtype)


def to_other_level(index: Tensor, size: int, other: int, faithful: bool) -> Tensor:
    """Map pixel coordinates of a level of ``size`` pixels to a level of ``other`` pixels (not rounded)."""
    if faithful:
        return index * ((other - 1) / (size - 1))
    return (index + 0.5) * (other / size) - 0.5


def to_image(index: Tensor, size: int, image_size: int, resize: float, faithful: bool) -> Tensor:
    """Map (sub-)pixel coordinates of a level of ``size`` pixels to the image."""
    if faithful:
        return index / resize
    return to_other_level(index, size, image_size, faithful=False)
