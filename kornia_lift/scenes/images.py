"""Reading the image files of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from kornia_lift._io import SUFFIXES, ImageFileError, header, opened

#: Suffixes looked for, in this order, where a layout names an image without one.
IMAGE_SUFFIXES = tuple(written for suffix in SUFFIXES for written in (suffix, suffix.upper()))


def is_inside(name: str) -> bool:
    """Whether a name from a file stays inside the folder it is joined to: not absolute, without ``..``."""
    paths = PurePosixPath(name), PureWindowsPath(name)
    return bool(name) and "\0" not in name and not any(p.is_absolute() or p.drive or ".." in p.parts for p in paths)


def find_image(folder: Path, stem: str) -> Path:
    """The image file ``folder/stem.*``.

    Raises:
        FileNotFoundError: if there is none with a known suffix.
    """
    for suffix in IMAGE_SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.is_file():
            return path
    raise FileNotFoundError(f"no image {folder / stem} with one of the suffixes {', '.join(IMAGE_SUFFIXES)}")


def image_file_size(path: Path, *, apply_exif: bool = True) -> tuple[int, int]:
    """Width and height as the image is shown, from the file's header, without decoding the image.

    Args:
        path: the file.
        apply_exif: False for the size as it is stored, whatever the EXIF tag says.

    Raises:
        FileNotFoundError: if the file does not exist.
        ImageFileError: if the file is damaged or not an image.
    """
    with _reading(path):
        width, height, orientation = header(path)
    sideways = apply_exif and orientation >= 5  # 5 to 8: rotated by 90 degrees
    return (height, width) if sideways else (width, height)


def read_depth_png(path: Path) -> NDArray[np.uint16]:
    """Read a 16-bit one-channel PNG as it is stored, shape (H, W).

    Raises:
        FileNotFoundError: if the file does not exist.
        ValueError: if the file is damaged, or not a 16-bit one-channel image.
    """
    if not path.exists():
        raise FileNotFoundError(f"depth map {path} does not exist")
    with _reading(path), opened(path) as image:
        array = np.asarray(image)
    # Pillow calls 16-bit gray "I;16" and gives uint16, older releases "I" and int32.
    if array.ndim != 2 or array.dtype not in (np.uint16, np.int32):
        raise ValueError(f"{path} must be a 16-bit one-channel PNG; got {array.dtype} of shape {array.shape}")
    return array.astype(np.uint16)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what decoders raise for a damaged file into one kind of error."""
    try:
        yield
    except (FileNotFoundError, MemoryError, ImportError):
        raise
    except Exception as error:  # anything from SyntaxError to struct.error
        reason = str(error).replace(str(path), path.name) or type(error).__name__
        raise ImageFileError(f"cannot read {path} as an image: {reason}") from error
