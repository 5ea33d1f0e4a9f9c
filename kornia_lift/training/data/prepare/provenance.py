"""A record beside a file or folder of what it was made of, so that it is never mistaken for something else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kornia_lift._io import atomic_write, read_json
from kornia_lift._words import counted


class OtherSourceError(ValueError):
    """Something that exists was made of other files, or with other options."""


def describe_source(folder: Path, files: Iterable[Path], options: Mapping[str, Any]) -> dict[str, Any]:
    """Describe what is about to be read.

    Args:
        folder: where it lies.
        files: what will be read of it; names, relative to ``folder``, and sizes are noted.
        options: what else the outcome depends on.

    """
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(files)}
    return {"source": str(folder.resolve()), "files": sizes, "options": dict(options)}


def record_path(made: Path) -> Path:
    """Return where the description of ``made``, a file or folder, is kept: beside it."""
    return made.with_name(f"{made.name.removesuffix('.npz')}.json")


def keep_record(made: Path, record: Mapping[str, Any]) -> None:
    """Write the description of ``made``."""
    with atomic_write(record_path(made)) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def check_record(made: Path, record: Mapping[str, Any]) -> None:
    """Check that ``made``, which exists, was made of what ``record`` describes.

    Raises:
        OtherSourceError: if it was not, or nothing is known of it.

    """
    path = record_path(made)
    both = f"{made} and {path}" if path.exists() else str(made)
    advice = f"delete {both} to make it again, or choose another --out"
    try:
        before = read_json(path)
        changes = _changes(before, record)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        raise OtherSourceError(
            f"{made} exists, but {path.name} beside it, which says what it was made of, is missing or damaged; {advice}"
        ) from None
    if changes:
        raise OtherSourceError(f"{made} exists and was made of something else: {'; '.join(changes)}; {advice}")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changes = []
    if before["source"] != now["source"]:
        changes.append(f"of {before['source']}, not of {now['source']}")
    old, new = before["options"], now["options"]
    changes += [
        f"{key} was {old.get(key)}, is {new.get(key)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    old, new = before["files"], now["files"]
    for what, names in (
        ("added", new.keys() - old.keys()),
        ("removed", old.keys() - new.keys()),
        ("changed", {name for name in old.keys() & new.keys() if old[name] != new[name]}),
    ):
        if names:
            some = ", ".join(sorted(names)[:3])
            changes.append(f"{counted(len(names), 'file')} {what} ({some}{', ...' if len(names) > 3 else ''})")
    return changes
