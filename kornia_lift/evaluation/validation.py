"""Evaluate a feature in the process that made it: what training calls between epochs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kornia_lift.evaluation.measures.metrics import THRESHOLD, ZERO_SCORES, PairScores, score_pair
from kornia_lift.evaluation.warps import IDENTITY, ImageWarp, WarpedScene
from kornia_lift.features import Features, from_lafs
from kornia_lift.scenes.scene import Pair, Scene, Transferred

Extract = Callable[[Tensor], Any]
FeatureCache = dict[tuple[str, str], Features]


def evaluate_feature(
    extract: Extract,
    scenes: Iterable[Scene],
    num_features: int = 1000,
    *,
    warp: ImageWarp = IDENTITY,
    threshold: float = THRESHOLD,
    cache: FeatureCache | None = None,
) -> dict[str, Any]:
    """Score a feature on scenes in the 3 px form, without files.

    Args:
        extract: takes an image (1, C, H, W) in [0, 1] and gives what a kornia ``LocalFeature`` gives,
            ``(lafs, responses, descriptors)``, or ``(keypoints (N, 2), descriptors (N, D)[, scores (N,)])``, or
            :class:`Features`.
        scenes: posed scenes or homography sequences.
        num_features: keypoints per image, those of highest score.
        warp: applied to the second image of every pair.
        threshold: pixels.
        cache: features by (scene, image); filled here, so that a second call extracts only what is new.

    Returns:
        ``matching_score``, ``nn_map``, ``repeatability`` and ``mma`` (a list for 1..10 px), averaged over the pairs
        of a scene and then over scenes; ``scenes`` with the same for each; ``pairs``, ``failed`` and ``skipped``
        as counts. A failed pair (features that are not finite, or no keypoints) counts as zero; a skipped one
        (no ground truth, or a file of the scene is damaged) does not count.

    Raises:
        ValueError: if two scenes have one name, or there is no pair to evaluate.
    """
    features = {} if cache is None else cache
    per_scene: dict[str, dict[str, Any]] = {}
    counts = {"pairs": 0, "failed": 0, "skipped": 0}
    for base in scenes:
        if base.name in per_scene:
            raise ValueError(f"Two scenes are called {base.name!r}; names must be unique.")
        scene: Scene = base if warp.label == IDENTITY.label else WarpedScene(base, warp)
        scores = []
        for pair in scene.pairs:
            try:
                first, second = (_features(extract, scene, k, num_features, features) for k in (pair.i, pair.j))
                broken = first.fault() or second.fault() or not len(first) or not len(second)
                moved = None if broken else _transfers(scene, pair, first, second)
            except _DamagedScene:
                counts["skipped"] += 1
                continue
            scores.append(ZERO_SCORES if moved is None else score_pair(first, second, *moved, threshold=threshold))
            counts["failed"] += bool(broken)
        counts["pairs"] += len(scores)
        counts["skipped"] += len(scene.skipped)
        if scores:
            per_scene[base.name] = _mean(scores)
    if not per_scene:
        raise ValueError("There is no pair to evaluate in these scenes.")
    names = ("matching_score", "nn_map", "repeatability", "mma")
    means = {k: np.mean([s[k] for s in per_scene.values()], axis=0).tolist() for k in names}
    return {**means, "scenes": per_scene, **counts}


def evaluate_warps(
    extract: Extract,
    scenes: Sequence[Scene],
    warps: Iterable[ImageWarp],
    num_features: int = 1000,
    *,
    threshold: float = THRESHOLD,
    cache: FeatureCache | None = None,
) -> dict[str, dict[str, Any]]:
    """:func:`evaluate_feature` for several warps of the second image, by :attr:`ImageWarp.label`."""
    shared: FeatureCache = {} if cache is None else cache
    return {
        warp.label: evaluate_feature(extract, scenes, num_features, warp=warp, threshold=threshold, cache=shared)
        for warp in warps
    }


def to_features(output: Any, image_size: tuple[int, int]) -> Features:
    """Understand what an extractor gives; see ``extract`` of :func:`evaluate_feature`.

    Raises:
        TypeError: if it is none of the three forms.
    """
    if isinstance(output, Features):
        return output
    if isinstance(output, (tuple, list)) and len(output) in (2, 3):
        head = output[0]
        if isinstance(head, Tensor) and head.ndim == 4:
            if len(output) != 3:
                raise TypeError("An extractor that gives frames must give (lafs, responses, descriptors).")
            return from_lafs(output[0], output[1], output[2], image_size)
        arrays = [v.detach().cpu().numpy() if isinstance(v, Tensor) else np.asarray(v) for v in output]
        return Features(
            arrays[0].astype(np.float64),
            arrays[1],
            arrays[2].astype(np.float64) if len(arrays) == 3 else None,
            image_size=image_size,
        )
    raise TypeError(
        "An extractor must give (lafs, responses, descriptors), (keypoints, descriptors[, scores]) or Features; "
        f"got {type(output).__name__}."
    )


class _DamagedScene(Exception):
    """A photograph or the ground truth of a pair cannot be read."""


def _transfers(scene: Scene, pair: Pair, first: Features, second: Features) -> tuple[Transferred, Transferred]:
    try:
        forward = scene.transfer(pair.i, pair.j, first.keypoints)
        return forward, scene.transfer(pair.j, pair.i, second.keypoints)
    except (ValueError, OSError) as error:
        raise _DamagedScene from error


def _features(extract: Extract, scene: Scene, index: int, count: int, cache: FeatureCache) -> Features:
    key = (scene.name, scene.names[index])
    if key not in cache:
        try:
            image = scene.image(index)
        except (ValueError, OSError) as error:
            raise _DamagedScene from error
        with torch.no_grad():
            output = extract(image)
        cache[key] = to_features(output, (image.shape[-1], image.shape[-2])).top(count)
    return cache[key]


def _mean(scores: Sequence[PairScores]) -> dict[str, Any]:
    names = ("matching_score", "nn_map", "repeatability", "mma", "common", "correct")
    return {k: np.mean([getattr(s, k) for s in scores], axis=0).tolist() for k in names} | {"pairs": len(scores)}
