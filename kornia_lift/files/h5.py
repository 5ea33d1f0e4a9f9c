"""h5 files from any source: read without following links and without loading what was not checked.

An h5 file can refer to other files (external links, external and virtual datasets), refer to itself in circles, and
declare arrays of any size. :class:`H5File` refuses all of that with a :class:`FeatureFileError` that names the file
and the dataset, so that neither reading nor merging touches another file, runs forever or fills the memory.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kornia_lift._extras import require
from kornia_lift.files.lock import NO_LOCKS

#: No dataset may declare more than this: a million keypoints with 128 numbers each.
MAX_DATASET_BYTES = 2**29
_MAX_ATTRIBUTE_BYTES = 2**20
_MAX_TEXT_BYTES = 2**15


class FeatureFileError(ValueError):
    """A feature file, or one of its images, cannot be used; the message names it and says why."""


class H5File:
    """An h5 file, opened for reading. Use it as a context manager.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: if it does not exist.
        FeatureFileError: if it is not a readable h5 file. All methods raise this for what they find.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path} does not exist")
        if not self.path.is_file():
            kind = "a folder" if self.path.is_dir() else "a pipe or a device"
            raise FeatureFileError(f"{self.path} is {kind}, expected an h5 file")
        self._h5py = require("h5py", extra="cli")
        #: The root group.
        self.root: Any = open_h5(self.path, "r")

    def __enter__(self) -> H5File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.root.close()

    def error(self, where: str, what: str) -> FeatureFileError:
        """Return an error that names the file and the object in it."""
        return FeatureFileError(f"{self.path}: {where.strip('/') or 'the file'}: {what}")

    @contextmanager
    def reading(self, where: str) -> Iterator[None]:
        """Turn what h5py raises for a damaged file into a :class:`FeatureFileError`."""
        try:
            yield
        except FeatureFileError:
            raise
        except Exception as error:  # anything from KeyError to SystemError and MemoryError
            reason = " ".join(str(error).split()) or type(error).__name__
            raise self.error(where, f"damaged, or not readable by h5py ({reason})") from error

    def kind(self, group: Any, name: str) -> str | None:
        """Return what a member of a group is: ``"group"``, ``"dataset"``, or ``None`` if there is none.

        Raises:
            FeatureFileError: if it is a link, or an object of another kind.
        """
        where = f"{group.name}/{name}"
        with self.reading(where):
            link = group.get(name, getlink=True)
            if link is None:
                return None
            if not isinstance(link, self._h5py.HardLink):
                target = f"{link.filename}:{link.path}" if isinstance(link, self._h5py.ExternalLink) else link.path
                raise self.error(where, f"a link to {target}; links are not followed")
            member = group.get(name, getclass=True)
        if member is self._h5py.Group:
            return "group"
        if member is self._h5py.Dataset:
            return "dataset"
        raise self.error(where, "neither a group nor a dataset")

    def group(self, name: str) -> Any:
        """Return the group of this name, ``None`` if there is none."""
        node = self.root
        for part in name.split("/"):
            # ".." is a name like any other in h5, but "." is the group itself
            if part in ("", ".") or self.kind(node, part) != "group":
                return None
            with self.reading(f"{node.name}/{part}"):
                node = node[part]
        return node

    def members(self, group: Any) -> list[str]:
        """Return the names in a group."""
        with self.reading(group.name):
            names = list(group)
        if not all(isinstance(name, str) for name in names):
            raise self.error(group.name, "holds a name that is not UTF-8")
        return names

    def address(self, group: Any) -> int:
        """Return where a group lies in the file: groups of the same address are the same group."""
        with self.reading(group.name):
            return int(self._h5py.h5o.get_info(group.id).addr)

    def has_attribute(self, name: str) -> bool:
        """Return whether the file has an attribute of this name."""
        with self.reading(f"attribute {name!r}"):
            return name in self.root.attrs

    def attribute(self, node: Any, name: str) -> Any:
        """Return an attribute, ``None`` if there is none; texts as :func:`text` writes them.

        Raises:
            FeatureFileError: if it is damaged, of variable length, or larger than 1 MiB.
        """
        where = f"attribute {name!r} of {node.name}"
        with self.reading(where):
            if name not in node.attrs:
                return None
            handle = node.attrs.get_id(name)
            if handle.get_storage_size() > _MAX_ATTRIBUTE_BYTES:
                raise self.error(where, f"{handle.get_storage_size()} bytes, expected at most {_MAX_ATTRIBUTE_BYTES}")
            if handle.dtype.kind == "O":
                # it would be searched for in a heap, and in a damaged heap HDF5 (2.0) may search forever
                raise self.error(where, "a value of variable length, expected a number or a text of fixed length")
            value = node.attrs[name]
            return value.decode() if isinstance(value, bytes) else value

    def json_object(self, name: str) -> dict[str, Any] | None:
        """Return an attribute of the file that holds a JSON object, ``None`` if there is none."""
        text = self.attribute(self.root, name)
        if text is None:
            return None
        where = f"attribute {name!r}"
        try:
            found = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError) as error:
            raise self.error(where, f"not JSON ({error})") from error
        if not isinstance(found, dict):
            raise self.error(where, "expected a JSON object")
        return found

    def array(self, group: Any, name: str, *, kinds: str = "f", ndim: tuple[int, ...] = (1,)) -> NDArray[Any]:
        """Read a dataset.

        Args:
            group: the group that holds it.
            name: name in the group.
            kinds: allowed kinds of numbers, as :attr:`numpy.dtype.kind`.
            ndim: allowed numbers of dimensions.

        Raises:
            FeatureFileError: if there is no such dataset, it is a link, holds other values, is larger than
                :data:`MAX_DATASET_BYTES`, has no data, or lies in another file.
        """
        dataset = self.checked(group, name)
        where = dataset.name
        if dataset.dtype.kind not in kinds or dataset.dtype.itemsize > 8:
            raise self.error(where, f"values of type {dataset.dtype}, expected {_words(kinds)}")
        if len(dataset.shape) not in ndim:
            raise self.error(where, f"shape {dataset.shape}, expected {' or '.join(map(str, ndim))} dimensions")
        return self.values(group, name)

    def values(self, group: Any, name: str) -> NDArray[Any]:
        """Read a dataset of any numbers, see :meth:`checked`."""
        dataset = self.checked(group, name)
        with self.reading(dataset.name):
            return np.asarray(dataset[()])

    def checked(self, group: Any, name: str) -> Any:
        """Return a dataset of numbers after checking that its size is bounded and that it lies in this file."""
        where = f"{group.name}/{name}"
        if self.kind(group, name) != "dataset":
            raise self.error(where, "expected a dataset")
        with self.reading(where):
            dataset = group[name]
            shape, dtype = dataset.shape, dataset.dtype
            if dataset.is_virtual or dataset.external:
                raise self.error(where, "its data lie in another file")
            if shape is None or dtype.kind not in "fiub":
                raise self.error(where, f"values of type {dtype}, expected an array of numbers")
            declared = prod(shape) * dtype.itemsize
            chunk = prod(dataset.chunks or ()) * dtype.itemsize
            if max(declared, chunk) > MAX_DATASET_BYTES:
                raise self.error(where, f"declares {max(declared, chunk)} bytes, expected at most {MAX_DATASET_BYTES}")
            if declared and not dataset.id.get_storage_size():
                raise self.error(where, f"declares the shape {shape}, but the file holds no data for it")
        return dataset


