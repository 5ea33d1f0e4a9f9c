"""Whether the files of a COLMAP model are complete.

pycolmap does not check for truncated files: depending on where a file ends, it silently returns wrong cameras, or
reads a length beyond the end and allocates that much memory. Where the disk is full, it silently writes such files.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

_COUNT = struct.Struct("<Q")
_COUNT32 = struct.Struct("<I")
_SHORTEST_CAMERA = 24 + 8 * 3  # id, model, width, height, and the fewest parameters


def check_written(folder: Path, model: Any, out: Path) -> None:
    """Check the files of a ``pycolmap.Reconstruction`` that pycolmap has just written.

    Args:
        folder: where they are.
        model: what was written.
        out: where they are to be, for the message.

    Raises:
        OSError: if one of them is not complete.

    """
    try:
        check_binary_files(folder)
        check_cameras(folder, model)
    except ValueError as error:
        raise OSError(f"cannot write the model {out}: {os.strerror(errno.ENOSPC)} ({error})") from error


def check_binary_files(folder: Path) -> None:
    """Check the ``.bin`` files, where they are there, before they are read.

    Raises:
        ValueError: if a file ends before its last record, or goes on after it.

    """
    for name, end_of_record in _RECORDS.items():
        if (folder / name).is_file():
            _walk(folder / name, end_of_record)
    cameras = folder / "cameras.bin"
    if cameras.is_file():  # only pycolmap knows how long a camera is; see check_cameras
        with cameras.open("rb") as file:
            count = int.from_bytes(file.read(_COUNT.size), "little")
        if count * _SHORTEST_CAMERA > cameras.stat().st_size:
            raise ValueError(f"{cameras.name} has {cameras.stat().st_size} bytes, too few for {count} cameras")


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
    except (struct.error, IndexError, ValueError, OverflowError):
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


def _end_of_rig(data: bytes, start: int) -> int:
    """Id, count of sensors; type and id of the first; type, id, whether there is a pose, and the pose of the others."""
    (sensors,) = _COUNT32.unpack_from(data, start + 4)
    end = start + 8 + (8 if sensors else 0)
    for _ in range(1, sensors):
        end += 9 + 56 * (data[end + 8] != 0)
        if end > len(data):
            raise ValueError("too short")
    return end


def _end_of_frame(data: bytes, start: int) -> int:
    """Id, rig, pose (64 bytes); count of data; sensor's type, its id, and number of each."""
    (count,) = _COUNT32.unpack_from(data, start + 64)
    return start + 64 + 4 + 16 * int(count)


_RECORDS: dict[str, Callable[[bytes, int], int]] = {
    "images.bin": _end_of_image,
    "points3D.bin": _end_of_point,
    "rigs.bin": _end_of_rig,
    "frames.bin": _end_of_frame,
}
