"""Images that are read as single ones: what is assumed of them is said, and images of one scene are noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.cli import main
from kornia_lift.training.data.prepare.one_scene import IMAGES, overlapping_pairs
from tests.helpers.tiny_recipes import TINY
from tests.helpers.training import picture


@pytest.fixture(autouse=True)
def _single_images_are_not_matched() -> None:
    """Here they are."""


def views(count: int = 3) -> list[np.ndarray]:
    scene = picture(4, 520)
    return [scene[30 * k : 30 * k + 360, 50 * k : 50 * k + 400] for k in range(count)]


@pytest.fixture(params=["one scene", "different"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    cv2 = pytest.importorskip("cv2")
    made = tmp_path / str(request.param)
    made.mkdir()
    images = views() if request.param == "one scene" else [picture(k, 400) for k in range(3)]
    for k, image in enumerate(images):
        cv2.imwrite(str(made / f"{k}.png"), image)
    return made


@pytest.mark.parametrize("command", ["train", "check-dataset", "build-dataset"])
def test_what_is_assumed_is_said_and_one_scene_is_noticed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(TINY.format(data=folder.as_posix()))
    words = {
        "train": ["train", str(config), "--out", str(tmp_path / "run"), "--stages", "repeatable"],
        "check-dataset": ["check-dataset", str(folder)],
        "build-dataset": ["build-dataset", str(folder), "--single", "--out", str(tmp_path / "set")],
    }
    assert main(words[command]) == 0
    said = capsys.readouterr().err
    if command != "build-dataset":  # which was asked for single images
        assert f"{folder}: 3 images without cameras, taken as single images of different things" in said
        assert f"one scene, reconstruct it first: `kornia-lift build-dataset {folder} --out DATASET`" in said
    warned = f"warning: {folder.name}: the images are read as single ones" in said
    assert warned == (folder.name == "one scene")
    assert ("3 of 3 pairs of 3 of them overlap" in said) == warned


def test_few_of_many_images_are_matched() -> None:
    images = [torch.from_numpy(picture(k, 96)) for k in range(9)]
    assert overlapping_pairs(images)[1:] == (IMAGES * (IMAGES - 1) // 2, IMAGES)
    assert overlapping_pairs(images[:1]) == (0, 0, 0)
    flat = [torch.full((96, 96), 90, dtype=torch.uint8)] * 3
    assert overlapping_pairs(flat) == (0, 3, 3)
