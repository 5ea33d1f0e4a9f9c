"""Several feature files become one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._io import atomic_write
from kornia_lift.files.h5 import FeatureFileError, copy_image, image_names, open_h5, read_options
from kornia_lift.files.lock import FileLock


@dataclass(frozen=True)
class Merged:
    """What a merge made: the number of images, and how many the shards were to hold but do not."""

    images: int
    missing: int


def merge_feature_files(parts: Sequence[Path], target: Path) -> Merged:
    """Put the images of several feature files into one; ``target`` appears when it is complete.

    Args:
        parts: files made with the same options. They may hold equal copies of an image.
        target: the new file; it may exist and is replaced then.

    Raises:
        FeatureFileError: if a file is not readable, options differ, a shard is missing, or two files hold different
            features of the same image.
        FileInUseError: if another process writes ``target``.
    """
    options = read_options(parts[0])
    _check_shards(parts)
    holder: dict[str, Path] = {}
    missing = 0
    for part in parts:
        if read_options(part) != options:
            raise FeatureFileError(f"{part} was made with other options than {parts[0]}")
        with open_h5(part, "r") as file:
            missing += int(file.attrs.get("missing", 0))
            for name in image_names(file):
                if name not in holder:
                    holder[name] = part
                elif not _same(file[name], holder[name], name):
                    raise FeatureFileError(
                        f"both {holder[name]} and {part} hold the image {name!r}, with different features"
                    )
    with FileLock(target), atomic_write(target) as temporary, open_h5(temporary, "w") as merged:
        merged.attrs["options"] = json.dumps(options, sort_keys=True)
        merged.attrs["missing"] = missing
        for part in parts:
            with open_h5(part, "r") as file:
                for name in image_names(file):
                    if holder[name] == part:
                        copy_image(file, name, merged)
    return Merged(len(holder), missing)


def _same(group: Any, path: Path, name: str) -> bool:
    with open_h5(path, "r") as file:
        other = file[name]
        return set(group) == set(other) and all(np.array_equal(group[key][()], other[key][()]) for key in group)


def _check_shards(parts: Sequence[Path]) -> None:
    """Raise if shards of a run are missing. Files that are no shards are taken as they are."""
    present: dict[int, set[int]] = {}
    for part in parts:
        with open_h5(part, "r") as file:
            index, count = (int(value) for value in file.attrs.get("shard", (0, 1)))
        present.setdefault(count, set()).add(index)
    for count, indices in present.items():
        missing = sorted(set(range(count)) - indices)
        if missing:
            raise FeatureFileError(f"shard {', '.join(map(str, missing))} of {count} is missing")
