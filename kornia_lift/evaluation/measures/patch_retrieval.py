"""Descriptors alone: how well distances separate patches of the same point from patches of different points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.evaluation.measures.precision import average_precision
from kornia_lift.scenes.patch_sets import PatchSet
from kornia_lift.scenes.scene import FloatArray

_BATCH = 512


@dataclass(frozen=True)
class RetrievalScores:
    """What a descriptor scores on pairs of patches.

    Attributes:
        pr_auc: area under precision over recall, as average precision (Simo-Serra et al., ICCV 2015, 4.1).
        fpr95: share of non-matching pairs accepted where 95 % of the matching ones are (Brown et al., PAMI 2011).
        positives: number of matching pairs.
        negatives: number of non-matching pairs.
    """

    pr_auc: float
    fpr95: float
    positives: int
    negatives: int


def retrieval_pairs(
    point_ids: NDArray[np.int64], *, negatives: int = 1, seed: int = 0, points: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """One matching pair per point and some non-matching ones, as in the evaluation of DeepDesc.

    Args:
        point_ids: the point of each patch, shape (N,).
        negatives: non-matching pairs per point; DeepDesc takes 1000, Brown's lists have 1.
        seed: of the draw.
        points: largest number of points, drawn among those with two patches; None for all of them.

    Returns:
        Indices of patches, shape (M, 2), and whether they show the same point, shape (M,).

    Raises:
        ValueError: if no point has two patches, or there is only one point.
    """
    generator = np.random.default_rng(seed)
    order = np.argsort(point_ids, kind="stable")
    ids, start, count = np.unique(point_ids[order], return_index=True, return_counts=True)
    usable = np.flatnonzero(count >= 2)
    if len(usable) == 0 or len(ids) < 2:
        raise ValueError("pairs need a point with two patches, and a second point")
    if points is not None and points < len(usable):
        usable = np.sort(generator.choice(usable, points, replace=False))
    anchors, partners = np.empty(len(usable), np.int64), np.empty(len(usable), np.int64)
    for k, point in enumerate(usable):
        a, b = generator.choice(count[point], 2, replace=False)
        anchors[k], partners[k] = order[start[point] + a], order[start[point] + b]
    others = generator.integers(len(ids) - 1, size=(len(usable), negatives))
    others += others >= usable[:, None]  # every point but the anchor's own
    strangers = order[start[others] + generator.integers(count[others])]
    pairs = np.concatenate(
        [np.stack([anchors, partners], axis=1), np.stack([np.repeat(anchors, negatives), strangers.ravel()], axis=1)]
    )
    same = np.zeros(len(pairs), dtype=bool)
    same[: len(usable)] = True
    return pairs, same


def evaluate_descriptor(
    descriptor: Callable[[Tensor], Tensor],
    patches: PatchSet,
    pairs: NDArray[np.int64] | None = None,
    same: NDArray[np.bool_] | None = None,
    *,
    negatives: int = 1,
    seed: int = 0,
) -> RetrievalScores:
    """Describe patches and score pairs of them by L2 distance.

    Args:
        descriptor: from patches (B, 1, S, S) in [0, 1] to descriptors (B, D).
        patches: the patches and their points.
        pairs: indices of patches, shape (M, 2); the set's own list, or one that is drawn, by default.
        same: whether each pair shows the same point, shape (M,).
        negatives: non-matching pairs per point if the pairs are drawn.
        seed: of that draw.

    Raises:
        ValueError: if a descriptor is not finite, or there are no matching or no non-matching pairs.
    """
    if pairs is None or same is None:
        if patches.pairs is not None and patches.same is not None:
            pairs, same = patches.pairs, patches.same
        else:
            pairs, same = retrieval_pairs(patches.point_ids, negatives=negatives, seed=seed)
    _check_both(same)
    used, position = np.unique(pairs, return_inverse=True)
    position = position.reshape(pairs.shape)
    described = []
    with torch.inference_mode():
        for start in range(0, len(used), _BATCH):
            batch = torch.from_numpy(patches.patches[used[start : start + _BATCH]]).float()[:, None] / 255
            described.append(descriptor(batch).float().cpu().numpy())
    vectors = np.concatenate(described)
    if not np.isfinite(vectors).all():
        raise ValueError(
            f"{int((~np.isfinite(vectors).all(axis=1)).sum())} of {len(vectors)} descriptors are not finite"
        )
    distance = np.concatenate(
        [
            np.linalg.norm(vectors[position[s : s + 65536, 0]] - vectors[position[s : s + 65536, 1]], axis=1)
            for s in range(0, len(pairs), 65536)
        ]
    ).astype(np.float64)
    return score_distances(distance, same)


def score_distances(distance: FloatArray, same: NDArray[np.bool_]) -> RetrievalScores:
    """Scores of pairs from their distances (M,) and whether they match (M,).

    Raises:
        ValueError: if there are no matching or no non-matching pairs.
    """
    positives, negatives = _check_both(same)
    # The smallest distance that accepts at least 95 % of the matching pairs.
    threshold = np.sort(distance[same])[int(np.ceil(0.95 * positives)) - 1]
    return RetrievalScores(
        average_precision(distance, same, positives),
        float((distance[~same] <= threshold).mean()),
        positives,
        negatives,
    )


def _check_both(same: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the numbers of matching and of non-matching pairs, neither of which may be 0."""
    positives, negatives = int(same.sum()), int((~same).sum())
    if positives == 0 or negatives == 0:
        raise ValueError(f"matching and non-matching pairs are needed; got {positives} and {negatives}")
    return positives, negatives
