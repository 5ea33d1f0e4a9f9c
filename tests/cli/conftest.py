"""The command line called in-process, and a folder of images."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from torch import nn

pytest.importorskip("cv2")
pytest.importorskip("h5py")
pytest.importorskip("PIL.Image")
pytest.importorskip("skimage")
pytest.importorskip("tqdm")

from kornia_lift.cli import main
from tests.helpers.cli import Answer, astronaut, save, sift


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Run ``kornia-lift`` in an empty folder with SIFT instead of LIFT."""
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below."""
    pixels = astronaut(128)
    for name, part in {
        "a.png": pixels,
        "b.jpg": pixels[:, ::-1],
        "deep/c.png": pixels[::-1, :, 0],
    }.items():
        save(tmp_path / "photos" / name, np.ascontiguousarray(part))
    return tmp_path / "photos"
