"""Image files: list those of a folder, and read one as a tensor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io.decode import decode

#: Suffixes of the images that :func:`list_images` lists, lower case, the most common first.
SUFFIXES = (
    *(".jpg", ".png", ".ppm", ".pgm", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".pnm", ".pbm", ".jpe", ".jfif"),
    ".avif",  # by Pillow from 11.3 on
)
IMAGE_SUFFIXES = frozenset(SUFFIXES)
#: Suffixes of images that are not read, and the program that converts them.
OTHER_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "`heif-convert` (libheif)"),
    ".jxl": "`djxl` (libjxl)",
    **dict.fromkeys((".gif", ".jp2", ".j2k", ".jpx", ".tga", ".psd", ".exr"), "ImageMagick's `magick`"),
    **dict.fromkeys((".hdr", ".pam", ".pfm", ".pcx", ".dds", ".ico", ".qoi"), "ImageMagick's `magick`"),
    **dict.fromkeys((".3fr", ".arw", ".cr2", ".cr3", ".dng", ".iiq", ".nef"), "a raw developer"),
    **dict.fromkeys((".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".srw"), "a raw developer"),
}


class ImageFileError(ValueError):
    """A file that exists but cannot be read as an image.

    The message names the file and the reason: it is empty, cut off, damaged, of an unsupported kind, a pipe (such
    as the shell's ``<(...)``) or a device, or holds values that an image cannot have.
    """


def load_image(path: str | os.PathLike[str], *, gray: bool = False, apply_exif: bool = True) -> Tensor:
    """Read an image file.

    JPEG, PNG, TIFF, WebP, AVIF, BMP and PNM, with 1 to 16 bits, gray, colour or palette. Transparent pixels are blended
    with white, as in a picture viewer. Values of 10, 12 or 14 bits in 16-bit files are recognised by the tag
    MaxSampleValue, else by the largest value, which is logged. Of a file with several images (pages of a TIFF, the
    second image of a phone's JPEG), the first one is read.

    Args:
        path: the file.
        gray: return one channel; colour is reduced by ``kornia.color.rgb_to_grayscale``.
        apply_exif: rotate the image as its orientation tag says, as viewers do. COLMAP and hloc work on the pixels as
            they are stored: give ``False`` where coordinates must agree with them.

    Returns:
        float32 tensor of shape (1, C, H, W) with values in [0, 1]; C is 1 for gray files or with ``gray``, else 3.

    Raises:
        FileNotFoundError: if there is no such file.
        ImageFileError: if the file is empty, cut off, damaged, not an image, or of a kind not supported.
        MissingExtraError: if Pillow is not installed: ``pip install 'kornia_lift[cli]'``.

    """
    return load_image_and_orientation(path, gray=gray, apply_exif=apply_exif)[0]


def load_image_and_orientation(
    path: str | os.PathLike[str], *, gray: bool = False, apply_exif: bool = True
) -> tuple[Tensor, int]:
    """Read an image file as :func:`load_image` does, and its orientation tag, 1 (as stored, or no valid tag) to 8."""
    path = Path(path)
    if path.is_dir() or not path.exists():
        what = "is a folder, expected an image file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}")
    require("PIL.Image", extra="cli")
    try:
        return decode(path, gray=gray, apply_exif=apply_exif)
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error for a damaged file
        reason = str(error).replace(str(path), path.name).replace("\n", " ") or type(error).__name__
        tool = OTHER_SUFFIXES.get(path.suffix.lower())
        hint = f"; convert it to JPEG or PNG, for example with {tool}" if tool else ""
        raise ImageFileError(f"cannot read {path} as an image: {reason}{hint}") from error


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files below a folder, by suffix, in sorted order; hidden files and folders are left out.

    Links to folders are followed, but not in circles. A link to a missing file is listed; reading it raises the error.

    Raises:
        NotADirectoryError: if ``folder`` is not a folder.
        PermissionError: if a folder below it cannot be read.
    """
    return [path for path in _files(folder) if path.suffix.lower() in IMAGE_SUFFIXES]


def list_unread_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the files below a folder that are images, by suffix, which :func:`list_images` leaves out: HEIC, raw, ...

    Raises:
        NotADirectoryError: if ``folder`` is not a folder.
        PermissionError: if a folder below it cannot be read.
    """
    return [path for path in _files(folder) if path.suffix.lower() in OTHER_SUFFIXES]


def describe_unread(paths: Sequence[Path]) -> str:
    """Return one line that says which images are left out and how to convert them; empty if there are none."""
    if not paths:
        return ""
    counts = Counter(path.suffix.lower() for path in paths)
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    tools = sorted({OTHER_SUFFIXES[suffix] for suffix in counts})
    return f"left out {kinds} ({paths[0].name}{', ...' if len(paths) > 1 else ''}): convert with {' or '.join(tools)}"


def _files(folder: str | os.PathLike[str]) -> list[Path]:
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    return sorted(_files_below(root, frozenset()))


def _files_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    this = status.st_dev, status.st_ino
    if this in above:
        return  # a link back to a folder that we are in
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _files_below(path, above | {this})
        else:
            yield path
