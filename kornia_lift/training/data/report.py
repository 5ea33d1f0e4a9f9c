"""What a data set holds, what was dropped and why, what is held out, and what is too little for which stage."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from kornia_lift._words import counted
from kornia_lift.training.data.posed_pairs import count_pairs
from kornia_lift.training.data.prepare.assemble import STEPS
from kornia_lift.training.data.store import Store

#: Locations below which a training over-fits, and held-out ones below which a validation error is mostly chance.
FEW_TRAINING, FEW_HELD_OUT = 500, 100
FEWEST = 2  # below which there is no pair


def funnel_lines(counts: Mapping[str, int]) -> list[str]:
    """Say how many locations of a scene each step of its reading left, and the largest loss."""
    steps = [(name, counts[name]) for name in STEPS if name in counts]
    images = counts.get("images", 0)
    lines = [f"  {images:7d}  image{'' if images == 1 else 's'}"]
    before = None
    views = "two images" if "tracked" in counts else "the image"  # single images and exposures are not followed
    for name, left in steps:
        lost = f"  (-{before - left})" if before is not None and left < before else ""
        what = STEPS[name].format(views=views)
        what = what.removesuffix("s") if name == "found" and left == 1 else what
        lines.append(f"  {left:7d}  {what}{lost}")
        before = left
    return lines


def describe_data(store: Store, train: Store, held_out: Store) -> list[str]:
    """Describe a data set and its split.

    Args:
        store: all data.
        train: the part to train on.
        held_out: the rest.

    Returns:
        Lines of text.

    """
    images, scenes = counted(len(store.images), "image"), counted(len(store.scenes), "scene")
    lines = [f"{images} in {scenes} (a single image is a scene of its own)"]
    for scene, counts in store.counts.items():
        lines += [f"{scene}:", *funnel_lines(counts)]
    names = f"{', '.join(held_out.scenes[:8])}{', ...' if len(held_out.scenes) > 8 else ''}"
    lines.append(f"held out: {names or 'nothing'}")
    for what, part in (("training", train), ("held out", held_out)):
        if not part.images:
            continue
        sift, pairs = part.with_sift_frames(), counted(_pairs(part), "pair")
        images, points = counted(len(part.images), "image"), counted(_points(part), "location")
        lines.append(
            f"{what}: {images}; {points} and {pairs} of views for the patch stages of the modern recipe, "
            f"{len(np.unique(sift.point))} with SIFT frames and {counted(len(part.empty), 'empty region')} for the "
            f"paper's recipe; for the detector stages {counted(count_pairs(part), 'pair')} of images with cameras, and "
            f"warped crops of the {images}"
        )
    return lines + shortages(train, held_out)


def shortages(train: Store, held_out: Store, recipes: Collection[str] = ("paper", "modern", "compact")) -> list[str]:
    """Say what is too little for which stage of some recipes, and what to do."""
    if not held_out.images:
        return [
            "nothing can be held out, and `train` needs something to measure on: at least two scenes, or two single "
            "images, or one scene of four images; add images, or name other data by --validation"
        ]
    lines = []
    for what, part, few in (("training", train, FEW_TRAINING), ("held-out", held_out, FEW_HELD_OUT)):
        counts: list[tuple[str, int]] = []
        if "paper" in recipes:
            counts.append(("all stages of the paper's recipe", len(np.unique(part.with_sift_frames().point))))
        if names := [name for name in ("modern", "compact") if name in recipes]:
            those = f"{' and '.join(names)} recipe{'s' * (len(names) > 1)}"
            counts.append((f"descriptor, orientation and refine of the {those}", _points(part)))
        for stages, count in counts:
            if count < FEWEST:
                lines.append(
                    f"{stages} cannot run: {counted(count, f'{what} location')}, at least {FEWEST} are needed; add "
                    "images with texture and overlap"
                )
            elif count < few:
                effect = "expect over-fitting" if what == "training" else "their validation errors are mostly chance"
                lines.append(
                    f"too little for {stages}: {counted(count, f'{what} location')}, fewer than {few}; {effect}; add "
                    "images with texture and overlap"
                )
        if "paper" in recipes and not len(part.empty):
            lines.append(
                f"all stages of the paper's recipe cannot run: no {what} region without keypoints; add images with "
                "smooth parts"
            )
    return lines


def can_train(train: Store, held_out: Store) -> bool:
    """Whether any recipe has something to train on and to measure on."""
    return min(_points(train), _points(held_out)) >= FEWEST


def _points(store: Store) -> int:
    return len(np.unique(store.tracks.point))


def _pairs(store: Store) -> int:
    views = np.bincount(store.tracks.point, minlength=1)
    single = np.array([image.kind == "single" for image in store.images], dtype=bool)
    return int((views * (views - 1) // 2).sum()) + int(single[store.tracks.image].sum())
