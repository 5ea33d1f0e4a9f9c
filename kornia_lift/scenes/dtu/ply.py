"""Read the vertices of a PLY file (Stanford polygon format), ASCII or little-endian binary."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import IO

import numpy as np

from kornia_lift._io import check_regular
from kornia_lift.scenes.scene import FloatArray

_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "<i2", "int16": "<i2", "ushort": "<u2"},
    **{"uint16": "<u2", "int": "<i4", "int32": "<i4", "uint": "<u4", "uint32": "<u4"},
    **{"float": "<f4", "float32": "<f4", "double": "<f8", "float64": "<f8"},
}
_MAX_HEADER = 200  # lines
_MAX_LINE = 1000  # bytes


def read_ply_points(path: Path) -> FloatArray:
    """Read the positions of the vertices.

    Args:
        path: the file; ``vertex`` must be its first element, as in all point clouds.

    Returns:
        Positions, shape (N, 3).

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not a PLY file, is truncated, or has an unsupported format.

    """
    check_regular(path)
    with path.open("rb") as file:
        try:
            form, count, names, types = _header(file)
            if form == "ascii":
                columns = [names.index(axis) for axis in "xyz"]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # about empty lines; the vertices are counted below
                    table = np.loadtxt(file, max_rows=count, ndmin=2, usecols=columns)
            else:
                kind = np.dtype(list(zip(names, types, strict=True)))
                if path.stat().st_size < file.tell() + count * kind.itemsize:
                    raise ValueError(f"the file ends before its {count} vertices")
                rows = np.frombuffer(file.read(count * kind.itemsize), kind)
                table = np.stack([rows[axis] for axis in "xyz"], axis=1)
            if len(table) != count:
                raise ValueError(f"{len(table)} of {count} vertices are there")
        except (ValueError, IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a readable PLY file: {error}; copy or unpack it again") from None
    points = table.astype(np.float64)
    return points[np.isfinite(points).all(axis=1)]


def _header(file: IO[bytes]) -> tuple[str, int, list[str], list[str]]:
    """Return the format, the number of vertices, and names and types of their properties."""
    form, count, names, types = "", -1, list[str](), list[str]()
    element = ""
    for number in range(_MAX_HEADER):
        words = file.readline(_MAX_LINE).decode("ascii").split()
        if number == 0 and words != ["ply"]:
            raise ValueError("it does not begin with 'ply'")
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "end_header":
            break
        if words[0] == "format":
            form = words[1]
        elif words[0] == "element":
            if not element and words[1] != "vertex":
                raise ValueError(f"its first element is {words[1]!r}, expected 'vertex'")
            element = words[1]
            count = int(words[2]) if element == "vertex" else count
        elif words[0] == "property" and element == "vertex":
            if words[1] not in _TYPES:
                raise ValueError(f"vertices have a property of the type {words[1]!r}")
            types.append(_TYPES[words[1]])
            names.append(words[2])
    else:
        raise ValueError("its header does not end")
    if form not in ("ascii", "binary_little_endian"):
        raise ValueError(f"its format is {form!r}, expected 'ascii' or 'binary_little_endian'")
    if count < 0 or not set("xyz") <= set(names):
        raise ValueError("it has no vertices with x, y and z")
    return form, count, names, types
