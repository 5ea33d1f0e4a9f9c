"""Image files of every common kind to pixels in [0, 1].

What a pixel value means depends on the file: how many bits are used, whether 0 is black or white, whether the last
channel is transparency, which way is up. Pillow answers most of it; what it leaves open is answered here.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from numpy.typing import NDArray
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io.reading import check_regular

MAX_PIXELS = 2**30
#: Values (pixels times channels) that a file of any size may hold, and how many more for each of its bytes: an image of
#: one colour may be compressed a thousand times, a real one is not.
FREE_VALUES, VALUES_PER_BYTE = 2**27, 256
_DEPTHS = (8, 10, 12, 14)  # bits that cameras and scanners leave in 16-bit files
_STRIP = 256  # rows converted at once
_ORIENTATION, _PHOTOMETRIC, _BITS, _MAX_SAMPLE, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 274, 262, 258, 281, 338, 339
_YCBCR = 6  # photometric interpretation
_log = logging.getLogger(__name__)
_limit = threading.Lock()


@dataclass(frozen=True)
class _Stored:
    """Pixels as a file holds them.

    Attributes:
        values: shape (H, W, C).
        top: the value of white.
        alpha: the last channel is opacity.
        premultiplied: the colours are multiplied by the opacity already.
        inverted: 0 is white.
    """

    values: NDArray[Any]
    top: float
    alpha: bool = False
    premultiplied: bool = False
    inverted: bool = False


def decode(path: Path, *, gray: bool, apply_exif: bool) -> Tensor:
    """Read a file.

    Args:
        path: the file.
        gray: reduce colours to one channel.
        apply_exif: rotate as the orientation tag says.

    Returns:
        float32 tensor (1, 1 or 3, H, W) in [0, 1]; transparent pixels are blended with white.

    Raises:
        Exception: anything, if the file is damaged; the decoders are many.

    """
    with opened(path) as image:
        frames = _frames(image)
        # MPO: JPEGs of cameras and phones with a second image (preview, depth, gain map) behind the first
        if frames > 1 and image.format != "MPO":
            _log.warning("%s holds %d images: the first one is read", path, frames)
        tags = dict(image.tag_v2) if image.format == "TIFF" else {}
        raw_mode = _deep_colour_mode(image)  # before the tags, for which Pillow may load the pixels
        orientation = _orientation(image)
        if raw_mode:
            stored = _deep_colour(path, tags, gray_alpha=raw_mode.startswith("LA"))
            if image.format == "TIFF":  # OpenCV has applied the tag
                stored = _rotated(stored, {6: 8, 8: 6}.get(orientation, orientation))
        else:
            _check_bytes_per_pixel(image, tags)
            image.load()
            stored = _from_pillow(image, tags, path)
    return _to_tensor(_rotated(stored, orientation) if apply_exif else stored, gray)


def orientation_of(path: Path) -> int:
    """Return the orientation tag of a file, 1 to 8, without reading its pixels; 1 for a file that is not an image."""
    try:
        with opened(path) as image:
            return _orientation(image)
    except (MemoryError, ImportError):
        raise
    except Exception:  # reading the pixels will say what is wrong
        return 1


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an image file by Pillow: its header is read, its pixels are not.

    Raises:
        DamagedFileError: if it is no regular file.
        ValueError: if its pixels take more memory than a file of its size deserves.
        Exception: anything, if the file is damaged.
    """
    pillow = require("PIL.Image", extra="cli")
    check_regular(path)
    # an open file, since Pillow maps files that it opens itself into memory, with a wrong size if they are rotated
    with path.open("rb") as file, _opened(pillow, file) as image:
        _check_values(image, path)  # here, since Pillow loads the pixels of some files for their tags
        yield image


def _check_values(image: Any, path: Path) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS} are read: reduce it first")
    values = image.width * image.height * len(image.getbands())
    if values > FREE_VALUES + VALUES_PER_BYTE * path.stat().st_size:
        raise ValueError(
            f"{image.width} x {image.height} pixels in {path.stat().st_size} bytes: reduce it, or compress it less"
        )


