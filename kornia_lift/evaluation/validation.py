"""Evaluate a feature in the process that made it, without files: what training calls between epochs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from kornia_lift.evaluation.features.extraction import Extract, ExtractedFeatures
from kornia_lift.evaluation.measures.correct import THRESHOLD
from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.measures.metrics import MMA_THRESHOLDS
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import FAILED, SKIPPED, PairResult, evaluate, values_by_scene
from kornia_lift.evaluation.warps import IDENTITY, ImageWarp, WarpedScene
from kornia_lift.features import Features
from kornia_lift.scenes.scene import Scene

FeatureMemory = dict[tuple[str, str], Features]


def evaluate_feature(
    extract: Extract,
    scenes: Iterable[Scene],
    num_features: int = 1000,
    *,
    warp: ImageWarp = IDENTITY,
    threshold: float = THRESHOLD,
    estimator: Estimator | None = None,
    refine: bool = False,
    cache: FeatureMemory | None = None,
) -> dict[str, Any]:
    """Score a feature on scenes: the measures of :func:`~kornia_lift.evaluation.runner.evaluate`, as plain means.

    Args:
        extract: takes an image (1, C, H, W) in [0, 1] and returns what a kornia ``LocalFeature`` returns,
            ``(lafs, responses, descriptors)``, or ``(keypoints (N, 2), descriptors (N, D)[, scores (N,)])``, or
            :class:`Features`.
        scenes: posed scenes, homography sequences, or scenes with cameras only.
        num_features: keypoints per image, those of highest score.
        warp: applied to the second image of every pair.
        threshold: pixels.
        estimator: robust estimator for poses and homographies; None leaves both out.
        refine: refine the positions of the matches before they are measured.
        cache: features by (scene, image); filled here, so that a second call extracts only what is new.

    Returns:
        The measures (``correct_matches``, ``coverage``, ``median_error``, ``crowding``, ``matching_score``, ...),
        averaged over the pairs of a scene and then over scenes; ``mma`` as a list for 1..10 px; ``scenes`` with the
        same for each; ``pairs``, ``failed`` and ``skipped`` as counts. A failed pair (features that are not finite,
        or no keypoints) counts as zero; a skipped one (no ground truth, or a file of the scene is damaged) does not
        count.

    Raises:
        ValueError: if two scenes have one name, or there is no pair to evaluate.
    """
    asked: list[Scene] = []
    for base in scenes:
        if base.name in [scene.name for scene in asked]:
            raise ValueError(f"two scenes are called {base.name!r}; names must be unique")
        asked.append(base if warp.label == IDENTITY.label else WarpedScene(base, warp))
    source = ExtractedFeatures(extract, asked, num_features, cache)
    results = evaluate(source, asked, Options(num_features, threshold=threshold, estimator=estimator, refine=refine))
    counted = [r for r in results if r.status != SKIPPED]
    if not counted:
        raise ValueError("there is no pair to evaluate in these scenes")
    by_scene = {s.name: [r for r in counted if r.scene == s.name] for s in asked}
    return {
        **_means(counted),
        "scenes": {name: _means(rows) | {"pairs": len(rows)} for name, rows in by_scene.items() if rows},
        "pairs": len(counted),
        "failed": sum(r.status == FAILED for r in results),
        "skipped": sum(r.status == SKIPPED for r in results),
    }


def evaluate_warps(
    extract: Extract,
    scenes: Sequence[Scene],
    warps: Iterable[ImageWarp],
    num_features: int = 1000,
    *,
    threshold: float = THRESHOLD,
    cache: FeatureMemory | None = None,
) -> dict[str, dict[str, Any]]:
    """:func:`evaluate_feature` for several warps of the second image, by :attr:`ImageWarp.label`."""
    shared: FeatureMemory = {} if cache is None else cache
    return {
        warp.label: evaluate_feature(extract, scenes, num_features, warp=warp, threshold=threshold, cache=shared)
        for warp in warps
    }


def _means(results: Sequence[PairResult]) -> dict[str, Any]:
    """Means over pairs, then over scenes, of every measure that the pairs have."""
    names = dict.fromkeys(name for result in results for name in result.values)
    means = {name: float(np.mean([v.mean() for v in values_by_scene(results, name).values()])) for name in names}
    if "mma_1" in means:
        means["mma"] = [means.pop(f"mma_{t}") for t in MMA_THRESHOLDS]  # type: ignore[assignment]
    return means
