"""The measures of a pair whose matches a correspondence network has filtered, beside those of all mutual ones."""

from __future__ import annotations

import numpy as np
import torch

from kornia_lift.evaluation.measures.geometry import POSE_AUC, Estimator, auc
from kornia_lift.evaluation.measures.learned_filter import (
    PutativePair,
    filter_alone_error,
    magsac_errors,
    score_matches,
)
from kornia_lift.features import Features
from kornia_lift.matching.putative import putative_matches
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.scene import HasPose, Pair

#: Names of the measures: of MAGSAC on what the filter keeps, and of the filter alone, without sampling.
FILTERED, ALONE = "filtered", "filter_alone"


def putative_pair(scene: HasPose, pair: Pair, features: tuple[Features, Features]) -> PutativePair:
    """Match a pair of images of a scene: all nearest neighbours, without lens distortion.

    Raises:
        ValueError: if the descriptors are packed bits, for which the ratio has another meaning.

    """
    if any(f.is_binary for f in features):
        raise ValueError("the learned filter expects float descriptors, got packed bits (uint8)")
    first, second = features
    found = putative_matches(*(torch.from_numpy(np.asarray(f.descriptors, dtype=np.float32)) for f in features))
    chosen = found.pairs.numpy()
    points = (
        scene.undistort(pair.i, first.keypoints)[chosen[:, 0]],
        scene.undistort(pair.j, second.keypoints)[chosen[:, 1]],
    )
    return PutativePair(
        np.concatenate(points, 1),
        found.side.numpy(),
        (scene.intrinsics[pair.i], scene.intrinsics[pair.j]),
        scene.relative_pose(pair.i, pair.j),
    )


def filtered_poses(
    scene: HasPose, pair: Pair, features: tuple[Features, Features], network: CorrespondenceNet, estimator: Estimator
) -> dict[str, float]:
    """Errors and areas under the curve of the poses that a pair gives after the filter, and by the filter alone.

    Args:
        scene: with cameras.
        pair: its images.
        features: of the first and of the second image; nothing is measured for packed bits.
        network: a trained network in eval mode.
        estimator: robust estimator.

    """
    if any(f.is_binary for f in features):
        return {}
    putative = putative_pair(scene, pair, features)
    scored = score_matches(network, putative)
    kept = (scored.logits > 0) & (torch.from_numpy(putative.side[:, 1]) > 0)
    values = {"filtered_matches": float(kept.sum())}
    for name, errors in (
        (FILTERED, magsac_errors(putative, estimator, kept)),
        (ALONE, np.array([filter_alone_error(putative, scored)])),
    ):
        values |= {f"pose_auc_{t}_{name}": auc(errors, t) for t in POSE_AUC}
        values[f"pose_error_{name}"] = float(np.median(errors))
    return values


def filtered_zeros() -> dict[str, float]:
    """What a failed pair scores."""
    return {f"pose_auc_{t}_{name}": 0.0 for t in POSE_AUC for name in (FILTERED, ALONE)} | {"filtered_matches": 0.0}
