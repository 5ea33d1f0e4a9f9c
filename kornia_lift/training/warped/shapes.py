"""Drawn images of straight lines and polygons: many edges, whose interior no detector finds again, and few corners."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kornia_lift._extras import require

_FINE = 2  # drawn at twice the size, so that edges have sub-pixel positions
_SIDE = 512


def draw_shapes(count: int, seed: int = 0) -> list[Tensor]:
    """Draw images of lines, bands and polygons on a smooth background.

    Real images have few edges that are straight over the whole reach of a filter. Here nearly all contrast is of that
    kind: a keypoint on an edge may lie anywhere along it, one at a corner or at an end may not.

    Args:
        count: number of images.
        seed: of the drawing.

    Returns:
        Images, uint8, shape (512, 512).

    """
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(_draw(rng)) for _ in range(count)]


def _draw(rng: np.random.Generator) -> np.ndarray:
    cv2 = require("cv2", extra="train")
    side = _SIDE * _FINE
    slope = rng.uniform(-60, 60, 2)
    along = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    image = (rng.uniform(60, 190) + slope[0] * along[None] + slope[1] * along[:, None]).astype(np.float32)
    for _ in range(rng.integers(3, 9)):
        image = _polygon(image, rng)
    for _ in range(rng.integers(4, 12)):
        start, reach = rng.uniform(-0.1, 1.1, 2) * side, rng.uniform(0.2, 1.2) * side
        # man-made edges run along the image axes as often as in all other directions together
        angle = rng.integers(4) * np.pi / 2 + rng.normal(0, 0.04) if rng.random() < 0.5 else rng.uniform(0, 2 * np.pi)
        stop = start + reach * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(int(v) for v in point) for point in (start, stop)]
        cv2.line(image, *ends, float(rng.uniform(10, 245)), int(rng.integers(1, 12) * _FINE // 2 + 1), cv2.LINE_AA)
    image = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.8, 2.5)))
    image = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(image.clip(0, 255).round().astype(np.uint8))


def _polygon(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Fill a star-shaped polygon with a gray value, or with bands of two."""
    cv2 = require("cv2", extra="train")
    side = image.shape[0]
    corners = int(rng.integers(3, 7))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = rng.uniform(0.3, 1.0, corners) * rng.uniform(0.08, 0.35) * side
    middle = rng.uniform(0, side, 2)
    points = middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    mask = np.zeros(image.shape, np.uint8)
    cv2.fillPoly(mask, [points.round().astype(np.int32)], 255, cv2.LINE_AA)
    fill = np.full(image.shape, rng.uniform(10, 245), np.float32)
    if rng.random() < 0.4:
        direction, period = rng.uniform(0, np.pi), rng.uniform(12, 60) * _FINE
        y, x = np.mgrid[:side, :side].astype(np.float32)
        bands = ((x * np.cos(direction) + y * np.sin(direction)) / period) % 1 < rng.uniform(0.3, 0.7)
        fill[bands] = rng.uniform(10, 245)
    share = mask.astype(np.float32) / 255
    return image * (1 - share) + fill * share
