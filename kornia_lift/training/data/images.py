"""Find and read training images: 8-bit gray, in stored pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kornia_lift._decode import check_values, opened
from kornia_lift._extras import require
from kornia_lift._io import IMAGE_SUFFIXES


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly inside ``folder``, sorted by name, without hidden files."""
    return sorted(p for p in folder.iterdir() if _is_image(p))


def images_below(folder: Path) -> list[Path]:
    """Return the image files in ``folder`` and its sub-folders, sorted by name."""
    return sorted(p for p in folder.rglob("*") if _is_image(p))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def check_image_file(path: Path) -> None:
    """Check that an image file can be decoded to its end: OpenCV fills what is truncated with gray.

    Raises:
        ValueError: if it cannot.

    """
    try:
        with opened(path) as image:
            check_values(image, path)
            image.draft("L", (1, 1))  # JPEG: an eighth of the size, from all of the file
            image.load()
    except (MemoryError, ImportError):
        raise
    except Exception as error:  # decoders raise anything for damaged bytes
        raise ValueError(f"cannot read the image {path}: missing or damaged ({error}); remove it") from error


def read_gray(path: Path, max_size: int | None = None) -> Tensor:
    """Read an image as 8-bit gray, in stored pixels (EXIF rotation ignored, as COLMAP does).

    Args:
        path: the file.
        max_size: an image whose larger side exceeds this, in pixels, is scaled down to it.

    Returns:
        uint8 tensor of shape (H, W).

    Raises:
        ValueError: if the file cannot be decoded.

    """
    cv2 = require("cv2", extra="train")
    check_image_file(path)
    try:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # more pixels than OpenCV allows
        image = None
    if image is None:
        raise ValueError(f"OpenCV cannot read the image {path}; convert it to JPEG or PNG, or remove it")
    return torch.from_numpy(image) if max_size is None else scale_down(torch.from_numpy(image), max_size)


def scale_down(image: Tensor, max_size: int) -> Tensor:
    """Scale an 8-bit gray image (H, W) down to a larger side of ``max_size`` pixels; smaller ones stay as they are."""
    if max(image.shape) <= max_size:
        return image
    cv2, factor = require("cv2", extra="train"), max_size / max(image.shape)
    return torch.from_numpy(cv2.resize(image.numpy(), None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))


def to_gray(image: Tensor) -> Tensor:
    """Convert an image (1, 1 or 3, H, W) in [0, 1] to 8-bit gray (H, W), with OpenCV's weights."""
    if image.shape[1] == 3:
        image = (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=1, keepdim=True)
    return (image[0, 0] * 255).round().clamp(0, 255).to(torch.uint8)


def to_float(image: Tensor) -> Tensor:
    """Convert an 8-bit gray image (H, W) to a float batch (1, 1, H, W) in [0, 1]."""
    return image[None, None].float() / 255


def encode_jpeg(image: Tensor | np.ndarray, quality: int = 88) -> bytes:
    """Compress an 8-bit gray image (H, W)."""
    cv2 = require("cv2", extra="train")
    return cv2.imencode(".jpg", np.asarray(image), [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])[
        1
    ].tobytes()
