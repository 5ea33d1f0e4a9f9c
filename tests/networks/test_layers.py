"""GHH, L2 pooling and subtractive normalisation against their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from kornia_lift.networks.layers import L2Pool2d, SubtractiveNorm2d, extended, ghh


def test_ghh_is_the_signed_sum_of_maxima_in_unit_sum_max_order() -> None:
    z = torch.tensor([1.0, 5.0, 2.0, 3.0, 10.0, 20.0, 7.0, 0.0]).view(1, 8)
    # two units, two sums, two maxima: max(1,5)-max(2,3) and max(10,20)-max(7,0)
    assert ghh(z, num_sum=2, num_max=2).tolist() == [[2.0, 13.0]]


def test_ghh_keeps_the_spatial_shape() -> None:
    assert ghh(torch.rand(2, 32, 5, 7)).shape == (2, 2, 5, 7)


def test_ghh_rejects_channels_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"multiple of num_sum\*num_max=16.*\(2, 17, 3, 3\)"):
        ghh(torch.rand(2, 17, 3, 3))


def test_l2_pool_is_the_norm_of_the_window_and_drops_the_border() -> None:
    x = torch.arange(25.0).view(1, 1, 5, 5)
    out = L2Pool2d(2)(x)
    assert out.shape == (1, 1, 2, 2)
    assert out[0, 0, 0, 0].item() == pytest.approx(math.sqrt(0 + 1 + 25 + 36), rel=1e-6)


def test_l2_pool_has_a_finite_gradient_at_zero() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    L2Pool2d(2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_subtractive_norm_removes_what_is_constant_also_at_the_border() -> None:
    assert SubtractiveNorm2d()(torch.full((1, 3, 9, 9), 2.5)).abs().max() < 1e-6


def test_subtractive_norm_has_the_border_factors_of_the_specification() -> None:
    # the part of the 5-tap Gaussian inside the map is 0.6662 at the edge and 0.9076 beside it
    layer = SubtractiveNorm2d()
    impulse = torch.zeros(1, 1, 11, 11, dtype=torch.float64)
    impulse[0, 0, 5, 0] = 1
    removed = impulse - layer(impulse)
    centre = layer.window[2].item()
    assert removed[0, 0, 5, 0].item() == pytest.approx(centre**2 / 0.6662, rel=1e-3)
    assert removed[0, 0, 5, 1].item() == pytest.approx(centre * layer.window[1].item() / 0.9076, rel=1e-3)


def test_subtractive_norm_subtracts_one_map_from_all_channels() -> None:
    x = torch.rand(1, 4, 8, 8)
    removed = x - SubtractiveNorm2d()(x)
    assert torch.allclose(removed, removed[:, :1].expand_as(removed), atol=1e-6)


@pytest.mark.parametrize("layer", [L2Pool2d(2), SubtractiveNorm2d()], ids=lambda layer: type(layer).__name__)
def test_gradients_are_exact(layer: torch.nn.Module) -> None:
    assert gradcheck(layer, (torch.rand(1, 2, 6, 6, dtype=torch.float64, requires_grad=True),), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_follows_the_input(dtype: torch.dtype) -> None:
    x = torch.rand(1, 16, 8, 8).to(dtype)
    for out in (ghh(x), L2Pool2d(2)(x), SubtractiveNorm2d()(x)):
        assert out.dtype == dtype
        assert out.isfinite().all()


def test_signs_alternate_over_four_sums() -> None:
    z = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10_000.0]).repeat(2)[:4].view(1, 4)
    assert ghh(z, num_sum=4, num_max=1).tolist() == [[1.0 - 10.0 + 100.0 - 1000.0]]
    with pytest.raises(ValueError, match=r"num_sum\*num_max=3, got 4 "):
        ghh(z[..., None, None].expand(-1, -1, 6, 7), num_sum=3, num_max=1)


@pytest.mark.parametrize("size", [1, 3, 4])
def test_pooling_sums_the_squares_of_windows_of_any_size(size: int) -> None:
    pooled = L2Pool2d(size)(torch.full((1, 1, size, size), 2.0))
    assert float(pooled) == pytest.approx(2.0 * size)


def test_every_image_of_a_batch_is_normalised_by_itself() -> None:
    torch.manual_seed(0)
    x, norm = torch.rand(3, 4, 9, 8), SubtractiveNorm2d()
    torch.testing.assert_close(norm(x), torch.cat([norm(part) for part in x.split(1)]))
    assert norm.state_dict() == {}  # the window is a constant


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_are_continued_by_their_border_in_every_dtype(dtype: torch.dtype) -> None:
    x = torch.arange(6.0, dtype=dtype).view(1, 1, 2, 3)
    out = extended(x, (1, 2, 0, 1))
    assert out.dtype == dtype
    assert out[0, 0].tolist() == [[0, 0, 1, 2, 2, 2], [3, 3, 4, 5, 5, 5], [3, 3, 4, 5, 5, 5]]
