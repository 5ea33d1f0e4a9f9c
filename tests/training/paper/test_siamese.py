"""The training branch against oracles, and its gradients against finite differences."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kornia_lift.geometry import crop_rotate
from kornia_lift.networks.descriptor import LIFTDescriptor
from kornia_lift.networks.orientation import LIFTOrientation
from kornia_lift.networks.response import LIFTResponse
from kornia_lift.training.paper.siamese import (
    describe,
    freeze,
    locate,
    nearest_is_correct,
    orient,
    precision_area,
    rotate_offsets,
    score_map,
)


def test_the_detector_matches_the_oracle(shared: Path) -> None:
    with np.load(shared / "oracles" / "detector_patch.npz", allow_pickle=False) as file:
        oracle = {k: torch.from_numpy(np.asarray(file[k], dtype=np.float64)) for k in file}
    response = LIFTResponse(False, mean=oracle["mean"], std=oracle["std"]).double()
    with torch.no_grad():
        response.conv.weight.copy_(oracle["W"])
        response.conv.bias.copy_(oracle["b"])
    patches = oracle["patches48"][:, None]
    if patches.abs().max() < 20:  # stored normalised
        patches = patches * oracle["std"] + oracle["mean"]
    torch.testing.assert_close(score_map(response, patches)[:, 0], oracle["scoremap"], atol=1e-5, rtol=1e-5)
    xy, score = locate(response, patches)
    torch.testing.assert_close(xy, oracle["xy"], atol=1e-5, rtol=0)
    torch.testing.assert_close(score, oracle["score"], atol=1e-5, rtol=1e-5)


def test_a_128_pixel_patch_is_resized_as_in_the_oracle(shared: Path) -> None:
    with np.load(shared / "oracles" / "stn_crop_rot.npz", allow_pickle=False) as file:
        big, small = (torch.from_numpy(file[k])[None, None].double() for k in ("patch128", "resize48"))
    response = LIFTResponse(False).double()
    torch.testing.assert_close(score_map(response, big), score_map(response, small), atol=1e-6, rtol=1e-6)


def test_orientation_is_converted_to_lifts_sense() -> None:
    class Reports(nn.Module):
        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            return torch.full((len(patch),), 0.3)  # kornia's sense

    assert orient(Reports(), torch.rand(2, 1, 128, 128), torch.zeros(2, 2)).tolist() == pytest.approx([-0.3, -0.3])


def test_a_descriptor_of_another_size_sees_the_same_support() -> None:
    class Pixels(nn.Module):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.patch_size = size

        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            return patch.flatten(1)

    ramp = torch.linspace(-1, 1, 128).expand(1, 1, 128, 128)
    at = (ramp, torch.zeros(1, 2), torch.zeros(1))
    for size in (32, 41, 64):
        row = describe(Pixels(size), *at).view(size, size)[0]
        # cells tile +-6 sigma * 64/63: the first centre lies half a cell inside
        edge = 0.5 * 64 / 63 * (1 - 1 / size)
        assert row[0].item() == pytest.approx(-edge, abs=1e-4)
        assert row[-1].item() == pytest.approx(edge, abs=1e-4)


def test_gradients_reach_the_detector_through_the_frozen_rest() -> None:
    response, orientation, descriptor = LIFTResponse(False), LIFTOrientation(False), LIFTDescriptor(False)
    freeze([orientation, descriptor])
    assert not orientation.training
    patch = torch.rand(2, 1, 128, 128)
    xy, _ = locate(response, patch)
    describe(descriptor, patch, xy, orient(orientation, patch, xy)).sum().backward()
    assert response.conv.weight.grad is not None
    assert response.conv.weight.grad.abs().sum() > 0
    assert all(p.grad is None for m in (orientation, descriptor) for p in m.parameters())


def test_gradient_of_location_and_angle_is_that_of_finite_differences() -> None:
    y, x = torch.meshgrid(*(torch.linspace(-3, 3, 128, dtype=torch.float64),) * 2, indexing="ij")
    patch = torch.stack([torch.sin(x) * torch.cos(0.7 * y), torch.cos(x + y)])[:, None]
    xy = torch.tensor([[0.013, 0.021], [-0.1, 0.05]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.3, -1.1], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(1, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def value(xy: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
        return (crop_rotate(patch, xy, theta, size=16) * weight).sum()

    assert torch.autograd.gradcheck(value, (xy, theta), eps=1e-7, atol=1e-4)


def test_offsets_rotate_clockwise_on_screen() -> None:
    rotated = rotate_offsets(torch.tensor([[1.0, 0.0]]), torch.tensor([math.pi / 2]))
    torch.testing.assert_close(rotated, torch.tensor([[0.0, 1.0]]), atol=1e-6, rtol=0)


def test_precision_area_by_hand() -> None:
    distance = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert precision_area(distance, torch.tensor([True, True, False, False])) == 1
    assert precision_area(distance, torch.tensor([False, True, False, True])) == pytest.approx(0.5)
    assert precision_area(distance, torch.tensor([True, False, False, True])) == pytest.approx(0.75)


def test_nearest_is_correct_compares_all() -> None:
    first, second = torch.tensor([[0.0], [5.0], [9.0]]), torch.tensor([[1.0], [8.0], [9.5]])
    assert nearest_is_correct(first, second).tolist() == [True, True, True]
    assert nearest_is_correct(first, second[[1, 0, 2]]).tolist() == [False, False, True]
