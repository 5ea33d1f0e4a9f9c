"""Read with tifffile what Pillow cannot, or reads wrongly: separate bands, several bands or floats of any depth."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift._io.reading import check_regular
from kornia_lift._io.stored import (
    BITS,
    EXTRA_SAMPLES,
    ORIENTATION,
    PLANES,
    SAMPLE_FORMAT,
    Stored,
    check_size,
    first_of,
    integers,
)

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_INVERTED, _GRAY, _RGB = 0, 1, 2  # photometric interpretations
_UNSIGNED, _SIGNED = 1, 2  # formats of a value; 3 are floats
_UNSPECIFIED, _PREMULTIPLIED, _ALPHA = 0, 1, 2  # meaning of a band beyond the colours
_log = logging.getLogger(__name__)


def is_tiff(path: Path) -> bool:
    """Return whether a file begins like a TIFF."""
    check_regular(path)
    with path.open("rb") as file:
        return file.read(4) in _MAGIC


def beyond_pillow(image: Any, tags: dict[int, Any]) -> bool:
    """Return whether Pillow or OpenCV would give wrong pixels of this TIFF, opened by Pillow.

    They mix up bands that are stored separately, unless these are 8-bit colours; read signed 8-bit values as unsigned;
    and may leave the bytes of floats and signed integers in the order of the file.
    """
    bits, bands = first_of(tags.get(BITS), 1), len(image.getbands())
    apart = bands > 1 and first_of(tags.get(PLANES), 1) == 2
    kind, swapped = first_of(tags.get(SAMPLE_FORMAT), _UNSIGNED), image.tag_v2.prefix == b"MM"
    return (apart and (bits > 8 or bands == 2)) or (kind == _SIGNED and bits == 8) or (kind != _UNSIGNED and swapped)


def read_tiff(path: Path) -> tuple[Stored, int]:
    """Read the first page of a TIFF.

    Returns:
        Its pixels, not rotated, and the orientation tag, 1 to 8.

    Raises:
        MissingExtraError: if tifffile is not installed.
        Exception: of any type, if the file is damaged, or compressed in a way for which tifffile needs another package.

    """
    with _first_page(path) as (page, pages):
        if pages > 1:
            _log.warning("%s holds %d images: the first one is read", path, pages)
        values = page.asarray()
        if page.axes != "YXS":
            values = values[..., None] if page.axes == "YX" else np.moveaxis(values, 0, -1)
        tags = {tag.code: tag.value for tag in page.tags}
        return _stored(values, int(page.photometric), tags, path), _orientation(tags)


def tiff_header(path: Path) -> tuple[int, int, int]:
    """Return width, height and orientation tag of the first page of a TIFF that :func:`read_tiff` reads.

    Raises:
        MissingExtraError: if tifffile is not installed.
        Exception: of any type, if the file is damaged.

    """
    with _first_page(path) as (page, _):
        tags = {tag.code: tag.value for tag in page.tags if tag.code == ORIENTATION}
        return int(page.imagewidth), int(page.imagelength), _orientation(tags)


@contextmanager
def _first_page(path: Path) -> Iterator[tuple[Any, int]]:
    """Open a TIFF and yield its first page, which holds one image of a known kind, and the number of pages."""
    tifffile = require("tifffile", extra="cli")
    with path.open("rb") as file, tifffile.TiffFile(file) as tif:
        page = tif.pages[0]
        if page.axes not in ("YX", "YXS", "SYX"):
            raise ValueError(f"its pixels are arranged as {page.axes}, expected the rows and columns of one image")
        if page.photometric not in (_INVERTED, _GRAY, _RGB):
            raise ValueError(f"{page.photometric.name} in {page.bitspersample} bits; convert it to RGB")
        check_size(page.imagewidth, page.imagelength, page.samplesperpixel, path)
        yield page, len(tif.pages)


def _orientation(tags: dict[int, Any]) -> int:
    value = first_of(tags.get(ORIENTATION), 1)
    return value if value in range(1, 9) else 1


def _stored(values: NDArray[Any], photometric: int, tags: dict[int, Any], path: Path) -> Stored:
    colours = 3 if photometric == _RGB else 1
    if values.shape[2] < colours:
        raise ValueError(f"{values.shape[2]} bands, expected red, green and blue")
    meaning = first_of(tags.get(EXTRA_SAMPLES), _ALPHA if photometric == _RGB else _UNSPECIFIED)
    alpha = values.shape[2] > colours and meaning in (_PREMULTIPLIED, _ALPHA)
    values = values[..., : colours + alpha]
    top = _white(values[..., :colours], tags, path)
    if values.dtype.kind == "i":
        values = values.astype(values.dtype.str.replace("i", "u"))  # none is negative
    return Stored(values, top, alpha, alpha and meaning == _PREMULTIPLIED, photometric == _INVERTED)


def _white(colours: NDArray[Any], tags: dict[int, Any], path: Path) -> float:
    if colours.dtype.kind != "f":
        return integers(colours, tags, path)[1]
    if not np.isfinite(colours).all() or colours.min() < 0 or colours.max() > 1:
        raise ValueError("floating-point pixels must lie in [0, 1]")
    return 1.0
