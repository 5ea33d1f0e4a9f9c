"""The one protocol: features from any source, scored on every pair of every scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

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
from kornia_lift.evaluation.measures.matching import Neighbours, nearest_neighbours
from kornia_lift.evaluation.measures.metrics import MMA_THRESHOLDS, ZERO_SCORES, PairScores, score_pair
from kornia_lift.evaluation.measures.overlap import OverlapOptions, score_overlap
from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError, UnreadableImageError
from kornia_lift.scenes.calibrated import CalibratedScene
from kornia_lift.scenes.homographies import HomographySequence
from kornia_lift.scenes.scene import UNKNOWN, FloatArray, HasLocalAffine, HasPose, Pair, Scene, Transferred

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


class FeatureSource(Protocol):
    """Where features come from: a cache, an h5 file, or an extractor in this process."""

    def read(self, scene: str, image: str) -> Features:
        """Features of one image.

        Raises:
            UnreadableImageError: if the image file could not be read: the pair is skipped.
            FeatureFileError: if there are no features of it: the pair fails.
        """
        ...


@dataclass(frozen=True)
class Options:
    """What to measure, and how.

    Args:
        num_features: keypoints per image at most, those of highest score.
        threshold: pixels within which a match is correct and a keypoint is repeated.
        estimator: robust estimator for poses and homographies; None leaves both out.
        overlap: forms of the overlap measures; empty leaves them out (they take most of the time).
        epipolar_threshold: pixels within which a match agrees with the cameras, where there is no depth.
    """

    num_features: int = 1000
    threshold: float = THRESHOLD
    estimator: Estimator | None = field(default_factory=Estimator)
    overlap: tuple[OverlapOptions, ...] = ()
    epipolar_threshold: float = EPIPOLAR_THRESHOLD


@dataclass(frozen=True)
class PairResult:
    """What one pair of images scored, or why it did not.

    Attributes:
        scene: name of the scene.
        first: name of image A.
        second: name of image B.
        status: ``ok``; ``failed``: the feature has no usable features here, counts as zero; ``skipped``: no ground
            truth, not counted.
        reason: of a failed or skipped pair.
        values: the measures by name; empty if skipped.
        angle_deg: angle between the views, degrees, if known.
    """

    scene: str
    first: str
    second: str
    status: str
    reason: str
    values: dict[str, float]
    angle_deg: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON, which has neither infinity nor NaN: both become null."""
        angle = self.angle_deg
        return {
            **{k: getattr(self, k) for k in ("scene", "first", "second", "status", "reason")},
            "angle_deg": angle if angle is not None and np.isfinite(angle) else None,
            "values": {k: round(v, 6) if np.isfinite(v) else None for k, v in self.values.items()},
        }


def evaluate(source: FeatureSource, scenes: Iterable[Scene], options: Options | None = None) -> list[PairResult]:
    """Score the features of all pairs of all scenes.

    Nothing is dropped silently. A pair is *failed*, and counts as zero in every mean, if an image has no features in
    the source, no keypoints, keypoints or descriptors that are not finite, or features found in an image of another
    size. It is *skipped*, and does not count, if its ground truth or an image file is missing or broken.

    Args:
        source: features by scene and image.
        scenes: posed scenes, homography sequences, or warped ones.
        options: what to measure.
    """
    options = options or Options()
    results: list[PairResult] = []
    for scene in scenes:
        cache: dict[int, Features | str] = {}
        for pair in scene.pairs:
            results.append(_evaluate_pair(source, scene, pair, options, cache))
        results += [
            PairResult(scene.name, scene.names[p.i], scene.names[p.j], SKIPPED, p.reason, {}) for p in scene.skipped
        ]
    return results


def values_by_scene(results: Sequence[PairResult], measure: str) -> dict[str, FloatArray]:
    """The values of one measure by scene, in the order of the pairs; pairs without it are left out."""
    found: dict[str, list[float]] = {}
    for result in results:
        if measure in result.values:
            found.setdefault(result.scene, []).append(result.values[measure])
    return {scene: np.array(values) for scene, values in found.items()}


