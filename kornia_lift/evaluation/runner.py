"""The one protocol: features from any source, scored on every pair of every scene."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from kornia_lift.evaluation.filtered import filtered_poses
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.pair import Options, measure_pair, zeros
from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError, UnreadableImageError
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.scene import FloatArray, HasPose, Pair, Scene

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
    network = None if options.filter is None else CorrespondenceNet(options.filter)
    results: list[PairResult] = []
    for scene in scenes:
        cache: dict[int, Features | str] = {}
        for pair in scene.pairs:
            results.append(_evaluate_pair(source, scene, pair, options, cache, network))
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
    source: FeatureSource,
    scene: Scene,
    pair: Pair,
    options: Options,
    cache: dict[int, Features | str],
    network: CorrespondenceNet | None,
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
            return result(FAILED, found, zeros(scene, options))
        loaded.append(found)
    first, second = loaded
    try:
        forward = scene.transfer(pair.i, pair.j, first.keypoints)
        backward = scene.transfer(pair.j, pair.i, second.keypoints)
        images = (scene.image(pair.i), scene.image(pair.j)) if options.refine else None
    except (ValueError, OSError) as error:
        return result(SKIPPED, str(error), {})
    try:
        neighbours = nearest_neighbours(first, second)
    except ValueError as error:
        return result(FAILED, str(error), zeros(scene, options))
    values, reason = measure_pair(scene, pair, (first, second), (forward, backward), neighbours, options, images)
    if network is not None and options.estimator is not None and isinstance(scene, HasPose):
        values |= filtered_poses(scene, pair, (first, second), network, options.estimator)
    return result(OK, reason, values)


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
    problem = found.problem()
    return f"image {scene.names[index]}: {problem}" if problem else found


def _pose_is_finite(scene: HasPose, pair: Pair) -> bool:
    rotation, translation = scene.relative_pose(pair.i, pair.j)
    return all(np.isfinite(v).all() for v in (rotation, translation, scene.intrinsics[[pair.i, pair.j]]))
