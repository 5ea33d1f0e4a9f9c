"""Distances between many points, in bounded memory."""

from __future__ import annotations

import numpy as np

from kornia_lift.scenes.scene import FloatArray

COMPARED_AT_ONCE = 2**20  # points times other points


def nearest_square(points: FloatArray, others: FloatArray) -> FloatArray:
    """Return the squared distance of every point to the nearest one of others.

    Args:
        points: shape (N, 2).
        others: shape (M, 2).

    Returns:
        Shape (N,), in the square of their unit; infinite where there are no others.

    """
    nearest = np.full(len(points), np.inf)
    rows = max(1, COMPARED_AT_ONCE // max(1, len(others)))
    for start in range(0, len(points) if len(others) else 0, rows):
        some = points[start : start + rows]
        # axis by axis: a reduction over an axis of two numbers takes several times as long
        square = (some[:, :1] - others[:, 0]) ** 2
        square += (some[:, 1:] - others[:, 1]) ** 2
        nearest[start : start + rows] = square.min(axis=1)
    return nearest
