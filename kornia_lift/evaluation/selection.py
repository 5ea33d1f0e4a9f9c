"""Which pairs of which scenes are measured: warped copies, second images, pairs spread over the overlap."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from kornia_lift.evaluation.warps import IDENTITY, ImageWarp, warp_scene
from kornia_lift.scenes.folders import UnreadableScene
from kornia_lift.scenes.scene import Pair, Scene, SkippedPair


def warped_groups(scenes: Sequence[Scene], warps: Sequence[ImageWarp]) -> dict[str, list[Scene]]:
    """The robustness protocol: for the images as they are and for each warp of the second one, a group of scenes."""
    groups: dict[str, list[Scene]] = {IDENTITY.label: list(scenes)}
    groups |= {warp.label: [warp_scene(scene, warp) for scene in scenes] for warp in warps}
    return groups


def only_second_images(scene: Scene, names: Sequence[str]) -> Scene:
    """The same scene with only those pairs, evaluated and skipped, whose second image has one of these names.

    Raises:
        ValueError: if there is none.
    """
    if isinstance(scene, UnreadableScene):
        return scene  # its images are not known
    pairs = tuple(p for p in scene.pairs if scene.names[p.j] in names)
    skipped = tuple(p for p in scene.skipped if scene.names[p.j] in names)
    if not pairs and not skipped:
        raise ValueError(f"{scene.name} has no pair with a second image among {', '.join(names)}")
    return only_pairs(scene, pairs, skipped)


def spread_pairs(scene: Scene, count: int, *, min_overlap: float = 0.0) -> Scene:
    """The same scene with at most ``count`` pairs, evenly spread from the smallest overlap to the largest.

    Pairs without a known overlap keep their order and are spread over it.

    Args:
        scene: the scene.
        count: pairs to keep, at least 1.
        min_overlap: pairs with less overlap are left out.

    Raises:
        ValueError: if ``count`` is less than 1, or no pair is left.
    """
    if count < 1:
        raise ValueError(f"at least one pair per scene is needed, got {count}")
    if isinstance(scene, UnreadableScene):
        return scene
    pairs = [p for p in scene.pairs if p.overlap is None or p.overlap >= min_overlap]
    if not pairs and not scene.skipped:
        raise ValueError(f"{scene.name} has no pair with an overlap of {min_overlap} or more")
    pairs.sort(key=lambda p: 0.0 if p.overlap is None else p.overlap)
    if len(pairs) > count:
        middle = len(pairs) // 2
        # one pair: the middle; more: both ends and evenly spaced ones between
        index = [middle] if count == 1 else [round(k * (len(pairs) - 1) / (count - 1)) for k in range(count)]
        pairs = [pairs[k] for k in index]
    return only_pairs(scene, tuple(pairs), scene.skipped)


def all_pairs(scene: Scene) -> Scene:
    """The same scene with every pair of its images, whether they overlap or not."""
    if isinstance(scene, UnreadableScene):
        return scene
    count = len(scene.names)
    return only_pairs(scene, tuple(Pair(i, j) for i in range(count) for j in range(i + 1, count)))


def only_pairs(scene: Scene, pairs: tuple[Pair, ...], skipped: tuple[SkippedPair, ...] = ()) -> Scene:
    """The same scene with these pairs to evaluate and these to report as skipped."""
    restricted = copy.copy(scene)
    restricted.pairs = pairs  # type: ignore[misc]
    restricted.skipped = skipped  # type: ignore[misc]
    return restricted
