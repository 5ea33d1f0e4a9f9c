"""Putative matches: mutual nearest neighbours with a ratio test."""

from __future__ import annotations

import numpy as np
import torch
from kornia.feature import match_mnn, match_smnn
from numpy.typing import NDArray
from torch import Tensor


@torch.no_grad()
def match_descriptors(first: Tensor, second: Tensor, ratio: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Match descriptors by mutual nearest neighbours, best first; no gradient is recorded.

    Args:
        first: unit vectors, shape (N, D).
        second: unit vectors, shape (M, D).
        ratio: keep a match if nearest / second-nearest distance is at most this, in both directions; 1 switches the
            test off.

    Returns:
        Index pairs of shape (K, 2) and confidences of shape (K,), see :class:`PairMatch`.
    """
    if len(first) == 0 or len(second) == 0:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    if ratio < 1:
        worth, pairs = match_smnn(first, second, ratio)
        confidence = 1 - worth[:, 0]
    else:
        worth, pairs = match_mnn(first, second)
        confidence = 1 - worth[:, 0].square() / 2
    order = confidence.argsort(descending=True, stable=True)
    return pairs[order].cpu().numpy(), confidence[order].double().cpu().numpy()
