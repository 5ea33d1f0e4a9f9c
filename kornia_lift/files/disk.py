"""Report a full disk with the name of the file, if possible before the work begins."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def naming(path: Path, advice: str = "") -> Iterator[None]:
    """Raise errors of the file system as one sentence that names the file to be written.

    Args:
        path: the file.
        advice: what was kept, and what to do.
    """
    try:
        yield
    except OSError as error:
        # a file beside this one may have been named already, with the number in the cause
        number = error.errno or getattr(error.__cause__, "errno", None)
        if number is None:
            raise
        advice = f" ({advice})" if advice else ""
        raise type(error)(f"cannot write {path}: {os.strerror(number)}{advice}") from error


def check_space(path: Path, sources: Iterable[Path]) -> None:
    """Raise before the work begins if the folder of ``path`` has no room for a copy of some files."""
    needed = sum(source.stat().st_size for source in sources)
    if needed > shutil.disk_usage(path.parent).free:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
