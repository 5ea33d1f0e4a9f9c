"""The nearest of some points for every pixel of a view."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from kornia_lift._extras import require


def nearest_point(points: Tensor, size: int, reach: float) -> Tensor:
    """Return the number of the nearest point of every pixel, by a distance transform instead of all distances.

    Points are rounded to pixels: near the middle between two points the other one may be returned, and of two points in
    one pixel only one is used.

    Args:
        points: (x, y) in pixels of a square view, also outside of it; shape (M, 2).
        size: side S of the view.
        reach: pixels beyond which no pixel needs its nearest point.

    Returns:
        Shape (S * S,), row by row; where no point is within reach it is any point.

    """
    cv2 = require("cv2", extra="train")
    margin = math.ceil(reach) + 1
    side = size + 2 * margin
    column, row = (points.nan_to_num(nan=-1e6).clamp(-1e6, 1e6).round().long() + margin).unbind(1)
    near = ((column >= 0) & (column < side) & (row >= 0) & (row < side)).nonzero()[:, 0]
    if not len(near):
        return torch.zeros(size * size, dtype=torch.long)
    at = row[near].numpy(), column[near].numpy()
    free = np.ones((side, side), np.uint8)
    free[at] = 0
    labels = cv2.distanceTransformWithLabels(free, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    owner = np.zeros(int(labels.max()) + 1, np.int64)
    owner[labels[at]] = near.numpy()
    return torch.from_numpy(owner[labels[margin : margin + size, margin : margin + size]].ravel())
