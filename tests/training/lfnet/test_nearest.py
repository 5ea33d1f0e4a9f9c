"""The nearest point of every pixel by a distance transform is that of all distances, but for the middles."""

from __future__ import annotations

import pytest
import torch

from kornia_lift.training.lfnet.nearest import nearest_point

SIZE, REACH = 64, 12.0


def pixels() -> torch.Tensor:
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return torch.stack([column, row], -1).view(-1, 2).float()


def test_points_are_the_nearest_ones_within_reach() -> None:
    pytest.importorskip("cv2")
    points = torch.rand(40, 2, generator=torch.Generator().manual_seed(0)) * (SIZE + 40) - 20  # some of them outside
    distance = torch.cdist(pixels(), points)
    found = distance.gather(1, nearest_point(points, SIZE, REACH)[:, None])[:, 0]
    least = distance.amin(1)
    within = least <= REACH
    assert 0.5 < within.float().mean() < 1
    assert (found - least)[within].max() < 2  # whole pixels, and a distance of 5x5 steps
    assert (found - least)[within].mean() < 0.05
    assert (found[~within] > REACH).all()


def test_without_any_point_near_no_pixel_is_within_reach() -> None:
    pytest.importorskip("cv2")
    points = torch.tensor([[500.0, 10.0], [float("nan"), 0.0]])
    found = nearest_point(points, SIZE, REACH)
    assert found.shape == (SIZE * SIZE,) and (found == 0).all()
