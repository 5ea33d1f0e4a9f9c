"""The h5 feature file of hloc: one group per image name.

Datasets of a group, N keypoints:

- ``keypoints`` float32 (N, 2): x, y in pixels of the photograph, pixel centres at integers;
- ``descriptors`` float32 (128, N): unit vectors, one per column;
- ``scores`` float32 (N,): responses, larger is better;
- ``scales`` float32 (N,): sigma in pixels, as SIFT counts scale;
- ``oris`` float32 (N,): degrees in (-180, 180], counter-clockwise on screen (kornia's sense);
- ``image_size`` int64 (2,): width, height.

The attribute ``options`` of the file holds, as JSON, what the features were made with.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.matching import Described

_UNFINISHED = "__unfinished__"


class FeatureFileError(ValueError):
    """A feature file that cannot be read, or that does not fit what is to be done with it."""


class FeatureFile:
    """An hloc feature file that is written image by image.

    The file appears with the first image and is closed after each one; an image is listed only when all its
    datasets are written, so an interrupted run can be resumed.

    Args:
        path: the file; it need not exist.
        options: what the features are made with. An existing file made with other options is refused.
        shard: ``(index, count)`` if this file is one of several that belong together; written at once then, so that
            a shard without images is known to be complete.

    Raises:
        FeatureFileError: if the file exists and is not an h5 file, or was made with other options.
        MissingExtraError: if h5py is not installed.
    """

    def __init__(
        self, path: str | os.PathLike[str], options: Mapping[str, Any], shard: tuple[int, int] = (0, 1)
    ) -> None:
        self.path = Path(path)
        self._options = dict(options)
        self._shard = shard
        self._h5py = require("h5py", extra="cli")
        if self.path.exists():
            found = read_options(self.path)
            changed = {
                key: (found.get(key), value) for key, value in self._options.items() if found.get(key) != value
            }
            if changed:
                differences = ", ".join(f"{key} {was!r}, not {now!r}" for key, (was, now) in changed.items())
                raise FeatureFileError(
                    f"{self.path} was made with {differences}: choose another output file, or remove this one"
                )
        elif shard[1] > 1:
            with _open(self.path, "w") as file:
                self._sign(file)

    def names(self) -> set[str]:
        """Return the names of the images that the file holds."""
        if not self.path.exists():
            return set()
        with _open(self.path, "r") as file:
            return set(_image_names(file))

    def write(self, name: str, features: Described) -> None:
        """Add one image.

        Args:
            name: image name, with ``/`` between folders.
            features: N may be 0.
        """
        centres, sigma, theta = lift_from_lafs(features.lafs[None])
        datasets = {
            "keypoints": centres[0].float().numpy(),
            "descriptors": np.ascontiguousarray(features.descriptors.T.float().numpy()),
            "scores": features.scores.float().numpy(),
            "scales": sigma[0].float().numpy(),
            "oris": np.rad2deg(-theta[0].float().numpy()),
            "image_size": np.asarray(features.image_size),
        }
        with _open(self.path, "a") as file:
            if "options" not in file.attrs:
                self._sign(file)
            if _UNFINISHED in file:
                del file[_UNFINISHED]
            group = file.create_group(_UNFINISHED)
            for key, value in datasets.items():
                group.create_dataset(key, data=value)
            file.move(_UNFINISHED, name)

    def _sign(self, file: Any) -> None:
        file.attrs["options"] = json.dumps(self._options, sort_keys=True)
        file.attrs["shard"] = self._shard


def read_options(path: Path) -> dict[str, Any]:
    """Return what the features of a file were made with; empty if the file does not say.

    Raises:
        FeatureFileError: if this is not a readable h5 file.
    """
    with _open(path, "r") as file:
        options = json.loads(file.attrs.get("options", "{}"))
    return dict(options)


def merge_feature_files(parts: Sequence[Path], target: Path) -> int:
    """Put the images of several feature files into one; ``target`` appears when it is complete.

    Args:
        parts: files made with the same options.
        target: the new file; it may exist and is replaced then.

    Returns:
        The number of images.

    Raises:
        FeatureFileError: if a file is not readable, options differ, a shard is missing, or two files hold the same
            image.
    """
    h5py = require("h5py", extra="cli")
    options = read_options(parts[0])
    _check_shards(parts)
    holder: dict[str, Path] = {}
    for part in parts:
        if read_options(part) != options:
            raise FeatureFileError(f"{part} was made with other options than {parts[0]}")
        with _open(part, "r") as file:
            for name in _image_names(file):
                if name in holder:
                    raise FeatureFileError(f"both {holder[name]} and {part} hold the image {name!r}")
                holder[name] = part
    with atomic_write(target) as temporary, h5py.File(temporary, "w") as merged:
        merged.attrs["options"] = json.dumps(options, sort_keys=True)
        for part in parts:
            with _open(part, "r") as file:
                for name in _image_names(file):
                    file.copy(name, merged.require_group(name.rpartition("/")[0] or "/"), name.rpartition("/")[2])
    return len(holder)


def _check_shards(parts: Sequence[Path]) -> None:
    """Raise if shards of a run are missing. Files that are no shards are taken as they are."""
    present: dict[int, set[int]] = {}
    for part in parts:
        with _open(part, "r") as file:
            index, count = (int(value) for value in file.attrs.get("shard", (0, 1)))
        present.setdefault(count, set()).add(index)
    for count, indices in present.items():
        missing = sorted(set(range(count)) - indices)
        if missing:
            raise FeatureFileError(f"shard {', '.join(map(str, missing))} of {count} is missing")


def _open(path: Path, mode: str) -> Any:
    try:
        return require("h5py", extra="cli").File(path, mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FeatureFileError(f"cannot open {path} as an h5 feature file: {error}") from error


def _image_names(file: Any) -> Iterator[str]:
    """Names of all groups that hold keypoints, except an unfinished one."""
    stack = [(f"{key}", file[key]) for key in reversed(file) if key != _UNFINISHED]
    while stack:
        name, node = stack.pop()
        if "keypoints" in node:
            yield name
        elif hasattr(node, "keys"):
            stack.extend((f"{name}/{key}", node[key]) for key in reversed(list(node)))
