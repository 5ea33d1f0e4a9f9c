"""Patches cut from the atlas are those of OpenCV and of kornia."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import extract_patches_simple

from kornia_lift.geometry import lafs_from_lift
from kornia_lift.training.paper.atlas import ImageAtlas, gray_statistics, rotated_axes
from tests.helpers.rotated_scene import texture


def smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return ((x + y) * 0.6).to(torch.uint8)


def test_a_pixel_grid_comes_back_exactly() -> None:
    images = [torch.from_numpy(texture(40, 60, 1)), torch.from_numpy(texture(50, 30, 2))]
    atlas = ImageAtlas(images)
    axes = rotated_axes(torch.tensor([5.0, 5.0]), torch.zeros(2))
    patches = atlas.cut(torch.tensor([1, 0]), torch.tensor([[12.0, 20.0], [30.0, 10.0]]), axes, 11)
    assert torch.equal((patches[0, 0] * 255).round(), images[1][15:26, 7:18].float())
    assert torch.equal((patches[1, 0] * 255).round(), images[0][5:16, 25:36].float())


@pytest.mark.parametrize("theta", [0.0, 0.7, -2.5])
def test_a_rotated_patch_is_that_of_kornia(theta: float) -> None:
    image = torch.from_numpy(texture(120, 150, 3))
    xy, sigma = torch.tensor([[70.3, 55.8]]), torch.tensor([4.0])
    mine = ImageAtlas([image], levels=1).cut(torch.tensor([0]), xy, rotated_axes(6 * sigma, torch.tensor([theta])), 64)
    lafs = lafs_from_lift(xy[None], sigma[None], torch.tensor([[theta]]))
    theirs = extract_patches_simple(image[None, None].float() / 255, lafs, 64)[0]
    torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=0)


def test_a_clockwise_rotation_points_the_patch_axis_down() -> None:
    ramp = (2 * torch.arange(81)[:, None]).expand(81, 81).to(torch.uint8)  # brighter downwards
    axes = rotated_axes(torch.tensor([20.0]), torch.tensor([math.pi / 2]))
    patch = ImageAtlas([ramp]).cut(torch.tensor([0]), torch.tensor([[40.0, 40.0]]), axes, 9)[0, 0]
    assert (patch.diff(dim=1) > 0.01).all()


def test_large_patches_are_cut_from_the_smaller_copies_at_the_same_location() -> None:
    image = smooth(300, 100)
    axes = rotated_axes(torch.tensor([40.0]), torch.zeros(1))
    at = (torch.tensor([0]), torch.tensor([[50.0, 100.0]]), axes, 17)
    one, many = (ImageAtlas([image], levels=n).cut(*at) for n in (1, 3))
    torch.testing.assert_close(one, many, atol=1.5 / 255, rtol=0)


def test_no_aliasing() -> None:
    board = torch.from_numpy(np.indices((128, 128)).sum(axis=0) % 2 * 255).to(torch.uint8)
    axes = rotated_axes(torch.tensor([60.0]), torch.zeros(1))
    patch = ImageAtlas([board]).cut(torch.tensor([0]), torch.tensor([[63.3, 63.8]]), axes, 16)
    assert (patch - 0.5).abs().max() < 0.02


def test_beyond_the_border_the_image_is_replicated() -> None:
    image = torch.full((20, 20), 7, dtype=torch.uint8)
    image[:, -1] = 200
    other = torch.full((20, 20), 99, dtype=torch.uint8)
    axes = rotated_axes(torch.tensor([10.0]), torch.zeros(1))
    patch = ImageAtlas([image, other]).cut(torch.tensor([0]), torch.tensor([[24.0, 24.0]]), axes, 21)[0, 0] * 255
    assert set(patch.round().unique().tolist()) <= {7.0, 200.0}
    assert (patch[:, 5:].round() == 200).all()


def test_statistics(tmp_path: Path) -> None:
    mean, std = gray_statistics([torch.zeros(2, 2, dtype=torch.uint8), torch.full((2, 2), 255, dtype=torch.uint8)])
    assert mean == pytest.approx(0.5)
    assert std == pytest.approx(0.5)


def test_an_empty_atlas_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        ImageAtlas([])
