"""Image files of every common kind to pixels in [0, 1].

What a pixel value means depends on the file: how many bits are used, whether 0 is black or white, whether the last
channel is transparency, which way is up. Pillow answers most of it; what it leaves open is answered here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io.reading import check_regular
from kornia_lift._io.stored import (
    EXTRA_SAMPLES,
    HEIGHT,
    ORIENTATION,
    PHOTOMETRIC,
    WIDTH,
    Stored,
    check_size,
    first_of,
    integers,
    rotated,
    to_tensor,
    white_of,
)
from kornia_lift._io.tiff import beyond_pillow, is_tiff, read_tiff, tiff_header

_YCBCR = 6  # a photometric interpretation
_log = logging.getLogger(__name__)
_limit = threading.Lock()


def decode(path: Path, *, gray: bool, apply_exif: bool) -> tuple[Tensor, int]:
    """Read a file.

    Args:
        path: the file.
        gray: reduce colours to one channel.
        apply_exif: rotate as the orientation tag says.

    Returns:
        float32 tensor (1, 1 or 3, H, W) in [0, 1], transparent pixels blended with white; and the orientation tag, 1
        to 8.

    Raises:
        Exception: of any type, if the file is damaged: there are many decoders.

    """
    stored, orientation = _read(path)
    return to_tensor(rotated(stored, orientation) if apply_exif else stored, gray), orientation


def _read(path: Path) -> tuple[Stored, int]:
    """Return the pixels of a file, and its orientation tag, 1 to 8."""
    unknown = require("PIL", extra="cli").UnidentifiedImageError
    try:
        with opened(path) as image:
            tags = dict(image.tag_v2) if image.format == "TIFF" else {}
            if image.format != "TIFF" or not beyond_pillow(image, tags):
                return _from_image(image, tags, path)
    except unknown as error:
        if not is_tiff(path):
            raise ValueError("it is damaged, or no image of a known kind") from error
    return read_tiff(path)


def _from_image(image: Any, tags: dict[int, Any], path: Path) -> tuple[Stored, int]:
    frames = _frames(image)
    # MPO: JPEGs of cameras and phones with a second image (preview, depth, gain map) behind the first
    if frames > 1 and image.format != "MPO":
        _log.warning("%s holds %d images: the first one is read", path, frames)
    raw_mode = _raw_mode(image)  # before the tags, for which Pillow may load the pixels
    orientation = _orientation(image)
    if not _is_deep_colour(image, raw_mode):
        key = image.info.get("transparency")
        if image.format == "PNG" and isinstance(key, int) and image.mode != "P":
            return _gray_with_key(image, key, {"1": 1, "L;2": 2, "L;4": 4, "I;16B": 16}.get(raw_mode, 8)), orientation
        _check_bytes_per_pixel(image, tags)
        image.load()
        return _from_pillow(image, tags, path), orientation
    stored = _deep_colour(path, tags, gray_alpha=raw_mode.startswith("LA"))
    if image.format == "TIFF":  # OpenCV has applied the tag
        stored = rotated(stored, {6: 8, 8: 6}.get(orientation, orientation))
    return stored, orientation


def header(path: Path) -> tuple[int, int, int]:
    """Read width and height of a file as they are stored, and its orientation tag, 1 to 8.

    Pixels are read only of a PNG file, where the tag may come after them.

    Raises:
        Exception: of any type, if the file is damaged.

    """
    unknown = require("PIL", extra="cli").UnidentifiedImageError
    try:
        with opened(path) as image:
            if image.format == "PNG" and "exif" not in image.info:
                image.load()  # now, so that a truncated file is an error
            width, height = image.size
            if image.format == "TIFF":  # Pillow 13 gives the size after rotation, older releases the one before
                width, height = (image.tag_v2[tag] for tag in (WIDTH, HEIGHT))
            return int(width), int(height), _orientation(image)
    except unknown:
        if not is_tiff(path):
            raise
    return tiff_header(path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an image file with Pillow, which reads its header but not its pixels.

    Raises:
        DamagedFileError: if it is not a regular file.
        ValueError: if it has implausibly many pixels for the size of the file.
        Exception: of any type, if the file is damaged.
    """
    pillow = require("PIL.Image", extra="cli")
    check_regular(path)
    # as an open file: Pillow would map a file that it opens itself into memory, with a wrong size if it is rotated
    with path.open("rb") as file, _opened(pillow, file) as image:
        # before Pillow loads the pixels of some files for their tags
        check_size(image.width, image.height, len(image.getbands()), path)
        yield image


