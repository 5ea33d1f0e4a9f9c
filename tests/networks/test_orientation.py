"""LIFTOrientation: the oracle in all four cases, and that frames rotate with the image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from kornia.feature import LAFOrienter, get_laf_orientation
from kornia.geometry.transform import rotate
from torch import Tensor
from torch.autograd import gradcheck

from kornia_lift import LIFTOrientation
from kornia_lift.geometry import lafs_from_lift
from tests.helpers.pictures import texture


def oracle_network(pool3: bool, output_order: Literal["cs", "sc"], mean: float, std: float) -> LIFTOrientation:
    """The seeded weights that the oracle's README defines."""
    network = LIFTOrientation(False, pool3=pool3, output_order=output_order, mean=mean / 255, std=std / 255)
    rng = np.random.default_rng(424242)
    layers = (network.conv1, network.conv2, network.conv3, network.fc1, network.fc2)
    shapes = [(10, 1, 5, 5), (20, 10, 5, 5), (50, 20, 3, 3), (1250 if pool3 else 6050, 1600), (100, 32)]
    with torch.no_grad():
        for layer, shape in zip(layers, shapes, strict=True):
            linear = len(shape) == 2
            fan_in, outputs = (shape[0], shape[1]) if linear else (math.prod(shape[1:]), shape[0])
            weight = torch.from_numpy(rng.standard_normal(shape) * math.sqrt(1 / fan_in))
            layer.weight.copy_(weight.T if linear else weight)
            assert layer.bias is not None
            layer.bias.copy_(torch.from_numpy(rng.standard_normal(outputs) * 0.1))
    return network.eval()


@pytest.mark.parametrize("output_order", ["cs", "sc"])
@pytest.mark.parametrize("pool3", [True, False])
def test_reproduces_the_oracle(shared: Path, pool3: bool, output_order: Literal["cs", "sc"]) -> None:
    oracle = np.load(shared / "oracles/orientation_lift_random.npz")
    network = oracle_network(pool3, output_order, float(oracle["mean"]), float(oracle["std"]))
    patches = torch.from_numpy(oracle["patches64"]).float()[:, None] / 255
    case = "pool3" if pool3 else "theano_nopool3"
    with torch.no_grad():
        vector = network.vector(patches)
        angle = network(patches)
    raw = vector if output_order == "cs" else vector.flip(1)
    assert np.abs(raw.numpy() - oracle[f"{case}_out2"]).max() < 1e-4
    # LIFT's angle is clockwise, kornia's counter-clockwise; TensorFlow's nudge of the vector moves angles by 1e-3
    theta = oracle[f"{case}_theta_{'tf' if output_order == 'cs' else 'theano'}"]
    difference = np.angle(np.exp(1j * (angle.numpy() + theta)))
    assert np.abs(difference).max() < (1.5e-3 if output_order == "cs" else 1e-5)


def test_parameter_counts_of_both_variants() -> None:
    assert sum(p.numel() for p in LIFTOrientation(False).parameters()) == 2_019_162
    assert sum(p.numel() for p in LIFTOrientation(False, pool3=False).parameters()) == 9_699_162


def test_output_orders_differ_by_an_exchange() -> None:
    first = LIFTOrientation(False, output_order="cs").eval()
    second = LIFTOrientation(False, output_order="sc").eval()
    second.load_state_dict(first.state_dict())
    patches = texture(64, 64, batch=3)
    assert torch.allclose(first.vector(patches), second.vector(patches).flip(1))


def test_output_order_is_checked() -> None:
    with pytest.raises(ValueError, match=r"'cs'.*'sc'.*got 'xy'"):
        LIFTOrientation(False, output_order="xy")  # type: ignore[arg-type]


