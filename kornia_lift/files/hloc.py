"""The h5 feature file of hloc: one group per image name.

Datasets of a group, N keypoints:

- ``keypoints`` float32 (N, 2): x, y in pixels of the photograph, pixel centres at integers;
- ``descriptors`` float32 (128, N): unit vectors, one per column;
- ``scores`` float32 (N,): responses, larger is better;
- ``scales`` float32 (N,): sigma in pixels, as SIFT counts it: LAF scale / (6 * 64/63 * scaling_coef);
- ``oris`` float32 (N,): degrees in (-180, 180], counter-clockwise on screen (kornia's sense);
- ``image_size`` int64 (2,): width, height.

The attribute ``options`` of the file holds, as JSON, what the features were made with; ``missing`` counts the images
that the last run was to add but could not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.features import Features
from kornia_lift.files.h5 import FeatureFileError, check_options, copy_image, image_names, open_h5, read_options
from kornia_lift.files.lock import FileLock

_PART_SUFFIX = ".part.h5"


class FeatureFile:
    """An hloc feature file that is made image by image, and that no crash can damage.

    Each image is first a small file of its own in the folder ``<path>.parts``, complete or absent. :meth:`finish`
    packs them: the feature file changes in one step, from what it was to what it is to be. A run that was killed
    leaves its parts; the next one goes on from there.

    Use it as a context manager: from the construction to the end nobody else can write the file.

    Args:
        path: the file; it need not exist.
        options: what the features are made with. An existing file made with other options is refused.
        shard: ``(index, count)`` if this file is one of several that belong together.
        anew: forget what an existing file holds; it is replaced when the new one is finished.
        scaling_coef: the enlargement of a ``LocalFeature``'s frames over those of its detector; kept with the options.

    Raises:
        FeatureFileError: if the file exists and is not an h5 file, or was made with other options.
        FileInUseError: if another process writes the file.
        MissingExtraError: if h5py is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: Mapping[str, Any],
        shard: tuple[int, int] = (0, 1),
        *,
        anew: bool = False,
        scaling_coef: float = 1.0,
    ) -> None:
        self.path = Path(path)
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self._options = {**options, "scaling_coef": float(scaling_coef)}
        self._shard = shard
        require("h5py", extra="cli")
        self._lock = FileLock(self.path)
        try:
            exists = self.path.exists()
            #: Whether :meth:`finish` puts a new file in the place of an old one.
            self.replaces = exists and anew
            self._keeps = exists and not anew
            if anew and self.parts.is_dir():
                shutil.rmtree(self.parts)
            self._held = self._read_held() if exists else frozenset()
            self._check_parts()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write the file. Parts that were not packed stay."""
        self._lock.close()

    def __contains__(self, name: str) -> bool:
        """Whether an image is done."""
        return (self._keeps and name in self._held) or self._part(name).is_file()

    def would_lose(self, names: Iterable[str]) -> list[str]:
        """Return which of the images the old file holds and the new one, which replaces it, would not."""
        return [name for name in names if self.replaces and name in self._held and name not in self]

    def write(self, name: str, features: Features) -> None:
        """Add one image.

        Args:
            name: image name, with ``/`` between folders.
            features: N may be 0.

        Raises:
            FeatureFileError: if the name is not Unicode, which h5 demands.
        """
        datasets: dict[str, Any] = {
            "keypoints": features.keypoints.astype(np.float32),
            "descriptors": np.ascontiguousarray(features.descriptors.T),
        }
        for key, values in (("scores", features.scores), ("scales", features.scales), ("oris", features.angles)):
            if values is not None:
                datasets[key] = values.astype(np.float32)
        if features.image_size is not None:
            datasets["image_size"] = np.asarray(features.image_size)
        part = self._part(name)
        part.parent.mkdir(exist_ok=True)
        with atomic_write(part) as temporary, open_h5(temporary, "w") as file:
            self._sign(file)
            file.attrs["name"] = name
            group = file.create_group(name)
            for key, value in datasets.items():
                group.create_dataset(key, data=value)

    def finish(self, missing: int = 0) -> None:
        """Pack what was written into the feature file. Without any image there will be no file, except a shard's.

        Args:
            missing: how many images the file was to hold but does not; kept, so that a merge can tell.

        Raises:
            FeatureFileError: if a part is damaged, as by a power failure; it is removed, run again to replace it.
        """
        parts = list(self._part_files())
        if parts or (self._shard[1] > 1 and not (self.replaces and missing)):
            self._pack_all(parts, missing)
        if self.parts.is_dir():
            shutil.rmtree(self.parts)

    def _pack_all(self, parts: list[Path], missing: int) -> None:
        self.parts.mkdir(exist_ok=True)
        packed = self.parts / "packed.h5"  # what a killed run leaves of it is removed with the folder
        try:
            packed.unlink(missing_ok=True)
            if self._keeps:
                shutil.copyfile(self.path, packed)
            with open_h5(packed, "a") as file:
                self._sign(file)
                file.attrs["missing"] = missing
                for part in parts:
                    self._pack(part, file)
            os.replace(packed, self.path)
        finally:
            packed.unlink(missing_ok=True)

    def _pack(self, part: Path, file: Any) -> None:
        try:
            with open_h5(part, "r") as source:
                copy_image(source, str(source.attrs["name"]), file)
        except (FeatureFileError, KeyError, RuntimeError) as error:
            part.unlink()
            raise FeatureFileError(f"{part} was damaged and is removed now: run the same command again") from error

    def _part(self, name: str) -> Path:
        # a digest: names may be as long as a file system allows, and may begin with a dot
        try:
            return self.parts / f"{hashlib.sha256(name.encode()).hexdigest()}{_PART_SUFFIX}"
        except UnicodeEncodeError as error:
            raise FeatureFileError(f"{name!r} is not valid Unicode, which an h5 file demands: rename it") from error

    def _part_files(self) -> Iterator[Path]:
        # a dot begins the name of a file that a killed run was writing
        return iter(sorted(part for part in self.parts.glob(f"*{_PART_SUFFIX}") if not part.name.startswith(".")))

    def _read_held(self) -> frozenset[str]:
        try:
            if self._keeps:
                check_options(self.path, read_options(self.path), self._options)
            with open_h5(self.path, "r") as file:
                return frozenset(image_names(file))
        except FeatureFileError:
            if self._keeps:
                raise
            return frozenset()  # a damaged file is no loss

    def _check_parts(self) -> None:
        for part in self._part_files():
            try:
                found = read_options(part)
            except FeatureFileError:
                part.unlink()  # damaged by a power failure: the image is made again
                continue
            check_options(self.parts, found, self._options)
            break  # one run made them all

    def _sign(self, file: Any) -> None:
        file.attrs["options"] = json.dumps(self._options, sort_keys=True)
        file.attrs["shard"] = self._shard
