"""What reading, writing and merging h5 feature files share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kornia_lift._extras import require


class FeatureFileError(ValueError):
    """A feature file that cannot be read, or that does not fit what is to be done with it."""


def open_h5(path: Path, mode: str) -> Any:
    """Open a feature file.

    Raises:
        FileNotFoundError: if it is to be read and does not exist.
        FeatureFileError: if this is not a readable h5 file.
    """
    try:
        return require("h5py", extra="cli").File(path, mode)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FeatureFileError(f"cannot open {path} as an h5 feature file: {error}") from error


def read_options(path: Path) -> dict[str, Any]:
    """Return what the features of a file were made with; empty if the file does not say.

    Raises:
        FeatureFileError: if this is not a readable h5 file.
    """
    with open_h5(path, "r") as file:
        options = json.loads(file.attrs.get("options", "{}"))
    return dict(options)


def check_options(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise if features were made with other options than those wanted."""
    changed = [f"{key} {found.get(key)!r}, not {value!r}" for key, value in wanted.items() if found.get(key) != value]
    if changed:
        raise FeatureFileError(
            f"{path} was made with {', '.join(changed)}: choose another output file, or remove this one"
        )


def image_names(file: Any) -> Iterator[str]:
    """Yield the names of all groups that hold keypoints."""
    dataset = require("h5py", extra="cli").Dataset
    stack = [(key, file[key]) for key in reversed(list(file))]
    while stack:
        name, node = stack.pop()
        if isinstance(node, dataset):
            continue
        if isinstance(node.get("keypoints"), dataset):  # a folder of photographs may have this name, too
            yield name
        else:
            stack.extend((f"{name}/{key}", node[key]) for key in reversed(list(node)))


def copy_image(source: Any, name: str, target: Any) -> None:
    """Copy the group of an image from one open file to another, replacing one of that name."""
    folder, _, image = name.rpartition("/")
    group = target.require_group(folder) if folder else target
    if image in group:
        del group[image]
    source.copy(name, group, image)
