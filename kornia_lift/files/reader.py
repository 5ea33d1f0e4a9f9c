"""Features of many images, read from one h5 file in hloc's layout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Self

from kornia_lift.features import Features
from kornia_lift.files.h5 import FeatureFileError, H5File
from kornia_lift.files.hloc import image_names, is_image, read_features, read_options


class FeatureReader:
    """Reads a feature file of this package, of hloc, or of another program that writes hloc's layout.

    Nothing in the file is trusted: no link is followed, and no array is loaded before its size, type and shape are
    checked. Use it as a context manager.

    Args:
        path: h5 file.

    Raises:
        FileNotFoundError: if it does not exist.
        FeatureFileError: if it is not an h5 file, or has a format that this version does not read.

    Example:
        >>> with FeatureReader("features.h5") as file:  # doctest: +SKIP
        ...     for name in file.names():
        ...         print(name, len(file.read(name)))
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file = H5File(path)
        self.path = self._file.path
        try:
            #: What the features were made with, empty if the file does not say.
            self.options: dict[str, Any] = read_options(self._file)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def names(self) -> Iterator[str]:
        """Return the names of the images, in the order of the file."""
        return image_names(self._file)

    def __contains__(self, name: str) -> bool:
        group = self._file.group(name)
        return group is not None and is_image(self._file, group)

    def read(self, name: str) -> Features:
        """Return the features of one image.

        Raises:
            UnreadableImageError: if the image file could not be read when the features were extracted.
            FeatureFileError: if the file does not hold the image, its extraction failed, or its datasets are damaged.
        """
        group = self._file.group(name)
        if group is None:
            raise FeatureFileError(f"{self.path.name} has no features of image {name}")
        return read_features(self._file, group)
