"""Hold images out of the training: by name where the split is declared, else a random share of each kind."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from kornia_lift.training.data.store import Kind, Observations, Store
from kornia_lift.training.limits import check_limits

#: The held-out part of the data of the shipped weights; it must not be trained on.
DECLARED_SPLIT = (
    "cyprus_arches",
    "golden_statue",
    "reichstag",
    "street2",
    "photos/kodak*",
    "photos/pop-os*",
    "living_room1",
)


@dataclass(frozen=True)
class SplitConfig:
    """What is held out of the training, to measure and choose by.

    Args:
        held_out: names of scenes, exposures and single images, with ``*`` and ``?``; ``church`` also names
            ``sfm/church``. Of a class (scenes, exposures, single images) of which none is named, a share is drawn.
        share: that share, at least 0 and below 1; at least one of each class that has two or more.
        seed: of the drawing.

    """

    held_out: tuple[str, ...] = DECLARED_SPLIT
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        check_limits(self, "share", at_least=0, below=1)
        check_limits(self, "seed", at_least=0)


def split_store(store: Store, split: SplitConfig | None = None) -> tuple[Store, Store]:
    """Divide a store into a part to train on and one held out; either may come out empty.

    Scenes, exposures and single images go as a whole to one side, and those that share an image go to the same side,
    so that nothing crosses. Where there is one scene and nothing else to hold out, its images *and* its locations are
    divided, which is the weaker test: both sides show one scene.

    Args:
        store: all data.
        split: what to hold out.

    Raises:
        ValueError: if a name of ``split.held_out``, other than the default, is not in the data.

    """
    split = split or SplitConfig()
    units = store.scenes
    number = {unit: n for n, unit in enumerate(units)}
    kinds = ["scene"] * len(units)
    first: dict[bytes, int] = {}
    links = []
    for image in store.images:
        unit = number[image.scene]
        kinds[unit] = _class_of(image.kind)
        links.append((unit, first.setdefault(hashlib.sha256(image.jpeg).digest(), unit)))
    named = {n for n, unit in enumerate(units) if any(_matches(unit, pattern) for pattern in split.held_out)}
    if split.held_out != DECLARED_SPLIT:
        idle = [pattern for pattern in split.held_out if not any(_matches(unit, pattern) for unit in units)]
        if idle:
            raise ValueError(f"held_out names {idle[0]!r}, which is not in the data: {', '.join(units[:10])}")
    held = _draw(kinds, _connected_groups(len(units), links), named, split)
    if not held and kinds.count("scene") == 1 and split.share:
        return divide_scene(store, units[kinds.index("scene")], split)
    chosen = np.array([number[image.scene] in held for image in store.images], dtype=bool)
    return take_images(store, ~chosen), take_images(store, chosen)


def split_names(scenes: list[str], split: SplitConfig) -> tuple[list[str], list[str]]:
    """Divide names of scenes into those to train on and those held out, as :func:`split_store` does."""
    named = {n for n, scene in enumerate(scenes) if any(_matches(scene, pattern) for pattern in split.held_out)}
    held = _draw(["scene"] * len(scenes), [[n] for n in range(len(scenes))], named, split)
    return [s for n, s in enumerate(scenes) if n not in held], [s for n, s in enumerate(scenes) if n in held]


def _class_of(kind: Kind) -> str:
    return kind if kind in ("single", "exposures") else "scene"


def _matches(unit: str, pattern: str) -> bool:
    return fnmatchcase(unit, pattern) or fnmatchcase(unit, f"*/{pattern}")


def _draw(kinds: list[str], groups: list[list[int]], named: set[int], split: SplitConfig) -> set[int]:
    """Units to hold out: the named ones, and a share of each class of which none is named; groups are not divided."""
    held = {n for group in groups if named & set(group) for n in group}
    classes = sorted(set(kinds))
    left = {kind: sum(k == kind for n, k in enumerate(kinds) if n not in held) for kind in classes}
    rng = np.random.default_rng(split.seed)
    for kind in classes:
        total = kinds.count(kind)
        drawn = rng.permutation(len(groups))
        if any(kinds[n] == kind for n in named) or total < 2 or not split.share:
            continue
        target = max(1, round(split.share * total))
        for group in (groups[g] for g in drawn.tolist()):
            mine = {k: sum(kinds[n] == k for n in group if n not in held) for k in classes}
            # neither more than asked nor the last one of a class
            room = total - left[kind] + mine[kind] <= target and all(left[k] > m for k, m in mine.items() if m)
            if mine[kind] and room:
                held.update(group)
                left = {k: left[k] - m for k, m in mine.items()}
    return held


def _connected_groups(count: int, links: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the connected components of a graph of ``count`` nodes, in the order of their first members."""
    parent = list(range(count))

    def root_of(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for a, b in links:
        roots = root_of(a), root_of(b)
        parent[max(roots)] = min(roots)
    members: dict[int, list[int]] = {}
    for node in range(count):
        members.setdefault(root_of(node), []).append(node)
    return list(members.values())


def divide_scene(store: Store, scene: str, split: SplitConfig) -> tuple[Store, Store]:
    """Divide the images and the locations of one scene; what lies on both sides is dropped."""
    rng = np.random.default_rng(split.seed)
    members = rng.permutation([n for n, image in enumerate(store.images) if image.scene == scene])
    none = np.zeros(len(store.images), dtype=bool)
    if len(members) < 4:
        return store, take_images(store, none)
    held_image = none.copy()
    held_image[members[: min(len(members) - 2, max(2, round(split.share * len(members))))]] = True
    points = int(store.tracks.point.max(initial=-1)) + 1
    held_point = rng.random(points) < split.share
    divided = np.zeros(points, dtype=bool)
    of_scene = np.array([image.scene == scene for image in store.images])
    divided[store.tracks.point[of_scene[store.tracks.image]]] = True

    def part(held: bool) -> Store:
        keep = divided & (held_point == held) if held else ~divided | ~held_point
        return take_images(store, held_image == held, lambda table: keep[table.point])

    return part(False), part(True)


def take_images(
    store: Store,
    images: NDArray[np.bool_],
    locations: Callable[[Observations], NDArray[np.bool_]] = lambda table: np.ones(len(table), dtype=bool),
) -> Store:
    """Return the part of a store that lies in the chosen images.

    Args:
        store: the whole.
        images: whether to keep each image.
        locations: of the views in the kept images, those to keep. A location of several views that is left with one
            is dropped, and a SIFT frame that is left alone is removed.

    """
    table = store.tracks.take(images[store.tracks.image])
    table = table.take(locations(table))
    single = np.array([image.kind == "single" for image in store.images], dtype=bool)
    count = np.bincount(table.point, minlength=1)
    table = table.take((count[table.point] >= 2) | single[table.image])
    with_sift = np.bincount(table.point[table.sigma > 0], minlength=len(count))
    alone = with_sift[table.point] < 2
    table = dataclasses.replace(table, sigma=np.where(alone & ~single[table.image], 0, table.sigma))
    new = np.cumsum(images) - 1
    empty = store.empty.take(images[store.empty.image])
    kept = tuple(image for image, ok in zip(store.images, images, strict=True) if ok)
    return Store(
        kept,
        dataclasses.replace(table, image=new[table.image]),
        dataclasses.replace(empty, image=new[empty.image]),
        store.counts,
    )


def without_kind(store: Store, kind: Kind) -> Store:
    """Return a store without the images of one kind."""
    return take_images(store, np.array([image.kind != kind for image in store.images], dtype=bool))


def check_apart(train: Store, validation: Store) -> None:
    """Check that no image is in both stores, under any name.

    Raises:
        ValueError: naming those that are.

    """
    digest = {hashlib.sha256(image.jpeg).digest(): image.name for image in train.images}
    both = []
    for image in validation.images:
        other = digest.get(hashlib.sha256(image.jpeg).digest())
        if other is not None:
            both.append(f"{image.name} (in the training data as {other})" if other != image.name else other)
    if both:
        raise ValueError(
            f"{len(both)} of {len(validation.images)} images of the validation data are training data too: "
            f"{', '.join(both[:3])}{', ...' if len(both) > 3 else ''}; errors measured on them say nothing. Name other "
            "validation data, or none: then a part of the training data is held out"
        )


def describe_sides(train: Store, held_out: Store) -> tuple[list[str], list[str]]:
    """Names of what lies on either side, sorted: whole scenes, and the images of a scene that was divided."""
    both = set(train.scenes) & set(held_out.scenes)

    def names(store: Store) -> list[str]:
        return sorted({image.name if image.scene in both else image.scene for image in store.images})

    return names(train), names(held_out)
