"""The measures in the 3 px form: repeatability, matching score, NN mAP and mean matching accuracy.

Definitions (the same in ``docs/evaluation.md``). A keypoint of image A belongs to the *common view region* if
its transfer to B is visible; keypoints whose transfer is unknown or invisible ask no question. Every measure is
taken from A to B and from B to A, and the two are averaged, which makes it symmetric.

* repeatability: share of A's keypoints in the common view region that have a keypoint of B within 3 px.
* matching score: share of A's keypoints in the common view region whose nearest descriptor among *all* of B lies
  within 3 px of their place in B. Plain nearest neighbour, neither ratio test nor mutual check.
* NN mAP: those nearest neighbours ranked by distance; average precision, where recall counts against A's keypoints
  in the common view region that have a keypoint of B within 3 px.
* MMA: of the mutual nearest neighbours whose first point is in the common view region, the share within t px,
  t = 1..10 (mutual as in D2-Net, Dusmanu et al., CVPR 2019; without "mutual" MMA@3 would be the matching score).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift.evaluation.measures.matching import Neighbours, nearest_neighbours
from kornia_lift.features import Features
from kornia_lift.scenes.scene import VISIBLE, FloatArray, Scene, Transferred

#: Pixel threshold of the 3 px form.
THRESHOLD = 3.0
#: Thresholds of the MMA curve, pixels.
MMA_THRESHOLDS = tuple(range(1, 11))


@dataclass(frozen=True)
class PairScores:
    """What one pair of images scores; both directions averaged.

    Attributes:
        repeatability: 0 to 1.
        matching_score: 0 to 1.
        nn_map: 0 to 1.
        mma: mean matching accuracy at 1..10 px, each 0 to 1.
        common: keypoints in the common view region, mean of both images.
        correspondences: of these, those with a keypoint of the other image within the threshold.
        correct: right nearest neighbours.
        mutual: mutual nearest neighbours in the common view region.
    """

    repeatability: float
    matching_score: float
    nn_map: float
    mma: tuple[float, ...]
    common: float
    correspondences: float
    correct: float
    mutual: float

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers and lists, for JSON."""
        return {**asdict(self), "mma": list(self.mma)}


ZERO_SCORES = PairScores(0.0, 0.0, 0.0, (0.0,) * len(MMA_THRESHOLDS), 0.0, 0.0, 0.0, 0.0)


def score_pair(
    first: Features,
    second: Features,
    forward: Transferred,
    backward: Transferred,
    *,
    threshold: float = THRESHOLD,
    neighbours: Neighbours | None = None,
) -> PairScores:
    """Score the features of two images.

    Args:
        first: features of image A.
        second: features of image B.
        forward: ``first.keypoints`` carried to B.
        backward: ``second.keypoints`` carried to A.
        threshold: pixels within which two keypoints are the same.
        neighbours: nearest neighbours if they are known already.

    Returns:
        The scores; zeros in a direction where the common view region holds no keypoint.
    """
    if len(first) == 0 or len(second) == 0:
        return ZERO_SCORES
    found = neighbours or nearest_neighbours(first, second)
    there = _one_way(
        forward,
        second.keypoints,
        match=found.forward,
        distance=found.forward_distance,
        mutual=found.mutual(),
        threshold=threshold,
    )
    back = _one_way(
        backward,
        first.keypoints,
        match=found.backward,
        distance=found.backward_distance,
        mutual=found.swapped().mutual(),
        threshold=threshold,
    )
    repeatability, matching_score, nn_map, common, correspondences, correct, mutual, *curve = (
        (there + back) / 2
    ).tolist()
    return PairScores(
        repeatability=repeatability,
        matching_score=matching_score,
        nn_map=nn_map,
        mma=tuple(curve),
        common=common,
        correspondences=correspondences,
        correct=correct,
        mutual=mutual,
    )


def score_scene_pair(
    scene: Scene, i: int, j: int, first: Features, second: Features, *, threshold: float = THRESHOLD
) -> PairScores:
    """Score the features of images ``i`` and ``j`` of a scene; see :func:`score_pair`."""
    return score_pair(
        first,
        second,
        scene.transfer(i, j, first.keypoints),
        scene.transfer(j, i, second.keypoints),
        threshold=threshold,
    )


def average_precision(distance: FloatArray, correct: NDArray[np.bool_], relevant: int) -> float:
    """Average precision of matches ranked by distance; equal distances are retrieved together.

    Args:
        distance: distance of each match, shape (N,).
        correct: whether it is right, shape (N,).
        relevant: how many right matches there are to find (the denominator of recall).
    """
    if relevant == 0 or len(distance) == 0:
        return 0.0
    order = np.argsort(distance, kind="stable")
    ranked = distance[order]
    hits = np.cumsum(correct[order])
    ends = np.append(np.flatnonzero(ranked[1:] > ranked[:-1]), len(ranked) - 1)
    precision = hits[ends] / (ends + 1.0)
    gained = np.diff(hits[ends], prepend=0)
    return float((precision * gained).sum() / relevant)


def _one_way(
    moved: Transferred,
    targets: FloatArray,
    *,
    match: NDArray[np.int64],
    distance: FloatArray,
    mutual: NDArray[np.bool_],
    threshold: float,
) -> FloatArray:
    """Repeatability, matching score, NN mAP, four counts, MMA curve of one direction."""
    common = moved.status == VISIBLE
    count = int(common.sum())
    if count == 0:
        return np.zeros(7 + len(MMA_THRESHOLDS))
    points = moved.points[common]
    error = np.hypot(*(points - targets[match[common]]).T)
    right = error <= threshold
    has_partner = _nearest_point(points, targets) <= threshold
    correspondences = int(has_partner.sum())
    among = error[mutual[common]]
    curve = [float((among <= t).mean()) if len(among) else 0.0 for t in MMA_THRESHOLDS]
    return np.array(
        [
            correspondences / count,
            right.mean(),
            average_precision(distance[common], right, correspondences),
            count,
            correspondences,
            right.sum(),
            len(among),
            *curve,
        ]
    )


def _nearest_point(points: FloatArray, targets: FloatArray) -> FloatArray:
    """Distance from each point to the nearest target, shape (N,)."""
    square = np.square(points[:, 0, None] - targets[:, 0])
    square += np.square(points[:, 1, None] - targets[:, 1])
    return np.asarray(np.sqrt(square.min(axis=1)))
