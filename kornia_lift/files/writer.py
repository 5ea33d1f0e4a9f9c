"""A feature file that is written image by image, and that no crash can damage."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kornia_lift._extras import require
from kornia_lift._io import atomic_write
from kornia_lift.features import Features
from kornia_lift.files.disk import check_space, naming
from kornia_lift.files.h5 import FeatureFileError, H5File, check_options, open_h5, text
from kornia_lift.files.hloc import (
    check_folders,
    check_image,
    copy_image,
    image_names,
    read_options,
    sign,
    write_features,
)
from kornia_lift.files.lock import FileLock

_PART_SUFFIX = ".part.h5"


class FeatureFile:
    """Writes an h5 file in hloc's layout; several runs may add to it, one at a time.

    Each image is first a small file of its own in the folder ``<path>.parts``, complete or absent. :meth:`finish`
    packs them: the feature file changes in one step, from the old content to the new. A run that was killed
    leaves its parts; the next one continues from there.

    Use it as a context manager: until it ends, no other process can write the file.

    Args:
        path: the file; it need not exist.
        options: what the features were made with. An existing file made with other options is refused.
        shard: ``(index, count)`` if this file is one of several that belong together.
        anew: ignore what an existing file holds; it is replaced when the new one is finished.

    Raises:
        FeatureFileError: if the file exists and is not a feature file, or was made with other options.
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
    ) -> None:
        self.path = Path(path)
        self.parts = self.path.with_name(f"{self.path.name}.parts")
        self._options = dict(options)
        self._shard = shard
        require("h5py", extra="cli")
        self._lock = FileLock(self.path)
        try:
            exists = self.path.exists()
            #: Whether :meth:`finish` replaces an old file.
            self.replaces = exists and anew
            self._keeps = exists and not anew
            if anew and self.parts.is_dir():
                shutil.rmtree(self.parts)
            self._held = self._read_held() if exists else frozenset()
            self._check_parts()
            # every part must still be there when it is packed
            self._expected = {part.name for part in self._part_files()}
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> FeatureFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others write the file. Parts that were not packed stay."""
        self._lock.close()

    def __contains__(self, name: str) -> bool:
        """Whether an image is done."""
        return (self._keeps and name in self._held) or self._part(name).name in self._expected

    def would_lose(self, names: Iterable[str]) -> list[str]:
        """Return which of the images the old file holds and the new one, which replaces it, would not."""
        return [name for name in names if self.replaces and name in self._held and name not in self]

    def fingerprint(self, name: str) -> str | None:
        """Return the fingerprint that an image was written with; ``None`` if there is none, or the image is damaged."""
        part = self._part(name)
        path = part if part.name in self._expected else self.path
        if path == self.path and not (self._keeps and name in self._held):
            return None
        try:
            with H5File(path) as file:
                group = file.group(name)
                if group is None:
                    return None
                check_image(file, group)
                found = file.attribute(group, "fingerprint")
        except FeatureFileError:
            return None
        return None if found is None else str(found)

    def write(self, name: str, features: Features, *, fingerprint: str | None = None) -> None:
        """Add one image, or replace it.

        Args:
            name: image name, with ``/`` between folders.
            features: N may be 0.
            fingerprint: distinguishes the pixels of the image from those of others of the same name.

        Raises:
            FeatureFileError: if the name cannot be one in an h5 file, or keypoints or descriptors are not finite.
            OSError: if the file cannot be written.
        """
        problem = features.problem()
        if problem:
            raise FeatureFileError(f"{name}: {problem}")
        with self._writing(name, fingerprint) as group:
            write_features(group, features)

    def write_error(self, name: str, message: str, *, fingerprint: str | None = None, unreadable: bool = False) -> None:
        """Record that an image has no features.

        Args:
            name: image name.
            message: the reason.
            fingerprint: see :meth:`write`.
            unreadable: the image file is damaged; else its extraction failed.
        """
        with self._writing(name, fingerprint) as group:
            group.attrs["error"] = text(message)
            group.attrs["unreadable"] = unreadable

    @contextmanager
    def _writing(self, name: str, fingerprint: str | None) -> Iterator[Any]:
        """Yield the group of one image, in a file of its own that is made in memory and written to the disk at once."""
        if not name or not all(name.split("/")) or "." in name.split("/") or "\0" in name:
            raise FeatureFileError(f"{name!r} cannot be the name of an image in an h5 file")
        part = self._part(name)
        with require("h5py", extra="cli").File(part.name, "w", driver="core", backing_store=False) as file:
            sign(file, self._options, self._shard)
            file.attrs["name"] = text(name)
            group = file.create_group(name)
            if fingerprint is not None:
                group.attrs["fingerprint"] = text(fingerprint)
            yield group
            file.flush()
            data = file.id.get_file_image()
        with naming(self.path, f"the images that are done wait in {self.parts}"):
            self.parts.mkdir(exist_ok=True)
            with atomic_write(part) as temporary:
                temporary.write_bytes(data)
        self._expected.add(part.name)

    def finish(self, missing: int = 0) -> None:
        """Pack what was written into the feature file. Without any image there is no file, except for a shard.

        Args:
            missing: how many images the file should hold but does not; stored, so that a merge can report them.

        Raises:
            FeatureFileError: if a part was damaged, as by a power failure, or removed by somebody else; run again to
                make it anew.
            OSError: if the file cannot be written; the parts stay.
        """
        parts = list(self._part_files())
        lost = len(self._expected - {part.name for part in parts})
        if lost:
            raise FeatureFileError(
                f"{lost} finished images were removed from {self.parts} during the run: run the same command again"
            )
        if parts or (self._shard[1] > 1 and not (self.replaces and missing)):
            self._pack_all(parts, missing)
        if self.parts.is_dir():
            shutil.rmtree(self.parts)

    def _pack_all(self, parts: list[Path], missing: int) -> None:
        with naming(self.path, f"the images that are done wait in {self.parts}"):
            self.parts.mkdir(exist_ok=True)
            packed = self.parts / "packed.h5"  # what a killed run leaves of it is removed with the folder
            try:
                packed.unlink(missing_ok=True)
                check_space(self.path, [*parts, *([self.path] if self._keeps else [])])
                with open_h5(packed, "w") as file:
                    sign(file, self._options, self._shard, missing)
                    names = {self._pack(part, file) for part in parts}
                    if self._keeps:
                        # image by image, checked: a copy of a damaged file could not be written to
                        with H5File(self.path) as old:
                            check_folders(dict.fromkeys(self._held | names, self.path))
                            for name in sorted(self._held - names):
                                copy_image(old, name, file)
                os.replace(packed, self.path)
            finally:
                packed.unlink(missing_ok=True)

    def _pack(self, part: Path, file: Any) -> str:
        try:
            with H5File(part) as source:
                name = source.attribute(source.root, "name")
                group = source.group(name) if isinstance(name, str) else None
                if group is None:
                    raise source.error("attribute 'name'", "not the name of an image")
                check_image(source, group)  # before a byte is written: what fails below is the disk
                copy_image(source, str(name), file)
                return str(name)
        except FeatureFileError as error:
            part.unlink()
            raise FeatureFileError(
                f"{part} was damaged and has been removed: run the same command again ({error})"
            ) from error

    def _part(self, name: str) -> Path:
        # a digest: names may be as long as a file system allows, and may begin with a dot
        try:
            return self.parts / f"{hashlib.sha256(name.encode()).hexdigest()}{_PART_SUFFIX}"
        except UnicodeEncodeError as error:
            raise FeatureFileError(f"{name!r} is not valid Unicode, as h5 requires: rename it") from error

    def _part_files(self) -> Iterator[Path]:
        # a dot begins the name of a file that a killed run was writing
        return iter(sorted(part for part in self.parts.glob(f"*{_PART_SUFFIX}") if not part.name.startswith(".")))

    def _read_held(self) -> frozenset[str]:
        try:
            with H5File(self.path) as file:
                if self._keeps:
                    check_options(self.path, read_options(file), self._options)
                return frozenset(image_names(file))
        except FeatureFileError:
            if self._keeps:
                raise
            return frozenset()  # nothing is lost with a damaged file

    def _check_parts(self) -> None:
        for part in self._part_files():
            try:
                with H5File(part) as file:
                    found = read_options(file)
            except FeatureFileError:
                part.unlink()  # damaged by a power failure, or of an earlier format: the image is made again
                continue
            check_options(self.parts, found, self._options)
