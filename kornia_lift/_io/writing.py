"""Write files that appear whole or not at all."""

from __future__ import annotations

import errno
import glob
import os
import platform
import re
import shutil
import tempfile
import time
import uuid
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

_TRIES, _PAUSE = 20, 0.1  # of removing a folder, seconds between two
_HIDDEN = ".*.tmp*"  # any temporary name, to be searched
_HOST = f"{zlib.crc32(platform.node().encode()):08x}"
# which process writes the file, and where it runs
_TEMPORARY = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-[0-9a-f]{4}\.tmp(\.[^.]*)?")


def check_writable(path: str | os.PathLike[str]) -> None:
    """Try to create a file in the folder of ``path``, before long work whose result could not be written.

    Raises:
        OSError: if that is not possible; the message names ``path`` and the reason.
    """
    folder = Path(path).parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror} (folder {folder})") from error


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which is renamed to ``path`` on success and removed on an error.

    The temporary name keeps the suffix, since many writers choose the format by it. Temporary files of the same path
    that processes killed by SIGKILL left are removed.

    Example:
        >>> with atomic_write("matches.json") as tmp:  # doctest: +SKIP
        ...     tmp.write_text("{}")

    Raises:
        FileNotFoundError: if the folder does not exist.
        IsADirectoryError: if ``path`` is a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder, expected a file name")
    # 50 characters have at most 200 bytes: the temporary name is allowed wherever that of the file is
    owner = f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:4]}"
    temporary = path.with_name(f".{path.stem[:50]}.{owner}.tmp{path.suffix}")
    with suppress(OSError):  # the writing itself reports what is wrong with the folder
        _remove_dead(path.parent.glob(_hidden(path)))
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        ours = error.filename is not None and os.fspath(error.filename) == str(temporary)
        if not ours and error.errno not in _DISK_ERRORS:  # errors of writing into an open file name no file
            raise
        raise type(error)(f"cannot write {path}: {os.strerror(error.errno or 0)}") from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def temporary_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new hidden folder beside ``path`` for work on it; it is removed at the end, also after an interruption.

    Those that killed processes left for the same path are removed too.

    Raises:
        OSError: if the folder of ``path`` cannot be written; the message names ``path`` and the reason.
    """
    path = Path(path)
    with suppress(OSError):
        _remove_dead(path.parent.glob(_hidden(path)))
    folder = path.with_name(f".{path.stem[:50]}.{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:4]}.tmp")
    try:
        folder.mkdir()
    except OSError as error:
        raise type(error)(f"cannot write {path}: {error.strerror} (folder {path.parent})") from error
    try:
        yield folder
    finally:
        # a thread of another library may still write into it after an interruption
        for _ in range(_TRIES):
            shutil.rmtree(folder, ignore_errors=True)
            if not folder.exists():
                break
            time.sleep(_PAUSE)


def write_npz(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays as ``numpy.savez`` does.

    NumPy before 2 leaves the file open where the disk is full, and closing it later prints a traceback.

    Args:
        path: the file.
        arrays: arrays by name; they must not hold Python objects.

    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(values), allow_pickle=False)


def remove_leftovers(out: Path) -> None:
    """Remove the temporary files of an output that processes killed by SIGKILL left behind.

    Files of processes that still run, and of other machines, are kept.

    Args:
        out: a file, whose folder is searched, or a folder, which is searched two levels deep.

    """
    if out.is_dir():
        found = [path for pattern in (_HIDDEN, f"*/{_HIDDEN}", f"*/*/{_HIDDEN}") for path in out.glob(pattern)]
    else:  # and in folders that belong to the file, such as its parts
        patterns = (_hidden(out), f"{glob.escape(out.name)}*/{_HIDDEN}")
        found = [path for pattern in patterns for path in out.parent.glob(pattern)]
    _remove_dead(found)


def _hidden(path: Path) -> str:
    """Pattern of the temporary names of a file."""
    return f".{glob.escape(path.stem[:50])}{_HIDDEN}"


def _remove_dead(found: Iterable[Path]) -> None:
    """Remove the temporary files and folders of processes that no longer run."""
    if os.name != "posix":  # elsewhere os.kill, even with signal 0, may end the process
        return
    for path in list(found):
        owner = _TEMPORARY.fullmatch(path.name)
        if owner and owner["host"] == _HOST and not _runs(int(owner["process"])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # of another user
        return True
    return True
