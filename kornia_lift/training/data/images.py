"""Find and read training images, 8-bit gray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._gray import as_gray, to_bytes
from kornia_lift._io import IMAGE_SUFFIXES, load_image


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly inside ``folder``, sorted by name, without hidden files."""
    return sorted(p for p in folder.iterdir() if _is_image(p))


def images_below(folder: Path) -> list[Path]:
    """Return the image files in ``folder`` and its sub-folders, sorted by name."""
    return sorted(p for p in folder.rglob("*") if _is_image(p))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def read_gray(path: Path, max_size: int | None = None, *, apply_exif: bool = False) -> Tensor:
    """Read an image as 8-bit gray.

    Args:
        path: the file, of any kind that :func:`~kornia_lift.load_image` reads.
        max_size: an image whose larger side exceeds this, in pixels, is scaled down to it.
        apply_exif: rotate as the orientation tag says; COLMAP's models refer to the stored pixels.

    Returns:
        uint8 tensor of shape (H, W).

    Raises:
        FileNotFoundError: if there is no such file.
        ImageFileError: if the file cannot be decoded to its end.

    """
    image = to_gray(load_image(path, gray=True, apply_exif=apply_exif))
    return image if max_size is None else scale_down(image, max_size)


def scale_down(image: Tensor, max_size: int) -> Tensor:
    """Scale an 8-bit gray image (H, W) down to a larger side of ``max_size`` pixels; smaller ones stay as they are."""
    if max(image.shape) <= max_size:
        return image
    cv2, factor = require("cv2", extra="train"), max_size / max(image.shape)
    along_y, along_x = (max(factor, 1 / side) for side in image.shape)  # a pixel of the shorter side is left at least
    return torch.from_numpy(cv2.resize(image.numpy(), None, fx=along_x, fy=along_y, interpolation=cv2.INTER_AREA))


def to_gray(image: Tensor) -> Tensor:
    """Convert an image (1, 1 or 3, H, W) in [0, 1] to 8-bit gray (H, W)."""
    return to_bytes(as_gray(image))[0, 0]


def to_float(image: Tensor) -> Tensor:
    """Convert an 8-bit gray image (H, W) to a float batch (1, 1, H, W) in [0, 1]."""
    return image[None, None].float() / 255


def encode_jpeg(image: Tensor | np.ndarray, quality: int = 88) -> bytes:
    """Compress an 8-bit gray image (H, W)."""
    cv2 = require("cv2", extra="train")
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    content: bytes = cv2.imencode(".jpg", np.asarray(image), options)[1].tobytes()
    return content
