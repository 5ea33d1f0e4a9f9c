"""Plain nearest neighbours: no ratio test, no threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift.features import Features

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours between two sets of descriptors, both ways.

    Attributes:
        forward: for each descriptor of the first set, the index of the nearest of the second, shape (N,).
        forward_distance: its distance, shape (N,).
        backward: for each descriptor of the second set, the index of the nearest of the first, shape (M,).
        backward_distance: its distance, shape (M,).
    """

    forward: NDArray[np.int64]
    forward_distance: NDArray[np.float64]
    backward: NDArray[np.int64]
    backward_distance: NDArray[np.float64]

    def swapped(self) -> Neighbours:
        """The same with first and second set exchanged."""
        return Neighbours(self.backward, self.backward_distance, self.forward, self.forward_distance)

    def mutual(self) -> NDArray[np.bool_]:
        """Whether the nearest neighbour's nearest neighbour is the descriptor itself, shape (N,)."""
        if len(self.backward) == 0:
            return np.zeros(len(self.forward), dtype=bool)
        return np.asarray(self.backward[self.forward] == np.arange(len(self.forward)))


def nearest_neighbours(first: Features, second: Features) -> Neighbours:
    """Nearest neighbours by L2 distance, or by Hamming distance for packed bits. The first of equals wins.

    Raises:
        ValueError: if the two sets hold different kinds or lengths of descriptors.
    """
    a, b = first.descriptors, second.descriptors
    if a.shape[1] != b.shape[1] or first.is_binary != second.is_binary:
        raise ValueError(
            f"the two images have different descriptors: {a.dtype} x {a.shape[1]} and {b.dtype} x {b.shape[1]}"
        )
    n, m = len(a), len(b)
    if n == 0 or m == 0:
        return Neighbours(np.zeros(n, np.int64), np.full(n, np.inf), np.zeros(m, np.int64), np.full(m, np.inf))
    a, b = as_vectors(a, first.is_binary), as_vectors(b, first.is_binary)
    squares = (b * b).sum(axis=1)
    forward, forward_square = np.empty(n, np.int64), np.empty(n)
    backward, backward_square = np.zeros(m, np.int64), np.full(m, np.inf)
    for start in range(0, n, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, n))
        block = a[rows]
        square = block @ b.T
        square *= -2.0
        square += squares
        square += (block * block).sum(axis=1)[:, None]
        forward[rows] = square.argmin(axis=1)
        forward_square[rows] = square[np.arange(len(block)), forward[rows]]
        best = square.argmin(axis=0)
        value = square[best, np.arange(m)]
        better = value < backward_square
        backward[better] = best[better] + start
        backward_square[better] = value[better]
    return Neighbours(
        forward,
        _distance(forward_square, first.is_binary),
        backward,
        _distance(backward_square, first.is_binary),
    )


def as_vectors(descriptors: NDArray[Any], binary: bool) -> NDArray[np.float64]:
    """Return descriptors (N, D), or packed bits (N, bytes) unpacked, as float64."""
    # The squared L2 distance of bits is the number of bits that differ.
    array = np.unpackbits(descriptors, axis=1) if binary else descriptors
    return array.astype(np.float64)


def _distance(square: NDArray[np.float64], binary: bool) -> NDArray[np.float64]:
    # Rounding may leave a tiny negative square for equal vectors.
    square = np.maximum(square, 0.0)
    return square if binary else np.sqrt(square)
