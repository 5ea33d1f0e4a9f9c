"""One writer at a time for a file."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

# Not the package filelock: it leaves its lock file behind, and fails where the file system has no locks (ENOLCK).
# Some network mounts have no locks: a single run must still work there.
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}


class FileInUseError(OSError):
    """Another process writes the same file."""


class FileLock:
    """The right to write a file, held from the construction to :meth:`close`.

    The operating system keeps the lock, on the hidden file ``.<name>.lock`` beside the file: it ends with the process,
    however that ends. On a file system without locks nothing is held.

    Args:
        path: the file to be written; it need not exist.

    Raises:
        FileInUseError: if another holder has it.
        OSError: if the folder cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._beside = path.with_name(f".{path.name}.lock")
        self._descriptor = -1
        while True:
            try:
                descriptor = os.open(self._beside, os.O_RDWR | os.O_CREAT, 0o666)
            except OSError as error:
                raise type(error)(f"cannot write {path}: {error.strerror} (folder {path.parent})") from error
            try:
                _lock(descriptor)
                current = _is_still(self._beside, descriptor)
            except BlockingIOError as error:
                os.close(descriptor)
                raise FileInUseError(
                    f"{path} is being written by another run: wait for its end, or choose another output file"
                ) from error
            except OSError as error:
                os.close(descriptor)
                if error.errno not in NO_LOCKS:
                    raise
                return
            if current:
                self._descriptor = descriptor
                return
            os.close(descriptor)  # the last holder removed the file between our opening and our locking it

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor < 0:
            return
        with suppress(OSError):  # Windows removes no open file; a lock file without a lock does no harm
            self._beside.unlink()
        os.close(self._descriptor)
        self._descriptor = -1

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
