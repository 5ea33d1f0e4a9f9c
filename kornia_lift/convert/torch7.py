"""Read Torch7 binary files (``.t7``) without Torch7; nothing in the file is executed."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from kornia_lift._io import DamagedFileError, read_bytes
from kornia_lift.weights import WeightFileError

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)
_STORAGES = {"Float": "<f4", "Double": "<f8", "Long": "<i8", "Int": "<i4", "Byte": "u1"}
MAX_BYTES = 2**28  # of a file; the largest released one has 2 MB
_MAX_DEPTH = 64  # of nested tables: a damaged file must not exhaust the stack


def read_t7(path: str | os.PathLike[str]) -> Any:
    """Read the object in a Torch7 file.

    Returns:
        Numbers, strings, booleans and ``None`` as in Python; tensors as NumPy arrays; tables and other objects as
        dictionaries, an object's class under the key ``"__class__"``.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightFileError: if the file is damaged or not a Torch7 binary file.

    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        return _Reader(read_bytes(Path(path), MAX_BYTES)).value()
    except DamagedFileError as error:
        raise WeightFileError(f"{error}; expected a Torch7 binary file") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise WeightFileError(f"{path} is not a readable Torch7 binary file ({error})") from error


class _Reader:
    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0
        self._depth = 0
        self._known: dict[int, Any] = {}  # objects are stored once and referred to by index afterwards

    def _unpack(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self._raw, self._at)
        self._at += struct.calcsize("<" + code)
        return value

    def _bytes(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._raw):
            raise ValueError(f"{count} bytes announced at {self._at}, the file has {len(self._raw)}")
        self._at += count
        return self._raw[self._at - count : self._at]

    def _string(self) -> str:
        return self._bytes(self._unpack("i")).decode("latin-1")

    def value(self) -> Any:
        """Read one value of any type."""
        tag = self._unpack("i")
        if tag == _NIL:
            return None
        if tag == _NUMBER:
            return self._unpack("d")
        if tag == _STRING:
            return self._string()
        if tag == _BOOLEAN:
            return bool(self._unpack("i"))
        if tag not in (_TABLE, _OBJECT):
            raise ValueError(f"unknown type {tag} at byte {self._at}")
        index = self._unpack("i")
        if index in self._known:
            return self._known[index]
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"objects nested deeper than {_MAX_DEPTH}")
        found = self._table(index) if tag == _TABLE else self._object(index)
        self._depth -= 1
        return found

    def _table(self, index: int) -> dict[Any, Any]:
        table: dict[Any, Any] = {}
        self._known[index] = table
        for _ in range(self._unpack("i")):
            key = self.value()
            table[key] = self.value()
        return table

    def _object(self, index: int) -> Any:
        version = self._string()
        name = self._string() if version.startswith("V ") else version
        kind = name.removeprefix("torch.")
        found: Any
        if kind.endswith("Storage"):
            dtype = np.dtype(_STORAGES[kind.removesuffix("Storage")])
            count = self._unpack("q")
            found = np.frombuffer(self._bytes(count * dtype.itemsize), dtype)
        elif kind.endswith("Tensor"):
            found = self._tensor()
        else:
            found = {"__class__": name, **(self.value() or {})}
        self._known[index] = found
        return found

    def _tensor(self) -> np.ndarray:
        dims = self._unpack("i")
        size = [self._unpack("q") for _ in range(dims)]
        stride = [self._unpack("q") for _ in range(dims)]
        offset = self._unpack("q") - 1
        storage = self.value()
        if storage is None:
            return np.empty(0, np.float32)
        if not isinstance(storage, np.ndarray):
            raise ValueError(f"a tensor whose storage is a {type(storage).__name__}")
        last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        # a stride of 0 would make a tensor of any size from a single number
        if min(size, default=0) < 1 or min(stride) < 1 or not 0 <= offset <= last < len(storage):
            raise ValueError(
                f"tensor of size {size}, stride {stride}, offset {offset} outside its {len(storage)} values"
            )
        step = storage.itemsize
        view = np.lib.stride_tricks.as_strided(storage[offset:], size, [s * step for s in stride], writeable=False)
        return view.copy()
