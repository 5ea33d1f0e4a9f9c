"""What the pixels of an image file mean: which value is white, what the last channel is, which way is up."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kornia.color import rgb_to_grayscale
from numpy.typing import NDArray
from torch import Tensor

#: TIFF tags.
WIDTH, HEIGHT, ORIENTATION = 256, 257, 274
BITS, PHOTOMETRIC, MAX_SAMPLE, PLANES, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 281, 284, 338, 339
MAX_PIXELS = 2**30
#: Number of values (pixels times channels) that any file may hold, and how many more for each of its bytes: an image of
#: a single colour may be compressed to a thousandth, a real one may not.
FREE_VALUES, VALUES_PER_BYTE = 2**27, 256
_DEPTHS = (8, 10, 12, 14)  # bits that cameras and scanners leave in 16-bit files
_STRIP = 256  # rows converted at once
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stored:
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


def check_size(width: int, height: int, channels: int, path: Path) -> None:
    """Check that an image does not have implausibly many pixels for the size of its file.

    Raises:
        ValueError: if it does.

    """
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels, at most {MAX_PIXELS} are read: reduce it first")
    size = path.stat().st_size
    if width * height * channels > FREE_VALUES + VALUES_PER_BYTE * size:
        raise ValueError(f"{width} x {height} pixels in {size} bytes: reduce it, or compress it less")


def integers(values: NDArray[Any], tags: dict[int, Any], path: Path) -> tuple[NDArray[Any], float]:
    """Return gray values of more than 8 bits, and the value of white."""
    bits, kind = first_of(tags.get(BITS), 16), first_of(tags.get(SAMPLE_FORMAT), 1)
    if bits == 32 and kind == 1:
        values = values.view(np.uint32)  # Pillow's own integers have a sign
    if values.size and values.min() < 0:
        raise ValueError(f"gray values from {values.min()}, expected none below 0")
    if bits < 16:
        return values, 2.0 ** (bits - (kind == 2)) - 1
    if bits == 32 and values.max(initial=0) > 65535:
        return values, 2.0 ** (32 if kind == 1 else 31) - 1
    white = white_of(values, tags, path)
    if kind == 2 and bits == 16:
        white = min(white, 32767.0)
    if values.max(initial=0) > white:
        raise ValueError(f"gray values up to {values.max()}, expected 8 or 16 bits")
    return values, white


def white_of(values: NDArray[Any], tags: dict[int, Any], path: Path) -> float:
    """Return which value of 16 bits is white: files from cameras and scanners may use 10, 12 or 14 of them."""
    largest = int(values.max(initial=0))
    declared = tags.get(MAX_SAMPLE)
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


def first_of(value: Any, default: int) -> int:
    """Return the number, or the first of several, of a TIFF tag."""
    if value is None:
        return default
    return int(value[0]) if isinstance(value, tuple) else int(value)


def rotated(stored: Stored, orientation: int) -> Stored:
    """Apply an EXIF orientation (1 to 8)."""
    values = stored.values
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return replace(stored, values=values)


def to_tensor(stored: Stored, gray: bool) -> Tensor:
    """Convert to a tensor, strip by strip: a large image is in memory once as stored, and once as float."""
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
