"""What the tests of the command line share: a quick feature, small images, readers of what commands write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from kornia.feature import SIFTFeature
from torch import nn

NAMES = ["a.png", "b.jpg", "deep/c.png"]  # of the fixture ``folder``
OPTIONS = ("-n", 60)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


def sift(args: argparse.Namespace) -> nn.Module:
    """A feature without learned weights: what is tested here is the command, not LIFT."""
    return SIFTFeature(args.num_features, upright=args.upright)


def astronaut(size: int = 160) -> np.ndarray:
    """A real image, reduced, (size, size, 3) uint8."""
    import cv2
    from skimage import data

    return np.asarray(cv2.resize(data.astronaut(), (size, size), interpolation=cv2.INTER_AREA))


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an RGB or gray array in the format of the suffix."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def one_line(text: str) -> str:
    """The only line of a text."""
    lines: Sequence[str] = text.splitlines()
    assert len(lines) == 1, text
    return lines[0]


def contents(path: Path) -> dict[str, dict[str, np.ndarray]]:
    with h5py.File(path) as file:
        return {name: {key: file[name][key][()] for key in file[name]} for name in NAMES if name in file}


def options_of(path: str) -> dict[str, object]:
    with h5py.File(path) as file:
        return dict(json.loads(file.attrs["options"]))
