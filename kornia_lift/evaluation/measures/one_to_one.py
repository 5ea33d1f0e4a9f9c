"""Greedy one-to-one assignment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_lift.scenes.scene import FloatArray


def greedy_one_to_one(cost: FloatArray, limit: float = np.inf) -> NDArray[np.int64]:
    """Pairs of rows and columns by smallest cost first, each row and column used once.

    Mutual minima of what is left are taken together, which gives the same pairs as taking them one by one.

    Args:
        cost: shape (N, M).
        limit: only costs below it count.

    Returns:
        (row, column) of the pairs, shape (K, 2).
    """
    rows, columns = np.arange(cost.shape[0]), np.arange(cost.shape[1])
    pairs = [np.zeros((0, 2), np.int64)]
    left = np.where(cost < limit, cost, np.inf)
    while left.size:
        best_column, best_row = left.argmin(axis=1), left.argmin(axis=0)
        r = np.arange(len(rows))
        mutual = (best_row[best_column] == r) & np.isfinite(left[r, best_column])
        if not mutual.any():
            break
        chosen = best_column[mutual]
        pairs.append(np.stack([rows[mutual], columns[chosen]], axis=1))
        keep = np.ones(len(columns), dtype=bool)
        keep[chosen] = False
        # Rows without any finite cost cannot be chosen any more.
        stay = ~mutual & np.isfinite(left.min(axis=1))
        left, rows, columns = left[stay][:, keep], rows[stay], columns[keep]
    return np.concatenate(pairs)
