"""Files in and out: photographs to tensors, and writing that leaves either the whole file or none."""

from __future__ import annotations

import errno
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require

#: Suffixes that :func:`list_images` takes for photographs, lower case.
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_EXIF_ORIENTATION = 0x0112
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class ImageFileError(ValueError):
    """A file that is there but cannot be read as an image."""


def load_image(path: str | os.PathLike[str], *, gray: bool = False, apply_exif: bool = True) -> Tensor:
    """Read a photograph.

    JPEG, PNG, TIFF, WebP, BMP and PNM, with 8 or 16 bits, gray, colour or palette. Transparent pixels show white
    behind them, as in a picture viewer. Of a JPEG with embedded further images (MPO), the photograph itself is read.

    Args:
        path: the file.
        gray: return one channel; colour is reduced by ``kornia.color.rgb_to_grayscale``.
        apply_exif: turn the image as its EXIF tag says, as viewers do. COLMAP works on the stored pixels: give
            ``False`` where coordinates must agree with it.

    Returns:
        float32 tensor of shape (1, C, H, W) with values in [0, 1]; C is 1 for gray files or with ``gray``, else 3.

    Raises:
        FileNotFoundError: if there is no such file.
        ImageFileError: if the file is empty, cut off, damaged, not an image, or of a kind not supported.
        MissingExtraError: if Pillow is not installed.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder, expected an image file" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}")
    require("PIL.Image", extra="cli")
    try:
        pixels = _decode(path, apply_exif)
    except (MemoryError, ImportError, ImageFileError):
        raise
    except Exception as error:  # decoders raise anything from SyntaxError to struct.error for a damaged file
        reason = str(error).replace(str(path), path.name).replace("\n", " ") or type(error).__name__
        raise ImageFileError(f"cannot read {path} as an image: {reason}") from error
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].contiguous()  # (1, C, H, W)
    return rgb_to_grayscale(image) if gray and image.shape[1] == 3 else image


def exif_orientation(path: str | os.PathLike[str]) -> int:
    """Return the EXIF orientation of an image file, 1 (as stored) to 8; 1 where there is no valid tag."""
    try:
        with require("PIL.Image", extra="cli").open(path) as image:
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except (MemoryError, ImportError):
        raise
    except Exception:  # decoders raise anything for a damaged tag; what viewers cannot read, they ignore
        return 1
    return orientation if orientation in range(1, 9) else 1


def _decode(path: Path, apply_exif: bool) -> NDArray[np.float32]:
    """Pixels in [0, 1], shape (H, W, 1 or 3)."""
    pillow, ops = require("PIL.Image", extra="cli"), require("PIL.ImageOps", extra="cli")
    with pillow.open(path) as image:
        # MPO: JPEGs of cameras and phones with a second image (preview, depth, gain map) behind the photograph
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise ImageFileError(f"cannot read {path} as an image: it holds {image.n_frames} frames, expected one")
        if _is_deep_colour(image):
            pixels = _decode_deep_colour(path)
            return _turn(pixels, image.getexif().get(_EXIF_ORIENTATION, 1)) if apply_exif else pixels
        image.load()
        if apply_exif:
            image = ops.exif_transpose(image)
        return _pixels(image)


def _pixels(image: Any) -> NDArray[np.float32]:
    """A Pillow image of any mode as pixels in [0, 1], shape (H, W, 1 or 3)."""
    mode = image.mode
    if mode.startswith("I"):  # I;16 from gray PNG and TIFF; I where a reader widened it
        deep = np.asarray(image).astype(np.float32)[..., None]
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError(f"gray values from {deep.min():.0f} to {deep.max():.0f}, expected 8 or 16 bits")
        return deep / np.float32(65535)
    if mode == "F":
        real = np.array(image, dtype=np.float32)[..., None]
        if not np.isfinite(real).all() or real.min() < 0 or real.max() > 1:
            raise ValueError("floating-point pixels must lie in [0, 1]")
        return real
    if mode in ("1", "L"):
        return np.asarray(image.convert("L"), dtype=np.float32)[..., None] / np.float32(255)
    if mode in ("LA", "La"):
        gray_alpha = np.asarray(image.convert("LA"), dtype=np.float32) / np.float32(255)
        return _over_white(gray_alpha)
    if mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _over_white(np.asarray(image.convert("RGBA"), dtype=np.float32) / np.float32(255))
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)


def _over_white(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    alpha = pixels[..., -1:]
    return pixels[..., :-1] * alpha + (1 - alpha)


def _is_deep_colour(image: Any) -> bool:
    """Whether the file stores colour with 16 bits, which Pillow would cut to 8."""
    return image.mode in ("RGB", "RGBA") and any(";16" in str(tile[3]) for tile in image.tile)


def _decode_deep_colour(path: Path) -> NDArray[np.float32]:
    cv2 = require("cv2", extra="cli")
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16 or stored.ndim != 3:
        raise ValueError("16-bit colour that OpenCV does not decode; convert it to 8 bits")
    pixels = stored.astype(np.float32) / np.float32(65535)
    pixels[..., :3] = pixels[..., 2::-1].copy()  # OpenCV orders blue, green, red
    return _over_white(pixels) if pixels.shape[2] == 4 else pixels


def _turn(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Apply an EXIF orientation (1 to 8) to stored pixels; Pillow does this only for its own images."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Return the image files below a folder, by suffix, in sorted order; hidden files and folders are left out.

    Links to folders are followed, but not in circles. A link to a missing file is listed: reading it tells.

    Raises:
        NotADirectoryError: if ``folder`` is not a folder.
        PermissionError: if a folder below it cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is not a folder")
    return sorted(_images_below(root, frozenset()))


def _images_below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    this = status.st_dev, status.st_ino
    if this in above:
        return  # a link back to a folder that we are in
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _images_below(path, above | {this})
        elif path.suffix.lower() in IMAGE_SUFFIXES:
            yield path


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try to make a file in the folder of ``path``, so that long work need not end without a place for its result.

    Raises:
        OSError: if that is not possible; the message names ``path`` and the reason.
    """
    folder = Path(path).parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror} (folder {folder})") from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; renamed to ``path`` at success, removed at an error.

    The temporary name keeps the suffix, since many writers choose the format by it.

    Example:
        >>> with atomic_write("matches.json") as tmp:  # doctest: +SKIP
        ...     tmp.write_text("{}")

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if ``path`` is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, expected a file name")
    # 50 characters have at most 200 bytes: the temporary name is allowed wherever that of the file is
    temporary = path.with_name(f".{path.stem[:50]}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        ours = error.filename is not None and os.fspath(error.filename) == str(temporary)
        if not ours and error.errno not in _DISK_ERRORS:  # writing into an open file names none
            raise
        raise type(error)(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        temporary.unlink(missing_ok=True)
