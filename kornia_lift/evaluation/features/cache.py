"""Extracted features kept between runs: one npz file per image, each written complete or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._io import atomic_write
from kornia_lift.evaluation.features.files import FeatureFileError, UnreadableImageError
from kornia_lift.evaluation.features.record import Features

_LOGGER = logging.getLogger(__name__)
_ARRAYS = ("keypoints", "descriptors", "scores", "scales", "angles")
_OPTIONS = "options.json"


class FeatureCache:
    """Features by scene and image in a folder.

    Every image is a file of its own that is written under a temporary name and then renamed, so a run that is killed,
    or a disk that is full, costs the image it was at. An entry that cannot be read is named in the log, removed, and
    extracted again.

    Args:
        folder: made if it does not exist.
        options: what the features are made with; a folder of other options is refused.

    Raises:
        FeatureFileError: if the folder holds features made with other options, or is a file.
    """

    def __init__(self, folder: str | Path, options: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.options: dict[str, Any] = json.loads(json.dumps(dict(options)))
        if self.folder.exists() and not self.folder.is_dir():
            raise FeatureFileError(f"{self.folder} is a file, expected the folder of a feature cache")
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._read_options()
        if found is None:
            with atomic_write(self.folder / _OPTIONS) as temporary:
                temporary.write_text(json.dumps(self.options, sort_keys=True) + "\n")
        elif found != self.options:
            raise FeatureFileError(
                f"{self.folder} was made with {found}, not {self.options}: choose another folder or remove it"
            )

    def path(self, scene: str, image: str) -> Path:
        """The file of an image, whether it exists or not."""
        # a digest, since names may hold folders, dots and more characters than a file name may have
        return self.folder / f"{hashlib.sha256(f'{scene}/{image}'.encode()).hexdigest()[:32]}.npz"

    def fingerprint(self, scene: str, image: str) -> str | None:
        """The fingerprint of the pixels an entry was made from; None if there is no entry, or none can be read."""
        entry = self._load(scene, image)
        return None if entry is None or "fingerprint" not in entry else str(entry["fingerprint"])

    def write(self, scene: str, image: str, features: Features, *, fingerprint: str | None = None) -> None:
        """Add the features of one image.

        Args:
            scene: name of the scene.
            image: name of the image.
            features: what was extracted from it.
            fingerprint: tells the image's pixels from others of the same name.
        """
        arrays: dict[str, Any] = {name: value for name in _ARRAYS if (value := getattr(features, name)) is not None}
        if features.image_size is not None:
            arrays["image_size"] = np.array(features.image_size)
        self._save(scene, image, arrays, fingerprint)

    def write_error(
        self, scene: str, image: str, message: str, *, fingerprint: str | None = None, unreadable: bool = False
    ) -> None:
        """Record that an image has no features and why.

        Args:
            scene: name of the scene.
            image: name of the image.
            message: the reason.
            fingerprint: see :meth:`write`.
            unreadable: the image file is damaged, as opposed to an extraction that failed.
        """
        self._save(scene, image, {"error": np.array(message), "unreadable": np.array(unreadable)}, fingerprint)

    def read(self, scene: str, image: str) -> Features:
        """The features of one image.

        Raises:
            UnreadableImageError: if the image file could not be read.
            FeatureFileError: if there is no entry, or the extraction failed.
        """
        entry = self._load(scene, image)
        if entry is None:
            raise FeatureFileError(f"{self.folder.name} has no features of image {scene}/{image}")
        if "error" in entry:
            if bool(entry["unreadable"]):
                raise UnreadableImageError(str(entry["error"]))
            raise FeatureFileError(f"extraction failed on {scene}/{image}: {entry['error']}")
        return _features(entry)

    def _save(self, scene: str, image: str, arrays: dict[str, Any], fingerprint: str | None) -> None:
        if fingerprint is not None:
            arrays["fingerprint"] = np.array(fingerprint)
        with atomic_write(self.path(scene, image)) as temporary:
            np.savez(temporary, name=np.array(f"{scene}/{image}"), **arrays)

    def _load(self, scene: str, image: str) -> dict[str, NDArray[Any]] | None:
        """The arrays of an entry; None if there is none, or it was damaged and is removed now."""
        path = self.path(scene, image)
        if not path.is_file():
            return None
        try:
            # opened here because np.load leaves the file of a damaged archive open
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                entry = {name: file[name] for name in file.files}
            if str(entry["name"]) != f"{scene}/{image}":
                raise ValueError(f"it is the entry of {entry['name']}")
            if "error" not in entry:
                _features(entry)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
            _LOGGER.warning("%s, the features of %s/%s, is damaged (%s): extracted again", path, scene, image, error)
            path.unlink(missing_ok=True)
            return None
        return entry

    def _read_options(self) -> dict[str, Any] | None:
        path = self.folder / _OPTIONS
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text())
        except (ValueError, RecursionError):
            return None  # written anew
        return found if isinstance(found, dict) else None


def _features(entry: Mapping[str, NDArray[Any]]) -> Features:
    size = entry.get("image_size")
    optional = {name: entry[name] for name in _ARRAYS[2:] if name in entry}
    return Features(
        entry["keypoints"],
        entry["descriptors"],
        image_size=None if size is None else (int(size[0]), int(size[1])),
        **optional,
    )
