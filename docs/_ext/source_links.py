"""A link from every documented name to its lines in the repository."""

from __future__ import annotations

import importlib
import inspect
from functools import reduce
from pathlib import Path

from address import FILES

ROOT = Path(__file__).resolve().parents[2]


def resolve(domain: str, info: dict[str, str]) -> str | None:
    """Return the address of what Sphinx documents, ``None`` where it has no lines of its own: values, fields."""
    if domain != "py" or not info["module"]:
        return None
    try:
        found = reduce(getattr, info["fullname"].split("."), importlib.import_module(info["module"]))
        found = inspect.unwrap(found.fget if isinstance(found, property) else found)
        path = Path(inspect.getsourcefile(found) or "").resolve()
        lines, first = inspect.getsourcelines(found)
    except (AttributeError, TypeError, OSError):
        return None
    if not path.is_relative_to(ROOT):
        return None
    return f"{FILES}/{path.relative_to(ROOT).as_posix()}#L{first}-L{first + len(lines) - 1}"
