"""How COLMAP is called: it prints nothing, and its errors become ours.

pycolmap logs to the terminal, in glog's form, also the errors that it raises. What only its log reports is checked
beforehand by the callers (:mod:`kornia_lift.files.colmap`).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kornia_lift._io import ImageFileError, load_image

_SOURCE = re.compile(r"^\[[\w./]+:\d+\] ")  # the place in COLMAP's source
_NOT_OPENED = "No registered database factory succeeded"
_DATABASE_BYTES = 1 << 20  # an empty database takes a quarter of it


class ColmapError(OSError):
    """COLMAP could not read, write or compute what it was asked to."""


@contextmanager
def quiet_colmap(pycolmap: Any, database: str | os.PathLike[str]) -> Iterator[None]:
    """Silence COLMAP's log while it works on a database.

    Args:
        pycolmap: the module.
        database: named in the error.

    Raises:
        ColmapError: instead of the ``RuntimeError`` that pycolmap raises.

    """
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    except RuntimeError as error:
        raise _as_ours(error, Path(database)) from error
    finally:
        pycolmap.logging.minloglevel = before


def unread_formats(pycolmap: Any, images: Iterable[Path]) -> list[Path]:
    """Return an image of each suffix that this package reads and this build of COLMAP does not, such as ``.webp``."""
    groups: dict[str, list[Path]] = {}
    for path in images:
        groups.setdefault(path.suffix.lower(), []).append(path)
    return [found for paths in groups.values() if (found := _unread(pycolmap, paths)) is not None]


def _unread(pycolmap: Any, paths: Iterable[Path]) -> Path | None:
    """Return the first good image if COLMAP does not read it; broken ones say nothing about a format."""
    for path in paths:
        if pycolmap.Bitmap.read(path, True) is not None:
            return None
        try:
            load_image(path)
        except (ImageFileError, OSError):
            continue
        return path
    return None


def _as_ours(error: RuntimeError, database: Path) -> ColmapError:
    reason = _SOURCE.sub("", str(error))
    unopened = _NOT_OPENED in reason
    if "disk is full" in reason or (unopened and shutil.disk_usage(database.parent).free < _DATABASE_BYTES):
        return ColmapError(f"cannot write {database}: {os.strerror(errno.ENOSPC)}")
    if unopened:
        reason = "it is no database, or cannot be read or written"
    return ColmapError(f"COLMAP failed on {database}: {reason}")
