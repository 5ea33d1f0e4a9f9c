"""Average precision of a ranked list, in the two forms that the literature uses."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from kornia_lift.scenes.scene import FloatArray


def average_precision(distance: FloatArray, correct: NDArray[np.bool_], relevant: int) -> float:
    """Average precision of matches ranked by distance: the area under the steps of precision over recall.

    Equal distances are retrieved together.

    Args:
        distance: distance of each match, shape (N,).
        correct: whether it is correct, shape (N,).
        relevant: how many correct matches there are to find (the denominator of recall).
    """
    if relevant == 0 or len(distance) == 0:
        return 0.0
    order = np.argsort(distance, kind="stable")
    ranked = distance[order]
    hits = np.cumsum(correct[order])
    ends = np.append(np.flatnonzero(ranked[1:] > ranked[:-1]), len(ranked) - 1)
    precision = hits[ends] / (ends + 1)
    gained = np.diff(hits[ends], prepend=0)
    return float((precision * gained).sum() / relevant)


def trapezoid_precision(correct: NDArray[np.bool_], relevant: int) -> float:
    """Area under straight lines of precision over recall, closed as in the orientation benchmark of LIFT's authors.

    The tables of the LIFT paper use it. It is not the mean precision at the hits: the curve begins at the precision
    of the first match and falls to zero behind the last.

    Args:
        correct: of matches in ascending order of distance, whether each is correct, shape (N,).
        relevant: how many correct matches there are to find.
    """
    if relevant == 0 or len(correct) == 0:
        return 0.0
    found = np.cumsum(correct)
    recall, precision = found / relevant, found / np.arange(1, len(correct) + 1)
    recall = np.concatenate([[0.0], recall, [recall[-1], 1.0]])
    precision = np.concatenate([[precision[0]], precision, [0.0, 0.0]])
    # torch, because NumPy 1 calls it trapz
    return float(torch.trapezoid(torch.from_numpy(precision), torch.from_numpy(recall)))
