"""Features of many images in one h5 file, in the layout of hloc, so that files of other programs can be evaluated.

One group per image, named ``SCENE/IMAGE``, with ``keypoints`` (N, 2), ``descriptors`` (D, N; uint8 for packed bits)
and, where the feature has them, ``scores``, ``scales`` (sigma), ``oris`` (degrees, counter-clockwise on screen) and
``image_size`` (width, height). An image whose extraction failed is a group with the attribute ``error``. The attribute
``fingerprint`` tells which pixels the features belong to; files of other programs need none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kornia_lift._extras import require
from kornia_lift.features import Features
from kornia_lift.scenes.images import IMAGE_SUFFIXES

_UNFINISHED = "__unfinished__"
_OPTIONAL = {"scores": "scores", "scales": "scales", "angles": "oris"}


class FeatureFileError(ValueError):
    """A feature file, or one of its images, cannot be used; the message says why."""


class UnreadableImageError(FeatureFileError):
    """A photograph could not be read when its features were to be extracted: not the feature's fault."""


class FeatureStore:
    """Features by scene and image, in an h5 file.

    Use it as a context manager. Writing adds image by image; an image is there completely or not at all, so an
    interrupted extraction goes on where it stopped.

    Args:
        path: h5 file.
        options: what the features are made with, for writing; None opens the file for reading only.

    Raises:
        FileNotFoundError: if the file is to be read and does not exist.
        FeatureFileError: if it is no h5 file, or holds features made with other options.
    """

    def __init__(self, path: str | Path, options: Mapping[str, Any] | None = None) -> None:
        self.path = Path(path)
        if options is None and not self.path.is_file():
            raise FileNotFoundError(f"Feature file {self.path} does not exist.")
        try:
            self._file = require("h5py", extra="eval").File(self.path, "r" if options is None else "a")
        except BlockingIOError:
            raise FeatureFileError(
                f"{self.path} is in use by another process; wait for it, or choose another."
            ) from None
        except OSError as error:
            raise FeatureFileError(f"{self.path} cannot be opened as an h5 feature file: {error}") from None
        if options is not None:
            if "options" in self._file.attrs and self.options != dict(options):
                found = self.options
                self._file.close()
                raise FeatureFileError(
                    f"{self.path} was made with {found}, not {dict(options)}. Choose another file or remove it."
                )
            self._file.attrs["options"] = json.dumps(dict(options))

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def options(self) -> dict[str, Any]:
        """What the features are made with, empty if the file does not say."""
        return dict(json.loads(self._file.attrs.get("options", "{}")))

    def __contains__(self, key: tuple[str, str]) -> bool:
        return self._find(*key) is not None

    def fingerprint(self, scene: str, image: str) -> str | None:
        """The fingerprint that the features of an image were written with; None if there is none, or no such image."""
        group = self._file.get(f"{scene}/{image}")
        found = None if group is None else group.attrs.get("fingerprint")
        return None if found is None else str(found)

    def write(self, scene: str, image: str, features: Features, *, fingerprint: str | None = None) -> None:
        """Add the features of one image.

        Args:
            scene: name of the scene.
            image: name of the image.
            features: what was found in it.
            fingerprint: tells the image's pixels from others of the same name.
        """
        data: dict[str, Any] = {
            "keypoints": features.keypoints.astype(np.float32),
            "descriptors": np.ascontiguousarray(features.descriptors.T),
        }
        for attribute, dataset in _OPTIONAL.items():
            values = getattr(features, attribute)
            if values is not None:
                data[dataset] = values.astype(np.float32)
        if features.image_size is not None:
            data["image_size"] = np.array(features.image_size)
        group = self._new_group()
        for name, values in data.items():
            group.create_dataset(name, data=values)
        self._publish(scene, image, fingerprint)

    def write_error(
        self, scene: str, image: str, message: str, *, fingerprint: str | None = None, unreadable: bool = False
    ) -> None:
        """Record that an image has no features and why.

        Args:
            scene: name of the scene.
            image: name of the image.
            message: the reason.
            fingerprint: see :meth:`write`.
            unreadable: it is the photograph that is damaged, not the extraction that failed.
        """
        group = self._new_group()
        group.attrs["error"] = message
        group.attrs["unreadable"] = unreadable
        self._publish(scene, image, fingerprint)

    def read(self, scene: str, image: str) -> Features:
        """The features of one image.

        Raises:
            UnreadableImageError: if the photograph could not be read.
            FeatureFileError: if the file does not hold it, its extraction failed, or its data sets do not fit.
        """
        key = self._find(scene, image)
        if key is None:
            raise FeatureFileError(f"{self.path.name} has no features of image {scene}/{image}")
        group = self._file[key]
        if group.attrs.get("unreadable", False):
            raise UnreadableImageError(str(group.attrs["error"]))
        if "error" in group.attrs:
            raise FeatureFileError(f"extraction failed on {key}: {group.attrs['error']}")
        if "keypoints" not in group or "descriptors" not in group:
            raise FeatureFileError(f"{key} lacks keypoints or descriptors; it has {', '.join(group) or 'nothing'}")
        keypoints = group["keypoints"][()].astype(np.float64)
        descriptors = group["descriptors"][()]
        if descriptors.ndim == 2 and descriptors.shape[1] == len(keypoints):
            descriptors = descriptors.T  # channels first, hloc's way; (N, D) is taken too where it is unambiguous
        if descriptors.dtype != np.uint8:
            descriptors = descriptors.astype(np.float32)
        optional = {a: group[d][()].astype(np.float64).reshape(-1) for a, d in _OPTIONAL.items() if d in group}
        size = tuple(int(v) for v in group["image_size"][()]) if "image_size" in group else None
        try:
            return Features(
                keypoints.reshape(-1, 2),
                np.ascontiguousarray(descriptors),
                image_size=None if size is None else (size[0], size[1]),
                **optional,
            )
        except ValueError as error:
            raise FeatureFileError(f"{key}: {error}") from None

    def _find(self, scene: str, image: str) -> str | None:
        """hloc names images by file, with or without the folder; take the first name that is there."""
        candidates = [f"{scene}/{image}", image]
        candidates += [f"{name}{suffix}" for name in candidates for suffix in IMAGE_SUFFIXES]
        return next((c for c in candidates if self._is_image(c)), None)

    def _is_image(self, key: str) -> bool:
        """Whether a group is that of an image, not that of a scene that is called like one."""
        group = self._file.get(key)
        if group is None or not hasattr(group, "keys"):
            return False
        return "error" in group.attrs or any(hasattr(member, "shape") for member in group.values())

    def _new_group(self) -> Any:
        if _UNFINISHED in self._file:
            del self._file[_UNFINISHED]
        return self._file.create_group(_UNFINISHED)

    def _publish(self, scene: str, image: str, fingerprint: str | None) -> None:
        key = f"{scene}/{image}"
        if fingerprint is not None:
            self._file[_UNFINISHED].attrs["fingerprint"] = fingerprint
        if key in self._file:
            del self._file[key]
        self._file.require_group(key.rpartition("/")[0])  # names of images may hold folders
        self._file.move(_UNFINISHED, key)
        self._file.flush()
