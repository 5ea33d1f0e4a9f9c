"""Seeded damage of files: of bytes, of texts, of JSON values, of the members of a zip and the header of an array."""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator
Mutator = Callable[[bytes, Random], bytes]

_WORDS = (b"-1", b"nan", b"inf", b"1e999", b"9" * 400, b"[", b"{", b'"', b"null", b"\0", b"true", b"[" * 3000, b"../x",
          b"\xff\xfe", b"0", b"1e300")  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"
_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 2**62, -(2**40), 0.5, 1e300, float("nan"), float("inf"), "", "x" * 5000, "../../x",
    "\0", [], [[]], {}, {"a": [1]}, [1, "a", None], "nan", {"": None},
)  # fmt: skip


def flip(raw: bytes, rng: Random) -> bytes:
    """Change, cut, repeat, insert or zero some bytes."""
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 4))):
        where, length = int(rng.integers(len(data) + 1)), int(rng.integers(1, 64))
        kind = int(rng.integers(7))
        if kind == 0:
            for k in rng.integers(0, max(1, len(data)), min(length, 8)):
                if k < len(data):
                    data[k] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[where:]
        elif kind == 2:
            del data[where : where + length]
        elif kind == 3:
            data[where:where] = rng.bytes(length)
        elif kind == 4:
            data[where : where + length] = bytes([(0, 255, 127)[int(rng.integers(3))]]) * length
        elif kind == 5:
            other = int(rng.integers(len(data) + 1))
            data[where:where] = data[other : other + length]
        else:  # a length or an offset that promises too much
            where = 4 * (where // 4)
            value = (2**31 - 1, 2**63 - 1, 2**64 - 1, 10**9, 1)[int(rng.integers(5))]
            data[where : where + 8] = struct.pack("<Q", value)
    return bytes(data)


def png(raw: bytes, rng: Random) -> bytes:
    """Damage the content of chunks of a PNG file and give them the checksum of that; or damage any bytes."""
    if rng.integers(4) == 0:
        return flip(raw, rng)
    chunks, start = [], len(_PNG)
    while start < len(raw):
        (length,) = struct.unpack_from(">I", raw, start)
        chunks.append((raw[start + 4 : start + 8], raw[start + 8 : start + 8 + length]))
        start += 12 + length
    at = int(rng.integers(len(chunks)))
    kind, content = chunks[at]
    if kind == b"IDAT" and rng.integers(2):  # what is compressed, not the compressed bytes
        content = zlib.compress(flip(zlib.decompress(content), rng))
    else:
        content = flip(content, rng)
    action = int(rng.integers(6))
    if action == 0:
        chunks.insert(int(rng.integers(len(chunks))), (kind, content))
    elif action == 1:
        del chunks[at]
    else:
        chunks[at] = kind, content
    return _PNG + b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)


def words(raw: bytes, rng: Random) -> bytes:
    """Replace words of a text, or its bytes."""
    kind = int(rng.integers(4))
    if kind == 0:
        return flip(raw, rng)
    data = bytearray(raw)
    if kind == 1:  # other numbers of the same length
        digits = [k for k, byte in enumerate(data) if chr(byte).isdecimal()]
        for k in rng.permutation(digits)[: int(rng.integers(1, 4))] if digits else []:
            data[k] = b"0123456789-."[int(rng.integers(12))]
        return bytes(data)
    for _ in range(int(rng.integers(1, 3))):
        where = int(rng.integers(len(data) + 1))
        data[where : where + int(rng.integers(0, 8))] = _WORDS[int(rng.integers(len(_WORDS)))]
    return bytes(data)


def json_values(raw: bytes, rng: Random) -> bytes:
    """Replace, remove or add a value anywhere in a JSON text, or damage the text."""
    if rng.integers(4) == 0:
        return words(raw, rng)
    try:
        content = json.loads(raw)
    except ValueError:
        return words(raw, rng)
    for _ in range(int(rng.integers(1, 3))):
        content = _change(content, rng)
    return json.dumps(content).encode()


