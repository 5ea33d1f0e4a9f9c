"""The measures of keypoints and descriptors in the 3 px form: repeatability, matching score, NN mAP, MMA.

Definitions (the same in ``docs/evaluation.md``). A keypoint of image A belongs to the *common view region* if
its transfer to B is visible; keypoints whose transfer is unknown or invisible do not count. Every measure is
taken from A to B and from B to A, and the two are averaged, which makes it symmetric.

* repeatability: share of A's keypoints in the common view region that have a keypoint of B within 3 px.
* repeatability, one-to-one: greedy one-to-one pairs of keypoints of both common view regions within 3 px, nearest
  first / the smaller number of keypoints in the two regions. Keypoints that crowd around one location count once.
* matching score: share of A's keypoints in the common view region whose nearest descriptor among *all* of B lies
  within 3 px of their location in B. Plain nearest neighbour, neither ratio test nor mutual check.
* matching score, one-to-one: mutual nearest neighbours within 3 px / the smaller number of keypoints in the two
  common view regions.
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

from kornia_lift.evaluation.measures.correct import THRESHOLD
from kornia_lift.evaluation.measures.matching import Neighbours, nearest_neighbours
from kornia_lift.evaluation.measures.one_to_one import greedy_one_to_one
from kornia_lift.evaluation.measures.precision import average_precision
from kornia_lift.features import Features
from kornia_lift.scenes.scene import VISIBLE, FloatArray, Scene, Transferred

#: Thresholds of the MMA curve, pixels.
MMA_THRESHOLDS = tuple(range(1, 11))


@dataclass(frozen=True)
class PairScores:
    """What one pair of images scores; both directions averaged.

    Attributes:
        repeatability: 0 to 1.
        repeatability_one_to_one: 0 to 1.
        matching_score: 0 to 1.
        matching_score_one_to_one: 0 to 1.
        nn_map: 0 to 1.
        mma: mean matching accuracy at 1..10 px, each 0 to 1.
        common: keypoints in the common view region, mean of both images.
        correspondences: of these, those with a keypoint of the other image within the threshold.
        correct: correct nearest neighbours.
        mutual: mutual nearest neighbours in the common view region.
    """

    repeatability: float
    repeatability_one_to_one: float
    matching_score: float
    matching_score_one_to_one: float
    nn_map: float
    mma: tuple[float, ...]
    common: float
    correspondences: float
    correct: float
    mutual: float

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers and lists, for JSON."""
        return {**asdict(self), "mma": list(self.mma)}


ZERO_SCORES = PairScores(0.0, 0.0, 0.0, 0.0, 0.0, (0.0,) * len(MMA_THRESHOLDS), 0.0, 0.0, 0.0, 0.0)


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
        neighbours: nearest neighbours of the descriptors; computed here if None.

    Returns:
        The scores; zeros in a direction where the common view region holds no keypoint.
    """
    if len(first) == 0 or len(second) == 0:
        return ZERO_SCORES
    found = neighbours or nearest_neighbours(first, second)
    there = _one_way(forward, backward, second.keypoints, found, threshold)
    back = _one_way(backward, forward, first.keypoints, found.swapped(), threshold)
    repeated, repeated_once, matched, matched_once, nn_map, common, correspondences, correct, mutual, *curve = (
        (there + back) / 2
    ).tolist()
    return PairScores(
        repeatability=repeated,
        repeatability_one_to_one=repeated_once,
        matching_score=matched,
        matching_score_one_to_one=matched_once,
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


def _one_way(
    moved: Transferred, other: Transferred, targets: FloatArray, neighbours: Neighbours, threshold: float
) -> FloatArray:
    """One direction: the first five scores of :class:`PairScores`, its four counts, the MMA curve.

    Args:
        moved: keypoints carried to the image of the targets.
        other: the targets carried back.
        targets: keypoints of that image, shape (M, 2).
        neighbours: from the keypoints to the targets.
        threshold: pixels.
    """
    common, in_other = moved.status == VISIBLE, other.status == VISIBLE
    count = int(common.sum())
    if count == 0:
        return np.zeros(9 + len(MMA_THRESHOLDS))
    points = moved.points[common]
    distance = _distances(points, targets)
    error = distance[np.arange(count), neighbours.forward[common]]
    right, mutual = error <= threshold, neighbours.mutual()[common]
    correspondences = int((distance.min(axis=1) <= threshold).sum())
    # both the keypoint and its partner are in the common view region, of which the smaller one limits the number
    smaller = min(count, int(in_other.sum()))
    pairs = greedy_one_to_one(distance[:, in_other], np.nextafter(threshold, np.inf))
    matched = right & mutual & in_other[neighbours.forward[common]]
    curve = [float((error[mutual] <= t).mean()) if mutual.any() else 0.0 for t in MMA_THRESHOLDS]
    return np.array(
        [
            correspondences / count,
            len(pairs) / max(smaller, 1),
            right.mean(),
            matched.sum() / max(smaller, 1),
            average_precision(neighbours.forward_distance[common], right, correspondences),
            count,
            correspondences,
            right.sum(),
            mutual.sum(),
            *curve,
        ]
    )


def _distances(points: FloatArray, targets: FloatArray) -> NDArray[np.float64]:
    """Distance from each point (N, 2) to each target (M, 2), shape (N, M)."""
    square = np.square(points[:, 0, None] - targets[:, 0])
    square += np.square(points[:, 1, None] - targets[:, 1])
    return np.asarray(np.sqrt(square))