def _opened(pillow: Any, file: BinaryIO) -> Any:
    """Open an image of any size.

    Pillow refuses large ones, since they may be an attack on a server; here the files are the user's own, and
    ``MAX_PIXELS`` holds.
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
        value = exif.get(_ORIENTATION, 1)
        exif.clear()
    except Exception:  # broken tags raise anything; the pixels may still be fine
        return 1
    return value if value in range(1, 9) else 1


def _check_bytes_per_pixel(image: Any, tags: dict[int, Any]) -> None:
    """Refuse YCbCr without compression where Pillow (before 13) takes its pixels of three bytes for ones of four."""
    if _first(tags.get(_PHOTOMETRIC), 1) != _YCBCR or not image.tile:
        return
    codec, arguments = image.tile[0][0], image.tile[0][3]
    if codec == "raw" and arguments[0] == "RGBX":
        raise ValueError("YCbCr without compression is read by Pillow from version 13 on: update it, or convert to RGB")


def _deep_colour_mode(image: Any) -> str:
    """Return how the file stores colour, or gray with opacity, in 16 bits, which Pillow would cut to 8; else ""."""
    if image.mode not in ("RGB", "RGBA", "LA") or not image.tile:
        return ""
    arguments = image.tile[0][3]
    mode = str(arguments[0] if isinstance(arguments, tuple) else arguments)
    return mode if ";16" in mode else ""


def _deep_colour(path: Path, tags: dict[int, Any], *, gray_alpha: bool) -> _Stored:
    cv2 = require("cv2", extra="cli")
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3:
        raise ValueError("16-bit colour that OpenCV does not decode; convert it to 8 bits")
    channels = values.shape[2]
    values = values[..., [1, 3] if gray_alpha else [2, 1, 0, 3][:channels]]  # OpenCV orders blue, green, red
    meaning = _first(tags.get(_EXTRA_SAMPLES), 2)
    if channels == 4 and meaning == 0:  # unspecified: infrared, depth, padding, but not opacity
        values, channels = values[..., :3], 3
    alpha = channels == 4
    colours = values[..., :-1] if alpha else values
    # opacity of less than 16 bits would come with colours of less
    return _Stored(values, _white(colours, tags, path), alpha, premultiplied=alpha and meaning == 1)


def _from_pillow(image: Any, tags: dict[int, Any], path: Path) -> _Stored:
    mode = image.mode
    white_is_zero = _first(tags.get(_PHOTOMETRIC), 1) == 0
    if mode.startswith("I"):  # I;16 from gray PNG and TIFF; I where a reader widened it
        values = np.asarray(image.copy())[..., None]  # a TIFF has the size of the rotated image until it is copied
        return _Stored(*_integers(values, tags, path), inverted=white_is_zero)
    if mode == "F":
        real = np.asarray(image.copy())[..., None]
        if not np.isfinite(real).all() or real.min() < 0 or real.max() > 1:
            raise ValueError("floating-point pixels must lie in [0, 1]")
        return _Stored(real, 1.0, inverted=white_is_zero)
    if mode in ("1", "L", "LA", "La"):
        alpha = mode in ("LA", "La") or "transparency" in image.info
        values = np.asarray(image.convert("LA" if alpha else "L"))
        return _Stored(values if alpha else values[..., None], 255, alpha)
    if mode in ("RGBA", "RGBa", "PA") or "transparency" in image.info:
        return _Stored(np.asarray(image.convert("RGBA")), 255, alpha=True)
    if mode == "LAB":
        cms = require("PIL.ImageCms", extra="cli")
        image = cms.profileToProfile(image, cms.createProfile("LAB"), cms.createProfile("sRGB"), outputMode="RGB")
    return _Stored(np.asarray(image.convert("RGB")), 255)


def _integers(values: NDArray[Any], tags: dict[int, Any], path: Path) -> tuple[NDArray[Any], float]:
    """Return gray values of more than 8 bits, and which of them is white."""
    bits, kind = _first(tags.get(_BITS), 16), _first(tags.get(_SAMPLE_FORMAT), 1)
    if bits == 32 and kind == 1:
        values = values.view(np.uint32)  # Pillow's own integers have a sign
    if values.size and values.min() < 0:
        raise ValueError(f"gray values from {values.min()}, expected none below 0")
    if bits < 16:
        return values, 2.0**bits - 1
    if bits == 32 and values.max(initial=0) > 65535:
        return values, 2.0 ** (32 if kind == 1 else 31) - 1
    white = _white(values, tags, path)
    if kind == 2 and bits == 16:
        white = min(white, 32767.0)
    if values.max(initial=0) > white:
        raise ValueError(f"gray values up to {values.max()}, expected 8 or 16 bits")
    return values, white


def _white(values: NDArray[Any], tags: dict[int, Any], path: Path) -> float:
    """Return which value of 16 bits is white: files from cameras and scanners may use 10, 12 or 14 of them."""
    largest = int(values.max(initial=0))
    declared = tags.get(_MAX_SAMPLE)
    if declared is not None:
        bits = int(max(declared) if isinstance(declared, tuple) else declared).bit_length()
        if 8 <= bits < 16 and largest < 2**bits:
            return 2.0**bits - 1
        if bits == 16:
            return 65535.0
    for bits in _DEPTHS:
        if 0 < largest < 2**bits:
            _log.warning("%s uses %d of its 16 bits: its white is taken to be %d", path, bits, 2**bits - 1)
            return 2.0**bits - 1
    return 65535.0


def _first(value: Any, default: int) -> int:
    """Return the number, or the first of several, of a TIFF tag."""
    if value is None:
        return default
    return int(value[0]) if isinstance(value, tuple) else int(value)


def _rotated(stored: _Stored, orientation: int) -> _Stored:
    """Apply an EXIF orientation (1 to 8)."""
    values = stored.values
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return replace(stored, values=values)


def _to_tensor(stored: _Stored, gray: bool) -> Tensor:
    """Convert strip by strip: a large image exists once as stored, and once as float."""
    height, width, channels = stored.values.shape
    colours = channels - stored.alpha
    out = torch.empty(1, 1 if gray else colours, height, width)
    for top in range(0, height, _STRIP):
        part = stored.values[top : top + _STRIP].astype(np.float32) / np.float32(stored.top)
        if stored.inverted:
            part = 1 - part
        if stored.alpha:
            opacity = part[..., -1:]
            part = part[..., :-1] * (1 if stored.premultiplied else opacity) + (1 - opacity)
        strip = torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1)[None]
        out[:, :, top : top + _STRIP] = rgb_to_grayscale(strip) if gray and colours == 3 else strip
    return out
