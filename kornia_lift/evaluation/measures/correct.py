"""The measures of what users do next with matches: correct matches, their precision, their spread, crowding.

Definitions (the same in ``docs/evaluation.md``), from image A to image B as poses and homographies are estimated:

* correct matches: mutual nearest neighbours of which the first keypoint is visible in B and the second lies within
  3 px of its transfer, thinned (:func:`thin`) so that no two of them lie within 3 px of each other in either image.
  Two matches at one location are one constraint for a pose, so they count once.
* median error: median distance of the correct matches from the transfer, pixels of B. A pair without any has none.
* coverage: A is cut into 16x12 cells; of those that B sees, the share that holds a correct match.
* crowding: share of the keypoints with another one of the same image within 2 px, mean of both images.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kornia_lift.evaluation.measures.matching import Neighbours
from kornia_lift.scenes.scene import VISIBLE, FloatArray, Scene, Transferred

#: Distance from the transfer within which a match is correct, and within which two matches are one, pixels.
THRESHOLD = 3.0
#: Distance within which two keypoints of an image crowd, pixels.
CROWDING_RADIUS = 2.0
#: Cells along the longer and the shorter side of the image.
GRID = (16, 12)
#: Points along each side of a cell; the other image sees the cell if it sees one of them.
_SAMPLES = 8
_ROWS_AT_ONCE = 1024


def thin(first: FloatArray, second: FloatArray, distance: FloatArray, apart: float = THRESHOLD) -> NDArray[np.int64]:
    """A subset of matches of which no two lie within ``apart`` pixels of each other in either image.

    Greedy: the matches are taken in ascending order of their descriptor distance, equal ones in the order given, and
    one is kept if every match kept before it is farther than ``apart`` from it in A and in B.

    Args:
        first: matched points of image A, shape (M, 2).
        second: their partners in B, shape (M, 2).
        distance: between the descriptors of each match, shape (M,).
        apart: pixels.

    Returns:
        Indices of the matches that are kept, best first.
    """
    order = np.argsort(distance, kind="stable")
    points = np.concatenate([first, second], axis=1)[order]
    taken = np.empty_like(points)
    kept: list[int] = []
    for index, point in enumerate(points):
        offset = np.square(taken[: len(kept)] - point)
        near = np.minimum(offset[:, 0] + offset[:, 1], offset[:, 2] + offset[:, 3]) <= apart**2
        if not near.any():
            taken[len(kept)] = point
            kept.append(index)
    return np.asarray(order[kept], dtype=np.int64)


def crowding(points: FloatArray, radius: float = CROWDING_RADIUS) -> float:
    """Share of the points (N, 2) with another one within ``radius``; 0 where there are no points."""
    crowded = 0
    for start in range(0, len(points), _ROWS_AT_ONCE):
        block = points[start : start + _ROWS_AT_ONCE]
        square = np.square(block[:, 0, None] - points[:, 0]) + np.square(block[:, 1, None] - points[:, 1])
        square[np.arange(len(block)), start + np.arange(len(block))] = np.inf
        crowded += int((square.min(axis=1) <= radius**2).sum())
    return crowded / max(len(points), 1)


def cells(points: FloatArray, size: tuple[int, int]) -> NDArray[np.int64]:
    """Column and row of the cell of each point (N, 2) in an image of this width and height, shape (N, 2)."""
    grid = _grid(size)
    return np.clip(((points + 0.5) * grid / np.array(size)).astype(np.int64), 0, grid - 1)


def common_cells(scene: Scene, i: int, j: int) -> NDArray[np.bool_]:
    """Which cells of image ``i`` image ``j`` sees a part of, shape (rows, columns).

    All cells where the scene has no ground truth for points.
    """
    size = scene.image_size(i)
    columns, rows = _grid(size)
    x = (np.arange(columns * _SAMPLES) + 0.5) * size[0] / (columns * _SAMPLES) - 0.5
    y = (np.arange(rows * _SAMPLES) + 0.5) * size[1] / (rows * _SAMPLES) - 0.5
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    seen = scene.transfer(i, j, points).status == VISIBLE
    return np.asarray(seen.reshape(rows, _SAMPLES, columns, _SAMPLES).any(axis=(1, 3)))


def coverage(points: FloatArray, size: tuple[int, int], common: NDArray[np.bool_]) -> float:
    """Share of the common cells that hold one of the points.

    Args:
        points: correct matches in image A, shape (M, 2).
        size: width and height of A.
        common: cells that count, shape (rows, columns).
    """
    if not common.any():
        return 0.0
    held = np.zeros_like(common)
    column, row = cells(points, size).T
    held[row, column] = True
    return float((held & common).sum() / common.sum())


def transfer_error(forward: Transferred, matched: NDArray[np.int64], points: FloatArray) -> FloatArray:
    """Distance of matches from the transfer, shape (M,); infinity where the first keypoint is not visible in B.

    Args:
        forward: keypoints of A carried to B.
        matched: index of the keypoint of A of each match, shape (M,).
        points: matched keypoints of B, shape (M, 2).
    """
    error = np.hypot(*(forward.points[matched] - points).T)
    return np.where(forward.status[matched] == VISIBLE, error, np.inf)


def correct_matches(
    matches: tuple[FloatArray, FloatArray, FloatArray], error: FloatArray, threshold: float = THRESHOLD
) -> NDArray[np.int64]:
    """Return the indices of the correct mutual nearest neighbours, thinned, best descriptor distance first.

    Args:
        matches: matched points of A (M, 2), of B (M, 2), distance of their descriptors (M,).
        error: of each match in pixels, infinity where it is not correct, shape (M,).
        threshold: pixels up to which a match is correct.
    """
    good = np.flatnonzero(error <= threshold)
    first, second, distance = matches
    return np.asarray(good[thin(first[good], second[good], distance[good])], dtype=np.int64)


def mutual_matches(
    first: FloatArray, second: FloatArray, neighbours: Neighbours
) -> tuple[NDArray[np.int64], tuple[FloatArray, FloatArray, FloatArray]]:
    """Mutual nearest neighbours: index into A, shape (M,), and points of A, points of B, descriptor distance.

    Args:
        first: keypoints of A, shape (N, 2).
        second: keypoints of B, shape (M, 2).
        neighbours: between their descriptors.
    """
    index = np.flatnonzero(neighbours.mutual())
    partner = neighbours.forward[index]
    return index, (first[index], second[partner], neighbours.forward_distance[index])


def grid_shape(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the cells of an image of this width and height."""
    columns, rows = _grid(size)
    return int(rows), int(columns)


def _grid(size: tuple[int, int]) -> NDArray[np.int64]:
    """Columns and rows: the longer side of the image has more cells."""
    longer, shorter = GRID
    return np.array([longer, shorter] if size[0] >= size[1] else [shorter, longer])
