"""Hold photographs out of the training: by name where a data set declares its split, else a share by chance."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from kornia_lift._io import atomic_write
from kornia_lift.training.data.images import PhotoSources, ScenePart, list_photos, list_scene_photos, list_sources
from kornia_lift.training.distributed import rank

#: The split that the data of the shipped weights declare; nothing of it may be trained on.
DECLARED_SPLIT = (
    "sfm/cyprus_arches",
    "sfm/golden_statue",
    "sfm/reichstag",
    "sfm/street2",
    "photos/kodak*",
    "photos/pop-os*",
    "illumination/living_room1",
)
SPLIT = "split.json"
_KINDS = ("sfm", "photos", "brackets")
_Item = tuple[str, Path]


@dataclass(frozen=True)
class SplitConfig:
    """What is held out of the training, to measure and choose by.

    Args:
        held_out: names of scene folders, photographs and folders of exposures, relative to the data folder, with ``*``
            and ``?``. Of a kind of which no name is there, a share is drawn.
        share: that share, at least one of each kind that has two or more.
        seed: of the drawing.

    """

    held_out: tuple[str, ...] = DECLARED_SPLIT
    share: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"the share held out must be at least 0 and below 1, got {self.share}")


def find_sources(
    root: Path, validation: bool = False, posed: bool = False, split: SplitConfig | None = None
) -> PhotoSources:
    """List the photographs of one part of the data below ``root``; see :func:`split_sources`."""
    return split_sources(root, posed, split)[1 if validation else 0]


def split_sources(
    root: Path, posed: bool = False, split: SplitConfig | None = None
) -> tuple[PhotoSources, PhotoSources]:
    """Divide the photographs below ``root`` into those to train on and those held out.

    Scenes, photographs and brackets go as a whole to one side, and what shares a file (byte by byte) goes to the same
    side, so that nothing crosses. Where there is one scene and nothing else to hold out, its photographs and its points
    are divided, which is the weaker test: both sides show one place.

    Args:
        root: folder of the data, see :func:`~kornia_lift.training.data.images.list_sources`.
        posed: list the posed scenes too; all of them belong to the training.
        split: what to hold out.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if a name of ``split.held_out``, other than the default, is not there.

    """
    split = split or SplitConfig()
    sources = list_sources(root, posed)
    items: list[_Item] = [(kind, path) for kind in _KINDS for path in getattr(sources, kind)]
    names = [path.relative_to(root).as_posix() for _, path in items]
    named = {n for n, name in enumerate(names) if any(fnmatchcase(name, pattern) for pattern in split.held_out)}
    if split.held_out != DECLARED_SPLIT:
        idle = [pattern for pattern in split.held_out if not any(fnmatchcase(name, pattern) for name in names)]
        if idle:
            raise ValueError(f"held_out names {idle[0]!r}, which is not in {root}; it holds {', '.join(names[:10])}")
    groups = _groups_by_content(items)
    held = {n for group in groups if named & set(group) for n in group}
    left = {kind: sum(items[n][0] == kind for n in range(len(items)) if n not in held) for kind in _KINDS}
    rng = np.random.default_rng(split.seed)
    for kind in _KINDS:
        total = len(getattr(sources, kind))
        drawn = rng.permutation(len(groups))
        if any(items[n][0] == kind for n in named) or total < 2 or not split.share:
            continue
        target = max(1, round(split.share * total))
        for group in (groups[g] for g in drawn.tolist()):
            mine = {k: sum(items[n][0] == k for n in group if n not in held) for k in _KINDS}
            # neither more than asked nor the last one of a kind
            room = total - left[kind] + mine[kind] <= target and all(left[k] > m for k, m in mine.items() if m)
            if mine[kind] and room:
                held.update(group)
                left = {k: left[k] - m for k, m in mine.items()}

    divided = _divide(sources.sfm[0], split) if not held and len(sources.sfm) == 1 and split.share else None
    if divided is not None:
        return replace(sources, sfm=(), parts=(divided[0],)), PhotoSources((), (), (), parts=(divided[1],))

    def part(chosen: bool) -> PhotoSources:
        of = {k: tuple(p for n, (kind, p) in enumerate(items) if kind == k and (n in held) == chosen) for k in _KINDS}
        return PhotoSources(of["sfm"], of["photos"], of["brackets"], () if chosen else sources.posed)

    return part(False), part(True)


def describe_sources(root: Path, sources: PhotoSources) -> list[str]:
    """Names relative to ``root`` of scenes, photographs, brackets and posed scenes, sorted."""
    paths = [*sources.sfm, *sources.photos, *sources.brackets, *sources.posed]
    paths += [part.scene / "images" / name for part in sources.parts for name in part.images]
    return sorted(path.relative_to(root).as_posix() for path in paths)


def keep_split(out: Path, root: Path, train: PhotoSources, held_out: PhotoSources) -> None:
    """Write down what is held out, in ``out/split.json``; a run goes on only where nothing has changed sides.

    Raises:
        ValueError: if the run was begun with another split.

    """
    path = out / SPLIT
    now = {"training": describe_sources(root, train), "held_out": describe_sources(root, held_out)}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        crossed = set(now["held_out"]) & set(before["training"]) | set(now["training"]) & set(before["held_out"])
        if crossed:
            raise ValueError(
                f"{', '.join(sorted(crossed)[:5])} changed between training and held-out data since {out} was begun "
                "(the folder of the data or the options of the split are others); choose another --out, or name what "
                f"is held out by split.held_out as in {path}"
            )
    if rank() == 0:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")


def _divide(scene: Path, split: SplitConfig) -> tuple[ScenePart, ScenePart] | None:
    """Parts of a scene to train on and to hold out, two photographs each at least."""
    names = [path.relative_to(scene / "images").as_posix() for path in list_scene_photos(scene)]
    if len(names) < 4:
        return None
    order = [names[n] for n in np.random.default_rng(split.seed).permutation(len(names)).tolist()]
    cut = min(len(names) - 2, max(2, round(split.share * len(names))))
    train, held_out = sorted(order[cut:]), sorted(order[:cut])
    return (
        ScenePart(scene, tuple(train), False, split.share, split.seed),
        ScenePart(scene, tuple(held_out), True, split.share, split.seed),
    )


def _groups_by_content(items: list[_Item]) -> list[list[int]]:
    """Indices of items that share a file, directly or through others; in order of their first members."""
    group = list(range(len(items)))

    def root_of(n: int) -> int:
        while group[n] != n:
            n = group[n]
        return n

    first: dict[bytes, int] = {}
    for n, (kind, path) in enumerate(items):
        files = [path] if kind == "photos" else list_scene_photos(path) if kind == "sfm" else list_photos(path)
        for file in files:
            a, b = root_of(first.setdefault(hashlib.sha256(file.read_bytes()).digest(), n)), root_of(n)
            group[max(a, b)] = min(a, b)
    members: dict[int, list[int]] = defaultdict(list)
    for n in range(len(items)):
        members[root_of(n)].append(n)
    return list(members.values())
