"""Features of scenes from an h5 file, of this package or of another program."""

from __future__ import annotations

from pathlib import Path

from kornia_lift.features import Features
from kornia_lift.files import FeatureFileError, FeatureReader
from kornia_lift.scenes.images import IMAGE_SUFFIXES


class FeatureStore(FeatureReader):
    """A feature file, addressed by scene and image. Use it as a context manager."""

    def read(self, name: str, image: str = "") -> Features:
        """The features of one image.

        Args:
            name: name of the scene, or of the image in the file.
            image: name of the image; hloc names images by file, with or without the folder: the first of these names
                that the file holds is taken.

        Raises:
            UnreadableImageError: if the image file could not be read when the features were extracted.
            FeatureFileError: if the file does not hold the image, its extraction failed, or its datasets are damaged.
        """
        names = [f"{name}/{image}", image] if image else [name]
        names += [f"{stem}{suffix}" for stem in names for suffix in IMAGE_SUFFIXES]
        found = next((candidate for candidate in names if candidate in self), None)
        if found is None:
            raise FeatureFileError(f"{self.path.name} has no features of image {names[0]}")
        return super().read(found)


def remove_damaged(path: Path) -> str | None:
    """Remove a cache file that cannot be opened or has an old format; returns why, ``None`` if it is good."""
    try:
        with FeatureReader(path):
            return None
    except FileNotFoundError:
        return None
    except FeatureFileError as error:
        path.unlink()
        return str(error)
