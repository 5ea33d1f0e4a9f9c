"""Merge several feature files into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kornia_lift.files.disk import check_space, naming
from kornia_lift.files.h5 import FeatureFileError, H5File, open_h5
from kornia_lift.files.hloc import (
    check_folders,
    check_image,
    copy_image,
    image_names,
    read_missing,
    read_options,
    read_shard,
    sign,
)
from kornia_lift.files.lock import FileLock

_NAMED = 10  # missing shards that an error lists


@dataclass(frozen=True)
class Merged:
    """Result of a merge: the number of images, and the number that the shards should hold but do not."""

    images: int
    missing: int


def merge_feature_files(parts: Sequence[Path], target: Path) -> Merged:
    """Merge the images of several feature files into one; ``target`` appears when it is complete.

    Args:
        parts: files made with the same options. They may hold equal copies of an image.
        target: the new file; an existing one is replaced.

    Raises:
        FeatureFileError: if a file is damaged, options differ, a shard is missing, or two files hold different
            features of the same image.
        FileInUseError: if another process writes ``target``.
        OSError: if ``target`` cannot be written.
    """
    with H5File(parts[0]) as file:
        options = read_options(file)
    _check_shards(parts)
    holder: dict[str, Path] = {}
    missing = 0
    for part in parts:
        with H5File(part) as file:
            if read_options(file) != options:
                raise FeatureFileError(f"{part} was made with other options than {parts[0]}")
            missing += read_missing(file)
            for name in image_names(file):
                if name not in holder:
                    holder[name] = part
                elif not _same(file, holder[name], name):
                    raise FeatureFileError(
                        f"both {holder[name]} and {part} hold the image {name!r}, with different features"
                    )
    check_folders(holder)
    # one name, under the lock: what a killed merge leaves is overwritten by the next one, and removed
    temporary = target.with_name(f".{target.name[:200]}.merging")
    with FileLock(target), naming(target):
        try:
            temporary.unlink(missing_ok=True)
            check_space(target, parts)
            with open_h5(temporary, "w") as merged:
                sign(merged, options, (0, 1), missing)
                for part in parts:
                    with H5File(part) as file:
                        for name in image_names(file):
                            if holder[name] == part:
                                copy_image(file, name, merged)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    return Merged(len(holder), missing)


def _same(file: H5File, path: Path, name: str) -> bool:
    with H5File(path) as other:
        groups = file.group(name), other.group(name)
        keys, others = check_image(file, groups[0]), check_image(other, groups[1])
        return sorted(keys) == sorted(others) and all(
            np.array_equal(file.values(groups[0], key), other.values(groups[1], key)) for key in keys
        )


def _check_shards(parts: Sequence[Path]) -> None:
    """Raise if shards of a run are missing. Files that are not shards are taken as they are."""
    present: dict[int, set[int]] = {}
    for part in parts:
        with H5File(part) as file:
            index, count = read_shard(file)
        present.setdefault(count, set()).add(index)
    for count, indices in present.items():
        if len(indices) < count:
            missing = [k for k in range(count) if k not in indices]
            names = ", ".join(map(str, missing[:_NAMED])) + (", ..." if len(missing) > _NAMED else "")
            raise FeatureFileError(f"shard {names} of {count} is missing")