def ramp_network() -> LIFTOrientation:
    """Weights that read the direction of a grey ramp from differences across the patch, by hand."""
    network = LIFTOrientation(False, mean=0.0, std=1.0).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for layer, source in ((network.conv1, 0), (network.conv2, 0), (network.conv3, 0)):
            size = layer.weight.shape[-1]
            layer.weight[0, source, size // 2, size // 2] = 1  # channel 0 hands the picture on, reduced by pooling
        grid = torch.arange(5.0) - 2
        rows, cols = torch.zeros(50, 5, 5), torch.zeros(50, 5, 5)
        cols[0], rows[0] = grid[None, :].expand(5, 5), grid[:, None].expand(5, 5)
        # hidden unit = max(+d, ...) - max(...): one hyperplane of the first maximum carries d, the rest follow it
        for unit, weights in ((0, cols), (1, rows)):
            network.fc1.weight.view(100, 4, 4, -1)[unit, 0, :] = weights.flatten()
            network.fc2.weight.view(2, 4, 4, 100)[unit, 0, :, unit] = 1
    return network


@pytest.mark.parametrize("degrees", [0, 30, 90, 135, 180, 250, 330])
def test_ramps_give_kornias_sign_through_the_orienter(degrees: float) -> None:
    """A ramp that gets brighter towards ``degrees``, counter-clockwise on screen, gives a frame of that angle."""
    t = torch.linspace(-1, 1, 96)
    angle = math.radians(degrees)
    ramp = 0.5 + 0.3 * (t[None, :] * math.cos(angle) - t[:, None] * math.sin(angle))
    laf = lafs_from_lift(torch.tensor([[[47.5, 47.5]]]), torch.tensor([[5.0]]))
    rotated = LAFOrienter(64, angle_detector=ramp_network())(laf, ramp[None, None])
    error = (get_laf_orientation(rotated).item() - degrees + 180) % 360 - 180
    assert abs(error) < 5  # the hand-made network samples 5 x 5 values


@pytest.mark.parametrize("degrees", [40.0, 90.0, -120.0])
def test_frames_rotate_with_the_image(degrees: float) -> None:
    """Whatever the weights, the angle of an oriented frame minus the angle in its own patch is the frame's angle.

    The image rotated by an angle and frames rotated by the same angle show the same patches, so the network must add
    the same angle: signs of kornia's rotation, of the frame and of the network agree.
    """
    image = texture(129, 129)
    centre = torch.tensor([[64.0, 64.0]])
    orienter = LAFOrienter(64, angle_detector=LIFTOrientation(False).eval())
    upright = lafs_from_lift(centre[None], torch.tensor([[4.0]]))
    rotated_frame = lafs_from_lift(centre[None], torch.tensor([[4.0]]), torch.tensor([[-math.radians(degrees)]]))
    rotated_image = rotate(image, torch.tensor([degrees]), mode="bicubic", align_corners=True)
    first = get_laf_orientation(orienter(upright, image)).item()
    second = get_laf_orientation(orienter(rotated_frame, rotated_image)).item()
    assert abs((second - first - degrees + 180) % 360 - 180) < 3


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (torch.zeros(1, 1, 64, 64, dtype=torch.uint8), TypeError),
        (torch.rand(1, 1, 32, 32), ValueError),
        (torch.rand(1, 3, 64, 64), ValueError),
    ],
)
def test_bad_input_is_refused(patch: Tensor, error: type[Exception]) -> None:
    with pytest.raises(error):
        LIFTOrientation(False)(patch)


def test_chunks_and_an_empty_batch_do_not_change_the_result() -> None:
    whole, parts = LIFTOrientation(False).eval(), LIFTOrientation(False, chunk_size=2).eval()
    parts.load_state_dict(whole.state_dict())
    patches = texture(64, 64, batch=5)
    with torch.no_grad():
        assert torch.allclose(whole(patches), parts(patches), atol=1e-5)
        assert whole(patches[:0]).shape == (0,)


@pytest.mark.parametrize("statistics", [{}, {"mean": 0.0, "std": 1.0}])
def test_constant_patch_has_a_finite_gradient(statistics: dict[str, float]) -> None:
    network = LIFTOrientation(False, **statistics)  # type: ignore[arg-type]
    network(torch.zeros(1, 1, 64, 64)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_own_statistics_make_the_angle_independent_of_the_illumination() -> None:
    network = LIFTOrientation(False).eval()
    patch = texture(64, 64, batch=3)
    with torch.no_grad():
        angles = network(patch), network(0.6 * patch + 0.3)
    rotated = torch.remainder(angles[1] - angles[0] + torch.pi, 2 * torch.pi) - torch.pi
    assert rotated.abs().max() < 0.1


def test_half_of_the_statistics_is_refused() -> None:
    with pytest.raises(ValueError, match="both mean and std"):
        LIFTOrientation(False, mean=0.5)


@pytest.mark.slow
def test_gradients_are_exact() -> None:
    network = LIFTOrientation(False).double().eval()
    patch = texture(64, 64).double().requires_grad_()
    assert gradcheck(network, (patch,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(dtype: torch.dtype) -> None:
    out = LIFTOrientation(False).to(dtype).eval()(texture(64, 64, batch=2).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()
