"""LIFT frames against kornia's LAFs, crops against the oracle, softargmax against closed forms."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import extract_patches_simple, get_laf_orientation, get_laf_scale
from torch.autograd import gradcheck

from kornia_lift import geometry


def tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array)).float()


def test_crop_and_rotation_reproduce_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/stn_crop_rot.npz")
    patch = tensor(oracle["patch128"])[None, None]
    out = geometry.crop_rotate(patch.expand(3, -1, -1, -1), tensor(oracle["xy"]), tensor(oracle["theta_rad"]))
    assert (out[:, 0] - tensor(oracle["out64"])).abs().max() < 1e-3
    whole = geometry.crop_rotate(patch, torch.zeros(1, 2), torch.zeros(1), size=48, ratio=1.0)
    assert (whole[0, 0] - tensor(oracle["resize48"])).abs().max() < 1e-3


def test_kornia_cuts_the_same_patch_as_lift(shared: Path) -> None:
    """The LAF of a LIFT frame selects exactly the pixels of LIFT's own crop: scale, sign and pixel centres agree."""
    oracle = np.load(shared / "oracles/stn_crop_rot.npz")
    patch = tensor(oracle["patch128"])[None, None]
    sigma = 63.5 / 12  # the 128-pixel patch spans 24 sigma between the centres of its first and last pixel
    xy = (tensor(oracle["xy"]) + 1) * 63.5
    lafs = geometry.lafs_from_lift(xy[None], torch.full((1, 3), sigma), tensor(oracle["theta_rad"])[None])
    out = extract_patches_simple(patch, lafs, 64)[0, :, 0]
    assert (out - tensor(oracle["out64"])).abs().max() < 1e-2  # of 255


def test_softargmax_and_patch_score_reproduce_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/detector_patch.npz")
    score = tensor(oracle["scoremap"])[:, None]
    assert (geometry.softargmax(score) - tensor(oracle["xy"])).abs().max() < 1e-5
    assert (geometry.patch_score(score) - tensor(oracle["score"])).abs().max() < 1e-5


def test_softargmax_of_a_sharp_peak_is_the_peak() -> None:
    score = torch.zeros(1, 1, 24, 24)
    score[0, 0, 9, 15] = 10.0
    # pixel c of the map is pixel c + 12 of the 48-pixel patch, whose centre is 23.5
    expected = [(15 + 12) / 23.5 - 1, (9 + 12) / 23.5 - 1]
    assert geometry.softargmax(score)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_softargmax_margin_keeps_the_rotated_patch_inside() -> None:
    assert geometry.softargmax_margin() == 5


def test_frames_survive_the_round_trip() -> None:
    xy, sigma = torch.rand(2, 5, 2) * 100, torch.rand(2, 5) * 5 + 1
    theta = (torch.rand(2, 5) - 0.5) * 6
    back = geometry.lift_from_lafs(geometry.lafs_from_lift(xy, sigma, theta))
    for found, expected in zip(back, (xy, sigma, theta), strict=True):
        assert torch.allclose(found, expected, atol=1e-4)


def test_signs_and_scale_of_the_frame() -> None:
    lafs = geometry.lafs_from_lift(torch.zeros(1, 1, 2), torch.tensor([[2.0]]), torch.tensor([[math.pi / 6]]))
    assert get_laf_scale(lafs).item() == pytest.approx(12 * 64 / 63, rel=1e-6)
    assert get_laf_orientation(lafs).item() == pytest.approx(-30, abs=1e-4)  # clockwise is negative in kornia
    # the patch's x axis points right and down on screen
    assert lafs[0, 0, 1, 0] > 0


def test_detector_resize_shows_sigma_two_almost_natively() -> None:
    assert geometry.level_resize(2.0) == pytest.approx(0.979167, abs=1e-6)


def test_gradients_of_the_crop_are_exact() -> None:
    patch = torch.nn.functional.interpolate(
        torch.rand(1, 1, 5, 5, dtype=torch.float64), size=(32, 32), mode="bicubic", align_corners=True
    )
    xy = torch.tensor([[0.05, -0.1]], dtype=torch.float64, requires_grad=True)
    theta = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda a, b, c: geometry.crop_rotate(a, b, c, 8), (patch.requires_grad_(), xy, theta))


def test_gradients_of_softargmax_and_score_are_exact() -> None:
    score = torch.rand(1, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    assert gradcheck(geometry.softargmax, (score,), fast_mode=True)
    assert gradcheck(geometry.patch_score, (score,), fast_mode=True)


def test_a_crop_beyond_the_border_repeats_it() -> None:
    patch = torch.rand(2, 3, 8, 8)
    corner = geometry.crop_rotate(patch, torch.full((2, 2), -3.0), torch.zeros(2), size=4, ratio=0.5)
    assert corner.shape == (2, 3, 4, 4)
    torch.testing.assert_close(corner, patch[:, :, :1, :1].expand(-1, -1, 4, 4))
