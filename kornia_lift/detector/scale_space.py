"""LIFT's scale space: the levels on which keypoints are searched, and what counts as one (paper Sec. 3.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import SupportsIndex

from kornia_lift.geometry import level_resize
from kornia_lift.networks.response import FILTER_SIZE

LEVEL_SIGMA = level_resize(1.0)  # 1.958: the SIFT scale of what LIFT's filter sees on a level of the image's own size
SCORE_BORDER = FILTER_SIZE // 2  # pixels of a level whose score would see beyond the image
SMALLEST_LEVEL = 26  # the filter's 25 pixels and one more: smaller levels have no score
MOST_ENLARGED = 2.0  # times
DOUBLED_UP_TO = 1600  # LIFT enlarges images whose smaller side is at most this, in the authors' release


@dataclass(frozen=True)
class ScaleSpaceConfig:
    """Which scales are searched, and what counts as a keypoint.

    Args:
        min_sigma: SIFT scale of the finest level, in pixels of the image. Below 1.96 the image is enlarged.
        max_sigma: SIFT scale that the coarsest level does not exceed.
        enlarge_to: small images are searched as if they were enlarged to this side, in pixels (the root of the area),
            by a factor of at most 2: the scales of all levels shrink with the image, so that a small copy of an image
            shows the keypoints of the large one. 0: the scales are the same for all images.
        enlarge_for: number of keypoints up to which ``enlarge_to`` holds. Where more are asked for, its area grows in
            proportion: finer levels have room for more keypoints, whose positions are more precise.
        levels_per_octave: levels per doubling of sigma.
        nms_radius: a keypoint is the strict maximum of a window of ``2 * nms_radius + 1`` pixels of its level.
        scale_nms: number of levels on each side that a keypoint must exceed; levels with fewer neighbours yield
            nothing. 0 searches every level by itself; then ``suppression_sigma`` decides between levels.
        suppression_sigma: across all levels, a keypoint suppresses the weaker ones that are closer than this many times
            its own sigma: one keypoint for each location, of the scale with the highest score. 0 keeps all of them.
        suppression_pixels: the same radius in pixels of the image; the larger of the two counts.
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
        TypeError: if a number of levels or the window is not a whole number.
        ValueError: if a value is out of range.

    """

    min_sigma: float = 2.0
    max_sigma: float = 16.0
    enlarge_to: float = 800.0
    enlarge_for: int = 1000
    levels_per_octave: int = 3
    nms_radius: int = 5
    scale_nms: int = 0
    suppression_sigma: float = 1.0
    suppression_pixels: float = 3.0
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
        for name in ("enlarge_for", "levels_per_octave", "nms_radius", "scale_nms"):
            if not isinstance(getattr(self, name), SupportsIndex):
                raise TypeError(f"ScaleSpaceConfig expects a whole number for {name}, got {getattr(self, name)!r}")
        for name, least in (
            ("enlarge_to", 0),
            ("enlarge_for", 1),
            ("levels_per_octave", 1),
            ("nms_radius", 1),
            ("scale_nms", 0),
            ("suppression_sigma", 0),
            ("suppression_pixels", 0),
            ("border", 0),
        ):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"ScaleSpaceConfig expects {name} >= {least}, got {getattr(self, name)}")
        if self.edge_threshold is not None and not 1 <= self.edge_threshold < math.inf:
            raise ValueError(
                "ScaleSpaceConfig expects a finite edge_threshold >= 1 (a ratio of curvatures), or None to keep edges, "
                f"got {self.edge_threshold}"
            )

    @classmethod
    def lift(cls) -> ScaleSpaceConfig:
        """Return the settings of LIFT's release: 21 levels, NMS over 7x7 pixels and 5 levels, edge threshold 10."""
        return cls(
            min_sigma=1.0,
            max_sigma=16.0,
            enlarge_to=0.0,
            levels_per_octave=5,
            nms_radius=3,
            scale_nms=2,
            suppression_sigma=0.0,
            suppression_pixels=0.0,
            edge_threshold=10.0,
            skip_padding=False,
            faithful=True,
        )

    def sigmas(self, height: int, width: int, num_features: int) -> tuple[float, ...]:
        """Return the scales of the levels, finest first, in pixels of the image.

        Args:
            height: of the image, pixels.
            width: of the image, pixels.
            num_features: how many keypoints are searched.

        """
        side = self.enlarge_to * math.sqrt(max(1.0, num_features / self.enlarge_for))
        small = 1.0 if side == 0 else math.sqrt(height * width) / side
        finest = self.min_sigma * min(max(small, 1 / MOST_ENLARGED), 1.0)
        count = int(math.log2(self.max_sigma / self.min_sigma) * self.levels_per_octave + 1e-6) + 1
        return tuple(finest * 2 ** (i / self.levels_per_octave) for i in range(count))


@dataclass(frozen=True)
class Level:
    """One level: its scale in pixels of the image, its nominal resize factor, and its size (rows, columns)."""

    sigma: float
    resize: float
    size: tuple[int, int]


def plan_levels(height: int, width: int, config: ScaleSpaceConfig, num_features: int) -> list[Level]:
    """List the levels of an image that are large enough to be scored; see :meth:`ScaleSpaceConfig.sigmas`."""
    levels = []
    for sigma in config.sigmas(height, width, num_features):
        resize = level_resize(sigma)
        if resize * min(height, width) <= SMALLEST_LEVEL:
            break
        if config.faithful and sigma < 2 - 1e-9 and min(height, width) > DOUBLED_UP_TO:
            continue
        levels.append(Level(sigma, resize, (round(height * resize), round(width * resize))))
    return levels
