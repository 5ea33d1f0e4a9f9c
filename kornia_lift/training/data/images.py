"""Find and read the training photographs: folders, their split, gray images in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kornia_lift._extras import require

LAYOUT = ("sfm", "photos", "illumination")
_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class ScenePart:
    """Some photographs and points of a reconstructed scene, whose others belong to the other split.

    Args:
        scene: folder with ``images/`` and a COLMAP model in ``sparse/``.
        images: names of the photographs, relative to ``images/``.
        held_out: the points are those held out, not the others.
        share: of the points that is held out.
        seed: of their choice.

    """

    scene: Path
    images: tuple[str, ...]
    held_out: bool
    share: float
    seed: int


@dataclass(frozen=True)
class PhotoSources:
    """Paths of the photographs of one split, by kind of ground truth.

    Args:
        sfm: scene folders with ``images/`` and a COLMAP model in ``sparse/``.
        photos: single photographs.
        brackets: folders of photographs of one scene under several exposures, aligned to each other.
        posed: scene folders with ``cameras.npz``, ``images/`` and ``depth/``.
        parts: parts of scenes that had to be divided.

    """

    sfm: tuple[Path, ...]
    photos: tuple[Path, ...]
    brackets: tuple[Path, ...]
    posed: tuple[Path, ...] = ()
    parts: tuple[ScenePart, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing of which a detector could learn too: posed scenes give patches only."""
        return not (self.sfm or self.photos or self.brackets or self.parts)


def list_sources(root: Path, posed: bool = False) -> PhotoSources:
    """List the photographs below ``root``.

    Args:
        root: folder of the data, in one of two layouts. Either ``sfm/`` (folders with ``images/`` and a COLMAP model in
            ``sparse/``), ``photos/`` (single photographs), ``illumination/`` (folders of aligned exposures) and
            ``posed/``, of which none but one of the first three has to be there; or scene folders and single
            photographs directly in ``root``, which may be a scene folder itself.
        posed: list the posed scenes too.

    Raises:
        FileNotFoundError: if nothing of that is there.

    """
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    if any((root / kind).is_dir() for kind in LAYOUT):
        photos = root / "photos"
        return PhotoSources(
            sfm=_folders(root / "sfm"),
            photos=tuple(list_photos(photos)) if photos.is_dir() else (),
            brackets=_folders(root / "illumination"),
            posed=_folders(root / "posed") if posed else (),
        )
    scenes = tuple(p for p in (root, *_folders(root)) if (p / "images").is_dir() and (p / "sparse").is_dir())
    single = tuple(list_photos(root))
    if not scenes and not single:
        stores = " (the .npz files there are for the paper's recipe)" if any(root.glob("*.npz")) else ""
        raise FileNotFoundError(
            f"{root} holds no photographs (.jpg, .jpeg, .png), no scene folders with images/ and sparse/, and none of "
            f"the folders {', '.join(f'{kind}/' for kind in LAYOUT)}{stores}; `kornia-lift build-dataset` leaves its "
            "scenes in the folder reconstructions/ of its output"
        )
    return PhotoSources(scenes, single, ())


def _folders(root: Path) -> tuple[Path, ...]:
    return tuple(sorted(p for p in root.glob("*") if p.is_dir() and not p.name.startswith(".")))


def list_photos(folder: Path) -> list[Path]:
    """Return the photographs directly inside ``folder``, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def list_scene_photos(scene: Path) -> list[Path]:
    """Return the photographs of a reconstructed scene, those in sub-folders of ``images/`` too, sorted by name."""
    found = (scene / "images").rglob("*")
    return sorted(p for p in found if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def check_whole(path: Path) -> None:
    """Raise ``ValueError`` for a photograph that cannot be read to its end: OpenCV fills what is cut off with gray."""
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            image.draft("L", (1, 1))  # JPEG: an eighth of the size, from all of the file
            image.load()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"cannot read the photograph {path}: missing or damaged ({error}); remove it") from error


def read_gray(path: Path, max_size: int | None = None) -> Tensor:
    """Read a photograph as 8-bit gray, in stored pixels (EXIF rotation ignored, as COLMAP does).

    Args:
        path: the file.
        max_size: a larger side than this, in pixels, is scaled down to it.

    Returns:
        uint8 tensor of shape (H, W).

    Raises:
        ValueError: if the file cannot be decoded.

    """
    cv2 = require("cv2", extra="train")
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise ValueError(f"cannot read the photograph {path}: missing or damaged")
    if max_size is not None and max(image.shape) > max_size:
        factor = max_size / max(image.shape)
        image = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(image)


def read_bracket(folder: Path, max_size: int | None = None) -> list[Tensor]:
    """Read aligned photographs of one scene under several exposures; see :func:`read_gray`.

    Raises:
        ValueError: if there are fewer than two, or their sizes differ.

    """
    photos = [read_gray(path, max_size) for path in list_photos(folder)]
    if len(photos) < 2 or len({photo.shape for photo in photos}) > 1:
        raise ValueError(
            f"{folder} must hold two or more photographs of one size, taken from a tripod under different light; "
            f"it holds {len(photos)}, of {len({photo.shape for photo in photos})} sizes"
        )
    return photos


def to_float(image: Tensor) -> Tensor:
    """Turn an 8-bit gray image (H, W) into a float batch (1, 1, H, W) in [0, 1]."""
    return image[None, None].float() / 255
