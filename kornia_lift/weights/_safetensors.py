"""Read the safetensors format with torch alone, so that the core package needs no further dependency.

A file is: 8 bytes little-endian header length, a JSON header, the raw tensors. Nothing in it is executed.
Format: https://github.com/huggingface/safetensors (README, "Format"). Writing needs the ``safetensors`` package.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import torch
from torch import Tensor

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class WeightFileError(ValueError):
    """A weight file that cannot be read, or does not contain what was asked of it."""


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a ``.safetensors`` file.

    Args:
        path: the file.

    Returns:
        The tensors by name, and the string metadata of the header.

    Raises:
        FileNotFoundError: if there is no such file.
        WeightFileError: if the file is not in safetensors format, is truncated, or has an unsupported dtype.

    """
    raw = Path(path).read_bytes()
    try:
        return parse_safetensors(raw)
    except (KeyError, TypeError, ValueError, RecursionError, AttributeError) as error:
        raise WeightFileError(
            f"{path} is not a readable safetensors file ({error}). Expected a file written by "
            "safetensors.torch.save_file; fetch or copy it again if it was cut off"
        ) from error


def parse_safetensors(raw: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parse the bytes of a safetensors file; raises ``ValueError`` or ``KeyError`` where they are not one."""
    if len(raw) < 8:
        raise ValueError(f"only {len(raw)} bytes")
    header_end = 8 + int.from_bytes(raw[:8], "little")
    if header_end > len(raw):
        raise ValueError(f"header of {header_end} bytes in a file of {len(raw)}")
    header = json.loads(raw[8:header_end])
    metadata = header.pop("__metadata__", {})
    tensors: dict[str, Tensor] = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"tensor {name!r} has dtype {entry['dtype']}, supported are {', '.join(_DTYPES)}")
        dtype, shape = _DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
        begin, end = (header_end + int(offset) for offset in entry["data_offsets"])
        size = math.prod(shape) * torch.empty((), dtype=dtype).element_size()
        if min(shape, default=1) < 0 or not header_end <= begin <= end <= len(raw) or end - begin != size:
            raise ValueError(f"tensor {name!r} {shape} does not fit the file: bytes {begin} to {end} of {len(raw)}")
        # a copy per tensor: aligned, writable and independent of the file's buffer
        tensors[name] = (
            torch.frombuffer(bytearray(raw[begin:end]), dtype=dtype).reshape(shape)
            if size
            else (torch.empty(shape, dtype=dtype))
        )
    return tensors, metadata
