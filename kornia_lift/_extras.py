"""Optional packages: imported by the function that uses them, with an error that names the extra to install."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any


class MissingExtraError(ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


def require(module: str, *, extra: str = "", hint: str = "") -> Any:
    """Import an optional package.

    Args:
        module: dotted name as in an import statement, for example ``"cv2"`` or ``"PIL.Image"``.
        extra: extra of this package that brings it, for example ``"cli"``.
        hint: how to install it, for a package that no extra installs.

    Returns:
        The module itself; ``require("PIL.Image", extra="cli")`` is ``PIL.Image``, not ``PIL``.

    Raises:
        MissingExtraError: if the package is not installed. A package that is installed but fails inside its own
            import raises its own error.
    """
    try:
        with _own_signals():
            return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        package = module.partition(".")[0]
        how = hint or f"pip install 'kornia_lift[{extra}]'"
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed; get it with: {how}", name=package
        ) from error


@contextmanager
def _own_signals() -> Iterator[None]:
    """Restore Python's handlers of SIGTERM and SIGINT: pycolmap, when imported, replaces that of SIGTERM by its own."""
    known = set(sys.modules)
    try:
        yield
    finally:
        if sys.modules.keys() != known and threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                handler = signal.getsignal(number)
                if handler is not None:
                    signal.signal(number, handler)