def json_lines(raw: bytes, rng: Random) -> bytes:
    """The same for one line of a log."""
    lines = raw.splitlines()
    at = int(rng.integers(len(lines)))
    lines[at] = json_values(lines[at], rng)
    return b"\n".join(lines)


def safetensors(raw: bytes, rng: Random) -> bytes:
    """Change the header's values, or the bytes."""
    if rng.integers(3) == 0:
        return flip(raw, rng)
    size = int.from_bytes(raw[:8], "little")
    header = json_values(raw[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + raw[8 + size :]


def zipped(raw: bytes, rng: Random) -> bytes:
    """Change a member of a zip of arrays: its bytes, header, name or type; or bytes of the zip."""
    if rng.integers(3) == 0:
        return flip(raw, rng)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = list(members)[int(rng.integers(len(members)))]
    kind = int(rng.integers(6))
    twice = False
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = flip(members[name], rng)
    elif kind == 2:
        twice = True
    elif name.endswith(".npy"):
        members[name] = _array(members[name], rng)
    else:
        members[name] = words(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if rng.integers(2) else zipfile.ZIP_STORED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        if twice:
            archive.writestr(zipfile.ZipInfo("extra.npy"), members[name])
    return out.getvalue()


def array(raw: bytes, rng: Random) -> bytes:
    """Change a ``.npy`` file: its bytes, or what it holds."""
    return flip(raw, rng) if rng.integers(2) else _array(raw, rng)


def _array(raw: bytes, rng: Random) -> bytes:
    kind = int(rng.integers(5))
    if kind == 0:  # a header that promises something else
        shapes = ("(1000000000, 1000000000)", "(-1,)", "()", "(3, 0)", "(2**60,)", "(9,)")
        types = ("'<f8'", "'|O'", "'<U9'", "'|V8'", "[('a', '<f8')]", "'>i4'", "'<M8[s]'")
        text = (
            f"{{'descr': {types[int(rng.integers(len(types)))]}, 'fortran_order': {bool(rng.integers(2))}, "
            f"'shape': {shapes[int(rng.integers(len(shapes)))]}, }}\n"
        ).encode()
        end = 10 + int.from_bytes(raw[8:10], "little")
        return raw[:8] + len(text).to_bytes(2, "little") + text + raw[end:]
    try:
        with io.BytesIO(raw) as file:
            values = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        return flip(raw, rng)
    if kind == 1 and values.size and values.dtype.kind in "fiub":
        values = values.copy()
        strange = (np.nan, np.inf, -1.0, 0.0, 1e9) if values.dtype.kind == "f" else (0, 1, 100)
        values.reshape(-1)[int(rng.integers(values.size))] = strange[int(rng.integers(len(strange)))]
    elif kind == 2:
        kinds = (np.float16, np.int8, np.str_, np.complex64, bool)
        values = values.astype(kinds[int(rng.integers(5))]) if values.dtype.kind in "fiub" else np.zeros(values.shape)
    elif kind == 3:
        values = np.expand_dims(values, 0) if rng.integers(2) else values.reshape(-1)
    else:
        values = np.repeat(np.atleast_1d(values), int(rng.integers(0, 3)), axis=0)
    out = io.BytesIO()
    np.save(out, values, allow_pickle=False)
    return out.getvalue()


def _change(content: Any, rng: Random) -> Any:
    """Walk to a random value and change it."""
    if isinstance(content, dict | list) and content and rng.integers(5):
        key = list(content)[int(rng.integers(len(content)))] if isinstance(content, dict) else None
        place: Any = int(rng.integers(len(content))) if key is None else key
        action = int(rng.integers(8))
        if action == 0:
            del content[place]
        elif action == 1 and isinstance(content, dict):
            content[("x", "", "a.b", "__class__")[int(rng.integers(4))]] = copy.deepcopy(content[place])
        else:
            content[place] = _change(content[place], rng)
        return content
    return copy.deepcopy(_VALUES[int(rng.integers(len(_VALUES)))])


def write(path: Path, raw: bytes, mutator: Mutator, rng: Random) -> None:
    """Write the damaged file."""
    path.write_bytes(mutator(raw, rng))
