"""Find and read the training photographs: folders, their split, gray images in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kornia_lift._extras import require

# the validation split that the data set declares; nothing of it may be trained on
VALIDATION_SCENES = frozenset({"cyprus_arches", "golden_statue", "reichstag", "street2"})
VALIDATION_PREFIXES = ("kodak", "pop-os")
VALIDATION_BRACKETS = frozenset({"living_room1"})
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class PhotoSources:
    """Paths of the photographs of one split, by kind of ground truth.

    Args:
        sfm: scene folders with ``images/`` and a COLMAP model in ``sparse/``.
        photos: single photographs.
        brackets: folders of photographs of one scene under several exposures, aligned to each other.
        posed: scene folders with ``cameras.npz``, ``images/`` and ``depth/``.

    """

    sfm: tuple[Path, ...]
    photos: tuple[Path, ...]
    brackets: tuple[Path, ...]
    posed: tuple[Path, ...] = ()


def find_sources(root: Path, validation: bool = False, posed: bool = False) -> PhotoSources:
    """List the photographs below ``root`` (layout ``sfm/``, ``photos/``, ``illumination/``, ``posed/``).

    Args:
        root: folder of the training data.
        validation: list the validation split instead of the training split.
        posed: list the posed scenes too; all of them belong to the training split.

    Raises:
        FileNotFoundError: if ``root`` holds none of the three folders.

    """
    if not any((root / kind).is_dir() for kind in ("sfm", "photos", "illumination")):
        raise FileNotFoundError(f"{root} holds none of the folders sfm/, photos/, illumination/")

    def folders(kind: str, held_out: frozenset[str]) -> tuple[Path, ...]:
        found = sorted(p for p in (root / kind).glob("*") if p.is_dir())
        return tuple(p for p in found if (p.name in held_out) == validation)

    photos = sorted(p for p in (root / "photos").glob("*") if p.suffix.lower() in _SUFFIXES)
    return PhotoSources(
        sfm=folders("sfm", VALIDATION_SCENES),
        photos=tuple(p for p in photos if p.name.startswith(VALIDATION_PREFIXES) == validation),
        brackets=folders("illumination", VALIDATION_BRACKETS),
        posed=folders("posed", frozenset()) if posed else (),
    )


def list_photos(folder: Path) -> list[Path]:
    """Return the photographs directly inside ``folder``, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES)


def check_whole(path: Path) -> None:
    """Raise ``ValueError`` for a photograph that cannot be read to its end: OpenCV fills what is cut off with gray."""
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            image.draft("L", (1, 1))  # JPEG: an eighth of the size, from all of the file
            image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read the photograph {path}: missing or damaged ({error}); remove it") from error


def read_gray(path: Path) -> Tensor:
    """Read a photograph as 8-bit gray, in stored pixels (EXIF rotation ignored, as COLMAP does).

    Returns:
        uint8 tensor of shape (H, W).

    Raises:
        ValueError: if the file cannot be decoded.

    """
    cv2 = require("cv2", extra="train")
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"cannot read the photograph {path}: missing or damaged")
    return torch.from_numpy(image)


def to_float(image: Tensor) -> Tensor:
    """Turn an 8-bit gray image (H, W) into a float batch (1, 1, H, W) in [0, 1]."""
    return image[None, None].float() / 255
