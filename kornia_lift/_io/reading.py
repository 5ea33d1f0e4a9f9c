"""Read files that may be damaged or hostile: regular files, bounded memory, one kind of error, nothing executed."""

from __future__ import annotations

import io
import json
import math
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

TEXT_LIMIT = 64 * 2**20  # bytes; the longest log of a run takes a tenth of it
#: Limits of the arrays of a ``.npz`` file, absolute and per byte of it: compression rarely makes real data five times
#: smaller.
FREE_BYTES, MAX_EXPANSION = 64 * 2**20, 20
_ENCRYPTED = 0x1


class DamagedFileError(ValueError):
    """A file that is not a regular file, is damaged, or does not hold what it should."""


def check_regular(path: Path) -> None:
    """Check that ``path`` is a regular file: a named pipe would block, and a device may never end.

    Raises:
        FileNotFoundError: if it does not exist.
        DamagedFileError: if it is something else.

    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))
        what = next((name for test, name in kinds if test(mode)), "a device")
        raise DamagedFileError(f"{path} is {what}, expected a regular file")


def read_bytes(path: Path, limit: int) -> bytes:
    """Read a whole file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not a regular file, or has more than ``limit`` bytes.

    """
    check_regular(path)
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        raise DamagedFileError(f"{path} has more than {limit} bytes, which is too much for a file of its kind")
    return raw


def read_text(path: Path, limit: int = TEXT_LIMIT) -> str:
    """Read a UTF-8 text file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not a regular file, has more than ``limit`` bytes, or is not UTF-8 text.

    """
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedFileError(f"{path} is not UTF-8 text: {error}") from None


def parse_json(text: str, *, strict: bool = False) -> Any:
    """Parse JSON.

    Args:
        text: the text to parse.
        strict: refuse NaN and Infinity, which JSON does not have.

    Raises:
        ValueError: if it is not well formed, nested too deeply, or holds a number of thousands of digits.

    """
    try:
        return json.loads(text, parse_constant=_refuse if strict else None)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"JSON has no {constant}")


def read_json(path: Path, limit: int = TEXT_LIMIT) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if it is not a regular file, has more than ``limit`` bytes, or is not JSON (which has no NaN).

    """
    text = read_text(path, limit)
    try:
        return parse_json(text, strict=True)
    except ValueError as error:
        raise DamagedFileError(f"{path} is not JSON: {error}") from None


def read_npy(path: Path, kinds: str, limit: int) -> NDArray[Any]:
    """Read a NumPy ``.npy`` file without executing anything.

    Args:
        path: the file.
        kinds: allowed kinds of dtype.
        limit: largest size of the file, in bytes.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if the file is damaged, larger, or holds something else.

    """
    raw = read_bytes(path, limit)
    try:
        return _read_array(io.BytesIO(raw), path.stem, len(raw), kinds, -1)
    except MemoryError:
        raise
    except Exception as error:  # numpy's parser of the header raises a dozen types
        raise DamagedFileError(f"{path} is damaged or not the .npy file that was expected: {error}") from error


def read_npz(
    path: Path, expected: Mapping[str, tuple[str, int]], optional: Mapping[str, tuple[str, int]] | None = None
) -> dict[str, NDArray[Any]]:
    """Read arrays of a NumPy ``.npz`` file without executing anything.

    The size of every array is known and checked before memory is taken for it.

    Args:
        path: the file.
        expected: for each array its allowed kinds of dtype (``"iu"``, ``"f"``, ``"U"``, ...) and its rank; rank -1
            allows any.
        optional: the same for arrays that may be missing.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: if the file is damaged, encrypted, expands too much, or an array is missing or of another
            kind.

    """
    check_regular(path)
    arrays = {}
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            members: dict[str, zipfile.ZipInfo] = {}
            for info in archive.infolist():
                if info.filename in members:
                    raise ValueError(f"{info.filename!r} appears twice")
                members[info.filename] = info
            wanted = {**expected, **(optional or {})}
            found = [members[f"{name}.npy"] for name in wanted if f"{name}.npy" in members]
            size, limit = sum(info.file_size for info in found), FREE_BYTES + MAX_EXPANSION * path.stat().st_size
            if size > limit:
                raise ValueError(f"its arrays take {size} bytes, at most {limit} are allowed for a file of this size")
            for name, (kinds, rank) in wanted.items():
                member = members.get(f"{name}.npy")
                if member is None and name in expected:
                    raise ValueError(f"it lacks the array {name!r}")
                if member is not None:
                    if member.flag_bits & _ENCRYPTED:
                        raise ValueError("it is encrypted")
                    with archive.open(member) as file:
                        arrays[name] = _read_array(file, name, member.file_size, kinds, rank)
    except MemoryError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for damaged bytes
        said = str(error) or type(error).__name__
        raise DamagedFileError(f"{path} is damaged or not the .npz file that was expected: {said}") from error
    return arrays


def _read_array(file: IO[bytes], name: str, size: int, kinds: str, rank: int) -> NDArray[Any]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"array {name!r} has the format version {version}")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in kinds:
        raise ValueError(f"array {name!r} has the dtype {dtype}, expected one of kind {kinds}")
    if rank not in (-1, len(shape)):
        raise ValueError(f"array {name!r} has the shape {shape}, expected {rank} dimensions")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or count * dtype.itemsize > size:
        raise ValueError(f"array {name!r} of shape {shape} does not fit into its {size} bytes")
    raw = file.read()  # to the end, where the checksum is compared
    if len(raw) != count * dtype.itemsize:
        raise ValueError(f"array {name!r} of shape {shape} has {len(raw)} bytes")
    return np.frombuffer(raw, dtype).copy().reshape(shape, order="F" if fortran else "C")
