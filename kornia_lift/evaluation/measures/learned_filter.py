"""Relative poses from the same putative matches with and without a learned filter.

Convention:
    Putative matches are all nearest neighbours of the first image. Positions are pixels without lens distortion. Errors
    are those of :func:`~kornia_lift.evaluation.measures.geometry.pose_error`: the larger of the angles of rotation and
    translation direction, degrees, where the opposite direction counts as wrong; infinity if no pose was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from kornia.geometry import RANSAC
from torch import Tensor

from kornia_lift.evaluation.measures.geometry import Estimator, angular_error, pose_error
from kornia_lift.evaluation.measures.relative_pose import pose_from_essential
from kornia_lift.geometry.epipolar import normalise_matches, robust_essential
from kornia_lift.networks.correspondence import Consensus, CorrespondenceNet
from kornia_lift.scenes.scene import FloatArray

POSE_SHARE = 0.1  # of the matches, those of highest logits, choose among the four poses
INLIER_PIXELS = 1.5  # tolerance of the reweighting
#: A plain eight-point RANSAC draws at most this many batches of this many samples.
RANSAC_BATCHES, RANSAC_BATCH = 10, 1000


@dataclass(frozen=True)
class PutativePair:
    """Putative matches of two images and their true pose.

    Args:
        matches: (x1, y1, x2, y2) in pixels, shape (N, 4).
        side: ratio and mutuality, see :data:`~kornia_lift.networks.correspondence.SIDE_COLUMNS`, shape (N, 2).
        intrinsics: K of both images, each (3, 3).
        pose: true R (3, 3) and t (3,) with X_2 = R X_1 + t.

    """

    matches: FloatArray
    side: FloatArray
    intrinsics: tuple[FloatArray, FloatArray]
    pose: tuple[FloatArray, FloatArray]

    @property
    def normalised(self) -> Tensor:
        """The matches in normalised coordinates, float32, shape (N, 4)."""
        first, second = (torch.from_numpy(np.asarray(k, dtype=np.float64)) for k in self.intrinsics)
        return normalise_matches(torch.from_numpy(self.matches)[None].double(), (first, second))[0].float()


@torch.no_grad()
def score_matches(network: CorrespondenceNet, pair: PutativePair) -> Consensus:
    """Run the network on the matches of a pair; the result has no batch dimension."""
    side = torch.from_numpy(pair.side)[None].float() if network.side else None
    found = network(pair.normalised[None], side=side)
    return Consensus(*(t[0] for t in found))


def magsac_errors(pair: PutativePair, estimator: Estimator, kept: Tensor | None = None) -> FloatArray:
    """Errors of the poses that MAGSAC finds from the matches ``kept`` (N,), or from all, in each order.

    Returns:
        Degrees, shape (orders,) of the estimator.

    """
    chosen = pair.matches if kept is None else pair.matches[kept.numpy()]
    return estimator.errors(
        lambda first, second: pose_error(first, second, pair.intrinsics, pair.pose, estimator), chosen
    )


def filter_alone_error(pair: PutativePair, scored: Consensus, *, reweighted: bool = True) -> float:
    """Error of the pose that the network gives without any sampling.

    Args:
        pair: the matches.
        scored: output of the network for them.
        reweighted: by :func:`~kornia_lift.geometry.epipolar.robust_essential` on the mutual matches, weighted by the
            network; otherwise by its own essential matrix, the plain weighted eight-point algorithm, as in the paper.

    """
    if not len(pair.matches):
        return float("inf")
    normalised = pair.normalised
    essential = scored.essential
    if reweighted:
        focal = float(np.mean([k[[0, 1], [0, 1]].mean() for k in pair.intrinsics]))
        weights = scored.weights * torch.from_numpy(pair.side[:, 1])
        essential = robust_essential(normalised, weights, tolerance=INLIER_PIXELS / focal)
    best = scored.logits.topk(max(1, round(POSE_SHARE * len(scored.logits)))).indices
    return _essential_error(pair, essential, normalised[best])


def eight_point_ransac_error(pair: PutativePair, threshold: float, seed: int = 0) -> float:
    """Error of the pose of a fundamental matrix that plain RANSAC finds from samples of eight.

    Args:
        pair: the matches; all of them are used.
        threshold: pixels within which a match is an inlier.
        seed: of the samples.

    """
    if len(pair.matches) < 8:
        return float("inf")
    points = torch.from_numpy(pair.matches).float()
    plain = {"max_lo_iters": 0, "score_type": "ransac", "seed": seed}
    ransac = RANSAC("fundamental_8pt", threshold, RANSAC_BATCH, RANSAC_BATCHES, 0.9999, **plain)
    try:
        fundamental, inliers = ransac(points[:, :2], points[:, 2:])
    except (RuntimeError, ValueError):  # no sample was in general position
        return float("inf")
    k1, k2 = (torch.from_numpy(np.asarray(k, dtype=np.float64)) for k in pair.intrinsics)
    essential = k2.mT @ fundamental.double() @ k1
    return _essential_error(pair, essential, pair.normalised[inliers.flatten()])


def _essential_error(pair: PutativePair, essential: Tensor, inliers: Tensor) -> float:
    found = pose_from_essential(essential.double().numpy(), inliers.double().numpy())
    return float("inf") if found is None else angular_error(found[0], found[1], *pair.pose)
