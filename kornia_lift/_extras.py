"""Optional packages: imported by the function that uses them, with an error that names the extra to install."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class MissingExtraError(ImportError):
    """An optional package is not installed; the message holds the command that installs it."""


def require(module: str, *, extra: str = "", hint: str = "") -> Any:
    """Import an optional package.

    Args:
        module: dotted name as in an import statement, for example ``"cv2"`` or ``"PIL.Image"``.
        extra: extra of this package that brings it, for example ``"cli"``.
        hint: how to get it, where no extra does.

    Returns:
        The module itself; ``require("PIL.Image", extra="cli")`` is ``PIL.Image``, not ``PIL``.

    Raises:
        MissingExtraError: if the package is not installed. A package that is installed but fails inside its own
            import raises its own error.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        package = module.partition(".")[0]
        how = hint or f"pip install 'kornia_lift[{extra}]'"
        raise MissingExtraError(
            f"this needs the package {package!r}, which is not installed; get it with: {how}", name=package
        ) from error
