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

    def damaged(self) -> dict[str, str]:
        """Images whose features cannot be read, with the reason; not those that the file has an error for.

        Raises:
            FeatureFileError: if the file as a whole is damaged.
        """
        found = {}
        for name in self.names():
            group = self._file.group(name)
            if self._file.attribute(group, "error") is None:
                try:
                    super().read(name)
                except FeatureFileError as error:
                    found[name] = str(error)
        return found


def damaged_entries(path: Path) -> dict[str, str]:
    """What is damaged in a cache file, by image, with the reason; a file that is damaged as a whole is removed.

    Returns:
        The images whose features cannot be read; the name is empty for the whole file.
    """
    if not path.exists():
        return {}
    try:
        with FeatureStore(path) as store:
            return store.damaged()
    except FeatureFileError as error:
        path.unlink()
        return {"": str(error)}
