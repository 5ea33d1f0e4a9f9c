"""Whether the files of a binary COLMAP model are whole.

pycolmap reads a file that was cut off as far as it goes: depending on where the cut is, it gives wrong cameras without
a word, or takes the bytes after the end for a length and asks for as much memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_COUNT = struct.Struct("<Q")


def check_binary_files(folder: Path) -> None:
    """Check ``images.bin`` and ``points3D.bin``, where they are there, before they are read.

    Raises:
        ValueError: if a file ends before its last record, or goes on after it.

    """
    for name, end_of_record in (("images.bin", _end_of_image), ("points3D.bin", _end_of_point)):
        if (folder / name).is_file():
            _walk(folder / name, end_of_record)


def check_cameras(folder: Path, model: Any) -> None:
    """Check ``cameras.bin``, where it is there, against the ``pycolmap.Reconstruction`` that was read from it.

    Raises:
        ValueError: if the cameras do not fill the file.

    """
    path = folder / "cameras.bin"
    if path.is_file():
        # id, model, width and height take 24 bytes
        expected = _COUNT.size + sum(24 + 8 * len(camera.params) for camera in model.cameras.values())
        if path.stat().st_size != expected:
            raise ValueError(f"{path.name} has {path.stat().st_size} bytes, its cameras take {expected}")


def _walk(path: Path, end_of_record: Callable[[bytes, int], int]) -> None:
    data = path.read_bytes()
    try:
        (count,) = _COUNT.unpack_from(data)
        end = _COUNT.size
        for _ in range(count):
            end = end_of_record(data, end)
    except (struct.error, ValueError, OverflowError):
        raise ValueError(f"{path.name} ends before its last entry") from None
    if end != len(data):
        raise ValueError(f"{path.name} has {len(data)} bytes, its entries take {end}")


def _end_of_image(data: bytes, start: int) -> int:
    """Id, rotation, position, camera (64 bytes); name with a zero; count of points; x, y, id of each."""
    name_end = data.index(b"\0", start + 64) + 1
    (points,) = _COUNT.unpack_from(data, name_end)
    return name_end + _COUNT.size + 24 * int(points)


def _end_of_point(data: bytes, start: int) -> int:
    """Id, position, colour, error (43 bytes); length of the track; image and keypoint of each."""
    (track,) = _COUNT.unpack_from(data, start + 43)
    return start + 43 + _COUNT.size + 8 * int(track)