def _evaluate_pair(
    source: FeatureSource, scene: Scene, pair: Pair, options: Options, cache: dict[int, Features | str]
) -> PairResult:
    names = scene.names[pair.i], scene.names[pair.j]

    def result(status: str, reason: str, values: dict[str, float]) -> PairResult:
        return PairResult(scene.name, *names, status, reason, values, pair.angle_deg)

    try:
        sizes = scene.image_size(pair.i), scene.image_size(pair.j)
    except (ValueError, OSError) as error:
        return result(SKIPPED, str(error), {})
    if isinstance(scene, HasPose) and not _pose_is_finite(scene, pair):
        return result(SKIPPED, "the cameras of the pair are not finite", {})
    loaded = []
    for index, size in zip((pair.i, pair.j), sizes, strict=True):
        try:
            if index not in cache:
                cache[index] = _load(source, scene, index, size, options.num_features)
        except UnreadableImageError as error:
            return result(SKIPPED, str(error), {})
        found = cache[index]
        if isinstance(found, str):
            return result(FAILED, found, _zeros(scene, options))
        loaded.append(found)
    first, second = loaded
    try:
        forward = scene.transfer(pair.i, pair.j, first.keypoints)
        backward = scene.transfer(pair.j, pair.i, second.keypoints)
    except (ValueError, OSError) as error:
        return result(SKIPPED, str(error), {})
    try:
        neighbours = nearest_neighbours(first, second)
    except ValueError as error:
        return result(FAILED, str(error), _zeros(scene, options))
    known = bool((forward.status != UNKNOWN).any() and (backward.status != UNKNOWN).any())
    matched, matches = mutual_matches(first.keypoints, second.keypoints, neighbours)
    values: dict[str, float] = {}
    if known:
        distance = transfer_error(forward, matched, matches[1])
        values |= _match_values(scene, pair, matches, distance, options)
    elif isinstance(scene, HasPose):
        values |= _epipolar_values(scene, pair, matches, options)
    values["crowding"] = (crowding(first.keypoints) + crowding(second.keypoints)) / 2
    if options.estimator is not None:
        values |= _geometry(scene, pair, matches[:2], sizes[0], options.estimator)
    values["matches"] = float(len(matched))
    if not known:
        return result(OK, "no ground truth at any keypoint: only cameras and matches were measured", values)
    values |= _keypoint_values(first, second, (forward, backward), neighbours, options)
    if options.overlap and isinstance(scene, HasLocalAffine):
        if first.scales is None or second.scales is None:
            return result(OK, "no scales: the overlap form was left out", values)
        values |= score_overlap(scene, pair, (first, second), (forward, backward), options.overlap)
    return result(OK, "", values)


def _load(source: FeatureSource, scene: Scene, index: int, size: tuple[int, int], count: int) -> Features | str:
    try:
        found = source.read(scene.name, scene.names[index]).top(count)
    except UnreadableImageError:
        raise
    except FeatureFileError as error:
        return str(error)
    if len(found) == 0:
        return f"no keypoints in image {scene.names[index]}"
    if found.image_size is not None and found.image_size != size:
        return (
            f"features of image {scene.names[index]} were found at {found.image_size[0]}x{found.image_size[1]}, "
            f"the image is {size[0]}x{size[1]}"
        )
    problem = found.fault()
    return f"image {scene.names[index]}: {problem}" if problem else found


def _pose_is_finite(scene: HasPose, pair: Pair) -> bool:
    rotation, translation = scene.relative_pose(pair.i, pair.j)
    return all(np.isfinite(v).all() for v in (rotation, translation, scene.intrinsics[[pair.i, pair.j]]))


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
    """The same by the cameras alone: a match counts if it lies near the epipolar lines."""
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


def _keypoint_values(
    first: Features,
    second: Features,
    moved: tuple[Transferred, Transferred],
    neighbours: Neighbours,
    options: Options,
) -> dict[str, float]:
    return _flat(score_pair(first, second, *moved, threshold=options.threshold, neighbours=neighbours))


def _flat(scores: PairScores) -> dict[str, float]:
    values = {k: v for k, v in scores.as_dict().items() if k != "mma"}
    return values | {f"mma_{t}": v for t, v in zip(MMA_THRESHOLDS, scores.mma, strict=True)}


def _geometry(
    scene: Scene, pair: Pair, matched: tuple[FloatArray, FloatArray], size: tuple[int, int], estimator: Estimator
) -> dict[str, float]:
    """Error of the homography or pose, and its share of the area under the curve at each threshold."""
    if isinstance(scene, HomographySequence):
        error = homography_error(*matched, scene.homography(pair.i, pair.j), size, estimator)
        return {f"homography_auc_{t}": auc([error], t) for t in HOMOGRAPHY_AUC} | {"homography_error": error}
    if isinstance(scene, HasPose):
        cameras = scene.intrinsics[pair.i], scene.intrinsics[pair.j]
        ideal = scene.undistort(pair.i, matched[0]), scene.undistort(pair.j, matched[1])
        error = pose_error(*ideal, cameras, scene.relative_pose(pair.i, pair.j), estimator)
        return {f"pose_auc_{t}": auc([error], t) for t in POSE_AUC} | {"pose_error": error}
    return {}


def _zeros(scene: Scene, options: Options) -> dict[str, float]:
    """What a failed pair scores: zero in every measure of which a good pair of this scene has more."""
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
    if isinstance(scene, HasLocalAffine):
        values |= {name: 0.0 for form in options.overlap for name in form.measures}
    return values