def text(value: str) -> np.bytes_:
    """Return an attribute of fixed length, cut to fit the 64 KiB that h5 has for all attributes of an object."""
    return np.bytes_(value.encode(errors="backslashreplace")[:_MAX_TEXT_BYTES].decode(errors="ignore").encode())


def open_h5(path: Path, mode: str) -> Any:
    """Open an h5 file, also where the file system has no locks.

    Raises:
        FileNotFoundError: if it is to be read and does not exist.
        OSError: if it cannot be written.
        FeatureFileError: if it is to be read and is not an h5 file.
    """
    h5py = require("h5py", extra="cli")
    try:
        try:
            return h5py.File(path, mode)
        except BlockingIOError as error:
            raise FeatureFileError(f"{path} is in use by another process: wait for it, or choose another") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return h5py.File(path, mode, locking=False)
    except FeatureFileError:
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} does not exist") from error
    except Exception as error:  # for a damaged file RuntimeError and KeyError, too
        if mode != "r" and isinstance(error, OSError):
            raise
        raise FeatureFileError(f"cannot open {path} as an h5 file: {' '.join(str(error).split())}") from error


def check_options(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise if features were made with other options than those wanted."""
    # a switch that a file of an earlier version does not name was off
    had = {key: found.get(key, False if isinstance(value, bool) else None) for key, value in wanted.items()}
    changed = [f"{key} {had[key]!r}, not {value!r}" for key, value in wanted.items() if had[key] != value]
    if changed:
        raise FeatureFileError(
            f"{path} was made with {', '.join(changed)}: choose another output file, or remove this one"
        )


def _words(kinds: str) -> str:
    names = {"f": "floating-point numbers", "i": "integers", "u": "unsigned integers", "b": "booleans"}
    return " or ".join(names[kind] for kind in kinds)
