"""A small file of Torch 7."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def torch7(path: Path) -> None:
    """A table with a flag, a tensor and a reference to it."""

    def integer(*values: int) -> bytes:
        return np.array(values, "<i4").tobytes()

    def text(value: str) -> bytes:
        return integer(len(value)) + value.encode()

    storage = integer(4, 3) + text("V 1") + text("torch.FloatStorage") + np.array([4], "<i8").tobytes()
    storage += np.array([1, 2, 3, 4], "<f4").tobytes()
    tensor = integer(4, 2) + text("V 1") + text("torch.FloatTensor") + integer(2)
    tensor += np.array([2, 2, 2, 1, 1], "<i8").tobytes() + storage
    table = integer(3, 1, 3) + integer(2) + text("flag") + integer(5, 1) + integer(2) + text("x") + tensor
    path.write_bytes(table + integer(2) + text("again") + integer(4, 2))
