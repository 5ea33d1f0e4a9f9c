"""Read TILDE's filters: the text files of the release, and files that this package trained."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from kornia_lift._io import DamagedFileError, parse_json, read_text
from kornia_lift.convert.tilde import TILDEResponse
from kornia_lift.weights import WeightFileError, load_network, load_tensors

MAX_BYTES = 64 * 2**20  # the largest released file has 1 MB
_MOST = 256  # largest number in a header


def load_tilde(path: str | os.PathLike[str]) -> TILDEResponse:
    """Load a filter file of TILDE: separable (``Mexico24.txt``, ``NewMexico8_1c.txt``) or full (``Mexico.txt``).

    Args:
        path: the file, or a ``.safetensors`` file that ``kornia-lift train tilde`` wrote.

    Returns:
        The network in eval mode, for images in [0, 1].

    Raises:
        FileNotFoundError: if there is no such file.
        kornia_lift.weights.WeightFileError: if the file is not such a text, or describes another network.

    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no weight file {path}")
    if path.suffix == ".safetensors":
        return _trained(path)
    try:
        rows = _Rows(read_text(path, MAX_BYTES).splitlines())
        rows.take(1)  # the ratio by which the release resizes images
        header = rows.integers()
        network = _separable(header, rows) if len(header) == 5 else _full(header, rows)
        rows.end()
    except DamagedFileError as error:
        raise WeightFileError(f"{error}; expected a TILDE filter file") from error
    except ValueError as error:
        raise WeightFileError(f"{path} is not a TILDE filter file: {error}") from error
    return network.eval()


def _trained(path: Path) -> TILDEResponse:
    """Read filters that this package trained; their number and size are in the metadata."""
    metadata = load_tensors(path)[1]
    try:
        options = parse_json(metadata.get("config", ""))
        shape = tuple(int(options[name]) for name in ("num_sum", "num_max", "channels", "filter_size"))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise WeightFileError(f"{path} does not say which filters of TILDE it holds") from None
    num_sum, num_max, channels, size = shape
    if not all(0 < n <= _MOST for n in shape) or channels not in (1, 6) or size % 2 == 0:
        raise WeightFileError(f"{path} describes filters of an impossible size: {shape}")
    network = TILDEResponse(num_sum, num_max, channels, size, rank=0, gain=1.0)
    load_network(network, "tilde", path)
    return network


class _Rows:
    """The numbers of a text, line by line."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0

    def numbers(self) -> list[float]:
        if self._at >= len(self._lines):
            raise ValueError(f"it ends after {self._at} lines")
        self._at += 1
        try:
            return [float(word) for word in self._lines[self._at - 1].split()]
        except ValueError as error:
            raise ValueError(f"line {self._at}: {error}") from error

    def take(self, count: int) -> list[float]:
        found = self.numbers()
        if len(found) != count:
            raise ValueError(f"line {self._at}: expected {count} numbers, got {len(found)}")
        return found

    def block(self, rows: int, columns: int) -> Tensor:
        return torch.tensor([self.take(columns) for _ in range(rows)], dtype=torch.float64)

    def integers(self) -> list[int]:
        found = self.numbers()
        if len(found) not in (3, 5) or not all(0 < n <= _MOST and n == int(n) for n in found):
            raise ValueError(f"line {self._at}: expected a header of 3 or 5 whole numbers, got {found[:8]}")
        return [int(n) for n in found]

    def at_end(self) -> bool:
        return not any(line.strip() for line in self._lines[self._at :])

    def end(self) -> None:
        if not self.at_end():
            raise ValueError(f"lines from {self._at + 1} on are more than the header announces")


def _check(channels: int, size: int) -> None:
    if channels not in (1, 6) or size % 2 == 0:
        raise ValueError(f"expected 1 or 6 channels and an odd size, got {channels} and {size}")


def _separable(header: list[int], rows: _Rows) -> TILDEResponse:
    num_max, num_sum, rank, channels, size = header
    _check(channels, size)
    inner, filters = channels * rank, num_sum * num_max
    network = TILDEResponse(num_sum, num_max, channels, size, rank)
    bias = torch.tensor(rows.take(filters), dtype=torch.float64)
    mixing = rows.block(filters, inner)
    pairs = rows.block(2 * inner, size).view(inner, 2, size)
    _fill(network.bias, bias)
    _fill(network.mixing, mixing[:, :, None, None])
    _fill(network.vertical, pairs[:, 0, None, :, None])
    _fill(network.horizontal, pairs[:, 1, None, None, :])
    return network


def _full(header: list[int], rows: _Rows) -> TILDEResponse:
    num_max, channels, size = header
    _check(channels, size)
    weights: list[Tensor] = []
    bias: list[float] = []
    num_sum = 0
    while header:
        if header != [num_max, channels, size]:
            raise ValueError(f"its groups differ: {header} and {[num_max, channels, size]}")
        num_sum += 1
        for _ in range(num_max):
            weights.append(rows.block(channels * size, size).view(channels, size, size))
            bias += rows.take(1)
        header = [] if rows.at_end() else rows.integers()
    if num_sum != 4:  # the header does not say, and a file may be cut off between two groups
        raise ValueError(f"expected 4 groups of filters, got {num_sum}")
    network = TILDEResponse(num_sum, num_max, channels, size, rank=0)
    _fill(network.weight, torch.stack(weights) * size**2)  # the released filters are divided by their area
    _fill(network.bias, torch.tensor(bias, dtype=torch.float64))
    return network


def _fill(parameter: Tensor, values: Tensor) -> None:
    if not values.isfinite().all():
        raise ValueError("it holds NaN or infinity")
    with torch.no_grad():
        parameter.copy_(values.view(parameter.shape))
