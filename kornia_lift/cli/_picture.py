"""Writing pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kornia_lift._extras import require
from kornia_lift._io import atomic_write, check_writable
from kornia_lift.cli._options import CommandError
from kornia_lift.viz import Picture

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def check_picture_path(path: Path, images: Sequence[Path] = ()) -> None:
    """Refuse, before any work is done, a picture that could not be written or would replace one of the images."""
    if path.suffix.lower() not in _SUFFIXES:
        raise CommandError(f"--out {path}: the name of a picture must end in {', '.join(_SUFFIXES)}")
    if path.is_dir():
        raise CommandError(f"--out {path}: a folder, expected a file name")
    if not path.parent.is_dir():
        raise CommandError(f"--out {path}: the folder {path.parent} does not exist")
    for image in images:
        if path.exists() and image.exists() and path.samefile(image):
            raise CommandError(f"--out {path}: one of the images to match, choose another name for the picture")
    check_writable(path)


def save_picture(path: Path, picture: Picture) -> None:
    """Write a picture in the format of its suffix."""
    with atomic_write(path) as temporary:
        image = require("PIL.Image", extra="cli").fromarray(picture)
        image.save(temporary, **({} if path.suffix.lower() == ".png" else {"quality": 92}))
