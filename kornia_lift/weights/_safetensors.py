"""Read the safetensors format with torch alone, so that the core package needs no further dependency.

A file is: 8 bytes little-endian header length, a JSON header, the raw tensors. Nothing in it is executed.
Format: https://github.com/huggingface/safetensors (README, "Format"). Writing needs the ``safetensors`` package.
Files that this package writes hold a checksum in their metadata; :func:`parse_safetensors` compares it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kornia_lift._extras import require
from kornia_lift._io import DamagedFileError, atomic_write, parse_json, read_bytes

MAX_BYTES = 2**28  # of a file; the largest shipped one has 5 MB
MAX_HEADER_BYTES = 2**22
CHECKSUM = "sha256"  # key of the metadata
_METADATA = "__metadata__"
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_COUNTERS = {"I64": torch.int64}  # batch normalisation counts its batches in a scalar


class WeightFileError(ValueError):
    """A weight file that cannot be read, or does not contain what was asked of it."""


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a ``.safetensors`` file.

    Args:
        path: the file.

    Returns:
        The tensors by name, and the text metadata of the header without the checksum.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightFileError: if it is not a regular file of at most 256 MiB in safetensors format, is damaged, has tensors
            of integers (but for scalars, which count) or of numbers that are not finite, or does not have the checksum
            that it names.

    """
    try:
        return parse_safetensors(read_bytes(Path(path), MAX_BYTES))
    except DamagedFileError as error:
        raise WeightFileError(f"{error}; expected a file written by safetensors.torch.save_file") from error
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise WeightFileError(
            f"{path} is not a readable safetensors file ({error}). Expected a file written by "
            "safetensors.torch.save_file; fetch or copy it again if it was cut off"
        ) from error


def parse_safetensors(raw: bytes, checked: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parse the bytes of a safetensors file.

    Args:
        raw: the bytes.
        checked: they are known to be those that were released: their own checksum and numbers are not looked at again,
            which would take as long as all the rest, several times for each model.

    Raises:
        ValueError: if they are not one, or tensors do not cover the bytes behind the header exactly, without gap or
            overlap; KeyError, TypeError or OverflowError if the header is malformed.

    """
    header, data = _split(raw)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are not texts by name")
    spans: list[tuple[int, int]] = []
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        tensors[name], span = _tensor(name, entry, data)
        spans.append(span)
    end = 0
    for begin, next_end in sorted(spans):
        if begin != end:
            raise ValueError(f"its tensors {'overlap' if begin < end else 'leave a gap'} at byte {min(begin, end)}")
        end = next_end
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes follow the last tensor")
    expected = metadata.pop(CHECKSUM, None)
    if expected is not None and not checked:
        found = _checksum(header, metadata, data)
        if found != expected:
            raise ValueError(f"its checksum is {found[:16]}..., expected {expected[:16]}...: it was changed")
    if not checked and not _all_finite(tensors):
        name = next(name for name, tensor in tensors.items() if not tensor.isfinite().all())
        raise ValueError(f"tensor {name} contains NaN or infinity")
    return tensors, metadata


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and texts with a checksum of both, complete or not at all.

    Args:
        path: the file.
        tensors: floating-point tensors and whole scalars by name; they may lie on any device.
        metadata: texts by name.

    Raises:
        MissingExtraError: if the package safetensors is not installed.
        ValueError: if a tensor is not floating point or not finite, or the metadata hold the name of the checksum.

    """
    to_bytes = require("safetensors.torch", extra="train").save
    if CHECKSUM in metadata:
        raise ValueError(f"metadata name {CHECKSUM!r} is reserved for the checksum")
    # contiguous and on the CPU: the file stores neither strides nor devices
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        counter = tensor.ndim == 0 and tensor.dtype in _COUNTERS.values()
        if not (tensor.dtype in _FLOATS.values() or counter) or not tensor.isfinite().all():
            raise ValueError(
                f"cannot write {path}: tensor {name}, {tensor.dtype}, is not floating point or contains NaN or infinity"
            )
    header, data = _split(to_bytes(plain, dict(metadata)))
    header.pop(_METADATA, None)
    texts = {**metadata, CHECKSUM: _checksum(header, metadata, data)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(to_bytes(plain, texts))  # save_file would make it unreadable for other users


def _all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Check all tensors of one dtype at once: a hundred small checks take longer than reading the file."""
    kinds = {tensor.dtype for tensor in tensors.values()}
    return all(
        bool(torch.cat([t.flatten() for t in tensors.values() if t.dtype == kind]).isfinite().all()) for kind in kinds
    )


def _split(raw: bytes) -> tuple[dict[str, Any], memoryview]:
    """Return the header and the bytes behind it."""
    if len(raw) < 8:
        raise ValueError(f"only {len(raw)} bytes")
    size = int.from_bytes(raw[:8], "little")
    if size > min(len(raw) - 8, MAX_HEADER_BYTES):
        raise ValueError(f"header of {size} bytes in a file of {len(raw)}")
    header = parse_json(raw[8 : 8 + size].decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is not a table of tensors")
    return header, memoryview(raw)[8 + size :]


def _tensor(name: str, entry: Any, data: memoryview) -> tuple[Tensor, tuple[int, int]]:
    """Return one tensor, and where its bytes begin and end."""
    if not isinstance(entry, dict):
        raise ValueError(f"tensor {name!r} has no description")
    shape, offsets = entry["shape"], entry["data_offsets"]
    dtypes = _FLOATS | _COUNTERS if shape == [] else _FLOATS
    if entry["dtype"] not in dtypes:
        raise ValueError(f"tensor {name!r} {shape} has dtype {entry['dtype']}, supported are {', '.join(dtypes)}")
    dtype = dtypes[entry["dtype"]]
    if not all(isinstance(part, list) and all(type(n) is int for n in part) for part in (shape, offsets)):
        raise ValueError(f"tensor {name!r} has the shape {shape!r} and the offsets {offsets!r}")
    begin, end = offsets
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or not 0 <= begin <= end <= len(data) or end - begin != size:
        raise ValueError(f"tensor {name!r} {shape} does not fit the file: bytes {begin} to {end} of {len(data)}")
    if not size:
        return torch.empty(shape, dtype=dtype), (begin, end)
    # a copy per tensor: aligned, writable and independent of the file's buffer
    return torch.frombuffer(bytearray(data[begin:end]), dtype=dtype).reshape(shape), (begin, end)


def _checksum(header: Mapping[str, Any], metadata: Mapping[str, str], data: memoryview) -> str:
    """Return the SHA-256 of everything in a file except the checksum itself."""
    digest = hashlib.sha256(json.dumps([header, dict(metadata)], sort_keys=True).encode())
    digest.update(data)
    return digest.hexdigest()
