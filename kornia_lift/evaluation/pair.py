"""What is measured on one pair of images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift.evaluation.filtered import filtered_zeros
from kornia_lift.evaluation.measures.correct import (
    THRESHOLD,
    common_cells,
    correct_matches,
    coverage,
    crowding,
    grid_shape,
    mutual_matches,
    transfer_error,
)
from kornia_lift.evaluation.measures.epipolar import EPIPOLAR_THRESHOLD, scene_epipolar_distance
from kornia_lift.evaluation.measures.geometry import (
    HOMOGRAPHY_AUC,
    POSE_AUC,
    Estimator,
    auc,
    homography_error,
    pose_error,
)
from kornia_lift.evaluation.measures.matching import Neighbours
from kornia_lift.evaluation.measures.metrics import MMA_THRESHOLDS, ZERO_SCORES, PairScores, score_pair
from kornia_lift.evaluation.measures.overlap import OverlapOptions, score_overlap
from kornia_lift.features import Features
from kornia_lift.matching.refinement import refined_positions
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.scene import UNKNOWN, FloatArray, HasLocalAffine, HasPose, Pair, Scene, Transferred


@dataclass(frozen=True)
class Options:
    """What to measure, and how.

    Args:
        num_features: keypoints per image at most, those of highest score.
        threshold: pixels within which a match is correct and a keypoint is repeated.
        estimator: robust estimator for poses and homographies; None leaves both out.
        overlap: forms of the overlap measures; empty leaves them out (they take most of the time).
        epipolar_threshold: pixels within which a match agrees with the cameras, where there is no depth.
        filter: weights of a correspondence network, a name or a path; poses are then also estimated from what it keeps.
        refine: positions of the matches in B are refined before they are measured.
    """

    num_features: int = 1000
    threshold: float = THRESHOLD
    estimator: Estimator | None = field(default_factory=Estimator)
    overlap: tuple[OverlapOptions, ...] = ()
    epipolar_threshold: float = EPIPOLAR_THRESHOLD
    filter: str | None = None
    refine: bool = False


def measure_pair(
    scene: Scene,
    pair: Pair,
    features: tuple[Features, Features],
    moved: tuple[Transferred, Transferred],
    neighbours: Neighbours,
    options: Options,
    images: tuple[Tensor, Tensor] | None = None,
) -> tuple[dict[str, float], str]:
    """Measure the features of one pair.

    Args:
        scene: the scene of the pair.
        pair: its images.
        features: of the first and of the second image.
        moved: the keypoints of the first image in the second one, and the other way round.
        neighbours: nearest neighbours of the descriptors.
        options: what to measure.
        images: where the matches are refined.

    Returns:
        The measures by name, and why some are missing; empty where none is.

    """
    (first, second), (forward, backward) = features, moved
    known = bool((forward.status != UNKNOWN).any() and (backward.status != UNKNOWN).any())
    matched, matches = mutual_matches(first.keypoints, second.keypoints, neighbours)
    if images is not None:
        refined = refined_positions(images, features, np.stack([matched, neighbours.forward[matched]], 1))
        matches = matches[0], matches[1] if refined is None else refined, matches[2]
    values: dict[str, float] = {}
    if known:
        distance = transfer_error(forward, matched, matches[1])
        values |= _match_values(scene, pair, matches, distance, options)
    elif isinstance(scene, HasPose):
        values |= _epipolar_values(scene, pair, matches, options)
    values["crowding"] = (crowding(first.keypoints) + crowding(second.keypoints)) / 2
    if options.estimator is not None:
        values |= _geometry(scene, pair, matches[:2], scene.image_size(pair.i), options.estimator)
    values["matches"] = float(len(matched))
    if not known:
        return values, "no ground truth at any keypoint: only cameras and matches were measured"
    values |= _flat(score_pair(first, second, *moved, threshold=options.threshold, neighbours=neighbours))
    if images is not None:
        values |= _refined_mma(forward, matched, matches[1])
    if options.overlap and isinstance(scene, HasLocalAffine):
        if first.scales is None or second.scales is None:
            return values, "no scales: the overlap form was left out"
        values |= score_overlap(scene, pair, features, moved, options.overlap)
    return values, ""


def _match_values(
    scene: Scene,
    pair: Pair,
    matches: tuple[FloatArray, FloatArray, FloatArray],
    error: FloatArray,
    options: Options,
) -> dict[str, float]:
    """Correct matches, their coverage and errors."""
    kept = correct_matches(matches, error, options.threshold)
    first, second = matches[0][kept], matches[1][kept]
    size = scene.image_size(pair.i)
    values = {
        "correct_matches": float(len(kept)),
        "coverage": coverage(first, size, common_cells(scene, pair.i, pair.j)),
    }
    if len(kept):
        values["median_error"] = float(np.median(error[kept]))
        if isinstance(scene, HasPose):
            distance = scene_epipolar_distance(scene, (pair.i, pair.j), first, second)
            values["median_epipolar_error"] = float(np.median(distance))
    return values


def _epipolar_values(
    scene: Scene, pair: Pair, matches: tuple[FloatArray, FloatArray, FloatArray], options: Options
) -> dict[str, float]:
    """The same from the cameras alone: a match counts if it lies near the epipolar lines."""
    assert isinstance(scene, HasPose)
    distance = scene_epipolar_distance(scene, (pair.i, pair.j), *matches[:2])
    kept = correct_matches(matches, distance, options.epipolar_threshold)
    size = scene.image_size(pair.i)
    everything: NDArray[np.bool_] = np.ones(grid_shape(size), dtype=bool)
    values = {
        "epipolar_matches": float(len(kept)),
        "epipolar_coverage": coverage(matches[0][kept], size, everything),
        "epipolar_precision": float((distance <= options.epipolar_threshold).mean()) if len(distance) else 0.0,
    }
    if len(kept):
        values["median_epipolar_error"] = float(np.median(distance[kept]))
    return values


def _flat(scores: PairScores) -> dict[str, float]:
    values = {k: v for k, v in scores.as_dict().items() if k != "mma"}
    return values | {f"mma_{t}": v for t, v in zip(MMA_THRESHOLDS, scores.mma, strict=True)}


def _refined_mma(forward: Transferred, matched: NDArray[np.int64], refined: FloatArray) -> dict[str, float]:
    """Share of the matches within each threshold, of those whose keypoint of A is visible in B."""
    error = transfer_error(forward, matched, refined)
    seen = error[np.isfinite(error)]
    return {f"mma_{t}": float((seen <= t).mean()) if len(seen) else 0.0 for t in MMA_THRESHOLDS}


def _geometry(
    scene: Scene, pair: Pair, matched: tuple[FloatArray, FloatArray], size: tuple[int, int], estimator: Estimator
) -> dict[str, float]:
    """Error of the homography or pose, and its share of the area under the curve at each threshold."""
    if isinstance(scene, HomographySequence):
        truth = scene.homography(pair.i, pair.j)
        errors = estimator.errors(
            lambda first, second: homography_error(first, second, truth, size, estimator), np.hstack(matched)
        )
        return {f"homography_auc_{t}": auc(errors, t) for t in HOMOGRAPHY_AUC} | {
            "homography_error": float(np.median(errors))
        }
    if isinstance(scene, HasPose):
        cameras = scene.intrinsics[pair.i], scene.intrinsics[pair.j]
        ideal = scene.undistort(pair.i, matched[0]), scene.undistort(pair.j, matched[1])
        pose = scene.relative_pose(pair.i, pair.j)
        errors = estimator.errors(
            lambda first, second: pose_error(first, second, cameras, pose, estimator), np.hstack(ideal)
        )
        return {f"pose_auc_{t}": auc(errors, t) for t in POSE_AUC} | {"pose_error": float(np.median(errors))}
    return {}


def zeros(scene: Scene, options: Options) -> dict[str, float]:
    """Scores of a failed pair: zero in every measure that a good pair of this scene has and where larger is better."""
    if isinstance(scene, CalibratedScene):
        values = dict.fromkeys(("epipolar_matches", "epipolar_coverage", "epipolar_precision"), 0.0)
    else:
        values = {"correct_matches": 0.0, "coverage": 0.0} | _flat(ZERO_SCORES)
    values["matches"] = 0.0
    if options.estimator is not None:
        if isinstance(scene, HomographySequence):
            values |= {f"homography_auc_{t}": 0.0 for t in HOMOGRAPHY_AUC}
        elif isinstance(scene, HasPose):
            values |= {f"pose_auc_{t}": 0.0 for t in POSE_AUC}
            values |= {} if options.filter is None else filtered_zeros()
    if isinstance(scene, HasLocalAffine):
        values |= {name: 0.0 for form in options.overlap for name in form.measures}
    return values
