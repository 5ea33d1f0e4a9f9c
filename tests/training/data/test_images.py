"""Training images are read as all others: any depth, any orientation tag, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kornia_lift import ImageFileError
from kornia_lift.training.data.images import read_gray, scale_down
from tests.helpers.rotated_scene import texture


def test_sixteen_bits_are_reduced_to_eight(tmp_path: Path) -> None:
    gray = texture(40, 60, 1)
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray).save(tmp_path / "plain.png")
    expected = torch.from_numpy(gray)
    assert torch.equal(read_gray(tmp_path / "plain.png"), expected)
    assert torch.equal(read_gray(tmp_path / "deep.png"), expected)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_the_orientation_tag_is_applied_where_asked(tmp_path: Path, suffix: str) -> None:
    path, exif = tmp_path / f"rotated.{suffix}", Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    Image.fromarray(texture(40, 60, 2)).save(path, exif=exif)
    stored, shown = read_gray(path), read_gray(path, apply_exif=True)
    assert stored.shape == (40, 60)
    assert torch.equal(shown, stored.rot90(-1))


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1), (40, 80)])
def test_the_shorter_side_keeps_a_pixel(shape: tuple[int, int]) -> None:
    small = scale_down(torch.zeros(shape, dtype=torch.uint8), 64)
    assert max(small.shape) == 64 and min(small.shape) == max(1, 64 * min(shape) // max(shape))


def test_colour_becomes_luma(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8)).save(tmp_path / "colour.png")
    assert read_gray(tmp_path / "colour.png").unique().tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(texture(200, 200, 3)).save(path, quality=95)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ImageFileError, match=r"cut\.jpg as an image"):
        read_gray(path)
