"""A quick feature, photographs made on the spot, and the command line called in-process."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from kornia.feature import SIFTFeature
from torch import nn

pytest.importorskip("cv2")
pytest.importorskip("h5py")
pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")
pytest.importorskip("tqdm")

import h5py

from kornia_lift.cli import main
from kornia_lift.features import Features

NAMES = ["a.png", "b.jpg", "deep/c.png"]  # of the fixture ``folder``
OPTIONS = ("-n", 60)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


def sift(args: argparse.Namespace) -> nn.Module:
    """A feature without learned weights: what is tested here is the command, not LIFT."""
    return SIFTFeature(args.num_features, upright=args.upright)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Run ``kornia-lift`` in an empty folder with SIFT in the place of LIFT."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)

    def run(*argv: object, make_feature: Callable[[argparse.Namespace], nn.Module] = sift) -> Answer:
        try:
            code = main([str(arg) for arg in argv], make_feature=make_feature)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


def astronaut(size: int = 160) -> np.ndarray:
    """A real photograph, reduced, (size, size, 3) uint8."""
    import cv2
    from skimage import data

    return np.asarray(cv2.resize(data.astronaut(), (size, size), interpolation=cv2.INTER_AREA))


def save(path: Path, pixels: np.ndarray) -> Path:
    """Write an RGB or gray array in the format of the suffix."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, one of them in a folder below."""
    pixels = astronaut(128)
    for name, part in {
        "a.png": pixels,
        "b.jpg": pixels[:, ::-1],
        "deep/c.png": pixels[::-1, :, 0],
    }.items():
        save(tmp_path / "photos" / name, np.ascontiguousarray(part))
    return tmp_path / "photos"


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


def described(count: int) -> Features:
    rng = np.random.default_rng(0)
    descriptors = rng.random((count, 128), dtype=np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(
        rng.random((count, 2)) * 50, descriptors, rng.random(count), np.full(count, 2.0), np.zeros(count), (64, 64)
    )
