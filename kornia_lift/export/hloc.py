"""The h5 feature file of hloc: one group per image name.

Datasets of a group, N keypoints:

- ``keypoints`` float32 (N, 2): x, y in pixels of the photograph, pixel centres at integers;
- ``descriptors`` float32 (128, N): unit vectors, one per column;
- ``scores`` float32 (N,): responses, larger is better;
- ``scales`` float32 (N,): sigma in pixels, as SIFT counts it: LAF scale / (6 * 64/63);
- ``oris`` float32 (N,): degrees in (-180, 180], counter-clockwise on screen (kornia's sense);
- ``image_size`` int64 (2,): width, height.

The attribute ``options`` of the file holds, as JSON, what the features were made with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.matching import Described

_PART_SUFFIX = ".part.h5"


class FeatureFileError(ValueError):
    """A feature file that cannot be read, or that does not fit what is to be done with it."""


class FeatureFile:
    """An hloc feature file that is made image by image, and that no crash can damage.

    Each image is first a small file of its own in the folder ``<path>.parts``, complete or absent. :meth:`finish`
    packs them: the feature file changes in one step, from what it was to what it is to be. A run that was killed
    leaves its parts; the next one goes on from there.

    Args:
        path: the file; it need not exist.
        options: what the features are made with. An existing file made with other options is refused.
        shard: ``(index, count)`` if this file is one of several that belong together.
        anew: forget what an existing file holds; it is replaced when the new one is finished.

    Raises:
        FeatureFileError: if the file exists and is not an h5 file, or was made with other options.
        MissingExtraError: if h5py is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Mapping[str, Any],
        shard: tuple[int, int] = (0, 1),
        *,
        anew: bool = False,
    ) -> None:
        self.path = Path(path)
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self._options = dict(options)
        self._shard = shard
        require("h5py", extra="cli")
        if anew and self.parts.is_dir():
            shutil.rmtree(self.parts)
        self._keeps = self.path.exists() and not anew
        if self._keeps:
            _check_options(self.path, read_options(self.path), self._options)
        for part in self._part_files():
            try:
                found = read_options(part)
            except FeatureFileError:
                part.unlink()  # damaged by a power failure: the image is made again
                continue
            _check_options(part, found, self._options)
            break  # one run made them all

    def names(self) -> set[str]:
        """Return the names of the images that are done."""
        done = {self._name_of(part) for part in self._part_files()}
        if self._keeps:
            with _open(self.path, "r") as file:
                done.update(_image_names(file))
        return done

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
        part = self.parts / f"{name}{_PART_SUFFIX}"
        part.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(part) as temporary, _open(temporary, "w") as file:
            self._sign(file)
            group = file.create_group(name)
            for key, value in datasets.items():
                group.create_dataset(key, data=value)

    def finish(self, expected: int) -> None:
        """Pack what was written into the feature file. Without any image there will be no file, except a shard's.

        Args:
            expected: how many images the file was to hold; kept, so that a merge can tell what is missing.

        Raises:
            FeatureFileError: if a part is damaged, as by a power failure; it is removed, run again to replace it.
        """
        parts = list(self._part_files())
        if not parts and self._shard[1] == 1:
            return
        for left in self.path.parent.glob(f".{self.path.stem}.*.tmp{self.path.suffix}"):
            left.unlink()  # of a run that was killed while it packed
        with atomic_write(self.path) as temporary:
            if self._keeps:
                shutil.copyfile(self.path, temporary)
            with _open(temporary, "a") as file:
                self._sign(file)
                file.attrs["expected"] = expected
                for part in parts:
                    self._pack(part, file)
        if self.parts.is_dir():
            shutil.rmtree(self.parts)

    def _pack(self, part: Path, file: Any) -> None:
        name = self._name_of(part)
        try:
            with _open(part, "r") as source:
                _copy_image(source, name, file)
        except (FeatureFileError, KeyError, RuntimeError) as error:
            part.unlink()
            raise FeatureFileError(f"{part} was damaged and is removed now: run the same command again") from error

    def _part_files(self) -> Iterator[Path]:
        # a dot begins the name of a file that a killed run was writing
        return iter(sorted(part for part in self.parts.rglob(f"*{_PART_SUFFIX}") if not part.name.startswith(".")))

    def _name_of(self, part: Path) -> str:
        return part.relative_to(self.parts).as_posix().removesuffix(_PART_SUFFIX)

    def _sign(self, file: Any) -> None:
        file.attrs["options"] = json.dumps(self._options, sort_keys=True)
        file.attrs["shard"] = self._shard


def _check_options(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    changed = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if changed:
        raise FeatureFileError(
            f"{path} was made with {', '.join(changed)}: choose another output file, or remove this one"
        )


def read_options(path: Path) -> dict[str, Any]:
    """Return what the features of a file were made with; empty if the file does not say.

    Raises:
        FeatureFileError: if this is not a readable h5 file.
    """
    with _open(path, "r") as file:
        options = json.loads(file.attrs.get("options", "{}"))
    return dict(options)


@dataclass(frozen=True)
class Merged:
    """What a merge made: the number of images, and how many the shards were to hold but do not."""

    images: int
    missing: int


def merge_feature_files(parts: Sequence[Path], target: Path) -> Merged:
    """Put the images of several feature files into one; ``target`` appears when it is complete.

    Args:
        parts: files made with the same options.
        target: the new file; it may exist and is replaced then.

    Raises:
        FeatureFileError: if a file is not readable, options differ, a shard is missing, or two files hold the same
            image.
    """
    options = read_options(parts[0])
    _check_shards(parts)
    holder: dict[str, Path] = {}
    missing = 0
    for part in parts:
        if read_options(part) != options:
            raise FeatureFileError(f"{part} was made with other options than {parts[0]}")
        with _open(part, "r") as file:
            names = list(_image_names(file))
            missing += max(0, int(file.attrs.get("expected", 0)) - len(names))
        for name in names:
            if name in holder:
                raise FeatureFileError(f"both {holder[name]} and {part} hold the image {name!r}")
            holder[name] = part
    with atomic_write(target) as temporary, _open(temporary, "w") as merged:
        merged.attrs["options"] = json.dumps(options, sort_keys=True)
        merged.attrs["expected"] = len(holder) + missing
        for part in parts:
            with _open(part, "r") as file:
                for name in _image_names(file):
                    _copy_image(file, name, merged)
    return Merged(len(holder), missing)


def _copy_image(source: Any, name: str, target: Any) -> None:
    folder, _, image = name.rpartition("/")
    group = target.require_group(folder) if folder else target
    if image in group:
        del group[image]
    source.copy(name, group, image)


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
    """Names of all groups that hold keypoints."""
    stack = [(key, file[key]) for key in reversed(list(file))]
    while stack:
        name, node = stack.pop()
        if "keypoints" in node:
            yield name
        elif hasattr(node, "keys"):
            stack.extend((f"{name}/{key}", node[key]) for key in reversed(list(node)))