def _opened(pillow: Any, file: BinaryIO) -> Any:
    """Open an image of any size.

    Pillow refuses large ones, since they may be an attack on a server; here the files are the user's own, and
    ``MAX_PIXELS`` is the limit.
    """
    with _limit:
        before = pillow.MAX_IMAGE_PIXELS
        pillow.MAX_IMAGE_PIXELS = None
        try:
            return pillow.open(file)
        finally:
            pillow.MAX_IMAGE_PIXELS = before


def _frames(image: Any) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged second page does not concern the first
        return 1


def _orientation(image: Any) -> int:
    """Return the orientation tag, 1 to 8, and remove all tags from the opened file.

    Pillow rotates a TIFF while it loads, and fails on broken tags that are not needed.
    """
    try:
        exif = image.getexif()
        value = exif.get(ORIENTATION, 1)
        exif.clear()
    except Exception:  # broken tags raise anything; the pixels may still be fine
        return 1
    return value if value in range(1, 9) else 1


def _check_bytes_per_pixel(image: Any, tags: dict[int, Any]) -> None:
    """Refuse uncompressed YCbCr where Pillow (before 13) would read its pixels of three bytes as four bytes each."""
    if first_of(tags.get(PHOTOMETRIC), 1) != _YCBCR or not image.tile:
        return
    codec, arguments = image.tile[0][0], image.tile[0][3]
    if codec == "raw" and arguments[0] == "RGBX":
        raise ValueError("uncompressed YCbCr needs Pillow 13 or newer: update it, or convert the image to RGB")


def _raw_mode(image: Any) -> str:
    """Return Pillow's name for how the file stores its pixels."""
    if not image.tile:
        return ""
    arguments = image.tile[0][3]
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _is_deep_colour(image: Any, raw_mode: str) -> bool:
    """Return whether a file has colour, or gray with opacity, in 16 bits, which Pillow would cut to 8.

    ``BGR;16`` is none of these: its colours have 5 or 6 bits.
    """
    return image.mode in ("RGB", "RGBA", "LA") and raw_mode.startswith(("RGB", "LA")) and ";16" in raw_mode


def _deep_colour(path: Path, tags: dict[int, Any], *, gray_alpha: bool) -> Stored:
    cv2 = require("cv2", extra="cli")
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("16-bit colour that OpenCV does not decode; convert it to 8 bits")
    channels = values.shape[2]
    values = values[..., [1, 3] if gray_alpha else [2, 1, 0, 3][:channels]]  # OpenCV orders blue, green, red
    meaning = first_of(tags.get(EXTRA_SAMPLES), 2)
    if channels == 4 and meaning == 0:  # unspecified: infrared, depth, padding, but not opacity
        values, channels = values[..., :3], 3
    alpha = channels == 4
    colours = values[..., :-1] if alpha else values
    # opacity of less than 16 bits would come with colours of less
    return Stored(values, white_of(colours, tags, path), alpha, premultiplied=alpha and meaning == 1)


def _from_pillow(image: Any, tags: dict[int, Any], path: Path) -> Stored:
    mode = image.mode
    white_is_zero = first_of(tags.get(PHOTOMETRIC), 1) == 0
    if mode.startswith("I"):  # I;16 from gray PNG and TIFF; I where a reader widened it
        values = np.asarray(image.copy())[..., None]  # a TIFF has the size of the rotated image until it is copied
        return Stored(*integers(values, tags, path), inverted=white_is_zero)
    if mode == "F":
        real = np.asarray(image.copy())[..., None]
        if not np.isfinite(real).all() or real.min() < 0 or real.max() > 1:
            raise ValueError("floating-point pixels must lie in [0, 1]")
        return Stored(real, 1.0, inverted=white_is_zero)
    if mode in ("1", "L", "LA", "La"):
        alpha = mode in ("LA", "La") or "transparency" in image.info
        values = np.asarray(image.convert("LA" if alpha else "L"))
        return Stored(values if alpha else values[..., None], 255, alpha)
    if mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return Stored(np.asarray(image.convert("RGBA")), 255, alpha=True)
    if mode == "LAB":
        cms = require("PIL.ImageCms", extra="cli")
        image = cms.profileToProfile(image, cms.createProfile("LAB"), cms.createProfile("sRGB"), outputMode="RGB")
    return Stored(np.asarray(image.convert("RGB")), 255)


def _gray_with_key(image: Any, key: int, bits: int) -> Stored:
    """Read a gray PNG in which one value, of ``bits`` bits, means transparent: Pillow supports only 8 bits there."""
    values = np.asarray(image.convert("L") if image.mode == "1" else image.copy())
    top = 65535 if bits == 16 else 255
    opacity = np.where(values == key * (top // (2**bits - 1)), 0, top).astype(values.dtype)
    return Stored(np.stack([values, opacity], -1), top, alpha=True)
