"""The network that estimates affine shapes, and the matrices of its stretches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from kornia_lift._kornia import ShapeError
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks._fast.quantized import has_fast_integers, has_integers
from kornia_lift.networks.shape import KeypointShape, stretch
from kornia_lift.weights import WeightFileError
from tests.helpers.pictures import texture


def trained() -> KeypointShape:
    """A network that estimates something: random head, batch statistics of noise."""
    torch.manual_seed(0)
    network = KeypointShape(False, precision="float32")
    nn.init.normal_(network.head.weight, std=0.4)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(32, 1, 32, 32))
    return network.eval()


def test_without_training_every_shape_is_a_circle() -> None:
    found = KeypointShape(False).eval()(torch.rand(5, 1, 32, 32))
    assert torch.equal(found, torch.zeros(5, 2))


@pytest.mark.parametrize("degrees", [0.0, 30.0, 100.0])
def test_a_stretch_has_the_axes_that_it_says(degrees: float) -> None:
    angle, r = math.radians(degrees), 0.4
    ab = torch.tensor([r * math.cos(2 * angle), r * math.sin(2 * angle)], dtype=torch.float64)
    matrix = stretch(ab)
    axis = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    across = torch.tensor([-axis[1], axis[0]], dtype=torch.float64)
    torch.testing.assert_close(matrix @ axis, math.exp(r) * axis)
    torch.testing.assert_close(matrix @ across, math.exp(-r) * across)
    torch.testing.assert_close(matrix, torch.linalg.matrix_exp(torch.stack([ab, ab.flip(0) * ab.new_tensor([1, -1])])))


def test_stretches_are_differentiable_where_there_is_none() -> None:
    ab = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stretch, ab)
    assert torch.autograd.gradcheck(stretch, torch.randn(3, 2, dtype=torch.float64, requires_grad=True))


def test_counts_its_weights() -> None:
    assert sum(p.numel() for p in KeypointShape(False).parameters()) == 17_346


@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_the_inference_path_is_the_plain_one(precision: str, limit: float) -> None:
    network = trained()
    other = KeypointShape(False, precision=precision).eval()  # type: ignore[arg-type]
    other.load_state_dict(network.state_dict())
    patch = torch.rand(20, 1, 32, 32)
    with torch.no_grad():
        with fast_paths(False):
            expected = network(patch)
        found = other(patch)
        empty = other(patch[:0])
    assert expected.abs().mean() > 0.02
    assert (found - expected).abs().max() < limit
    assert empty.shape == (0, 2)


@pytest.mark.skipif(not has_integers(), reason="this torch has no convolutions of 8-bit integers")
def test_integers_estimate_as_float32_does_for_any_batch() -> None:
    # without fast instructions sums of two products may saturate
    limit = 1 if has_fast_integers() else 5
    patches = texture(40, 40, batch=21)[..., 4:36, 4:36]
    exact, rounded = (KeypointShape(True, precision=p) for p in ("float32", "int8"))
    with torch.no_grad():
        expected, found = exact(patches), rounded(patches)
        parts = torch.cat([rounded(part) for part in patches.split(5)])
    assert 1e-5 < (found - expected).abs().mean() < limit * 0.1 * expected.abs().mean()
    assert torch.allclose(found, parts, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1, 31, 32), (4, 3, 32, 32), (1, 32, 32)])
def test_patches_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="KeypointShape"):
        KeypointShape(False)(torch.rand(shape))


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of shape, or the path"):
        KeypointShape("shapes")
    with pytest.raises(WeightFileError, match=r"not of KeypointShape \(shape\.\*\)"):
        KeypointShape("lift-plus")
    with pytest.raises(ValueError, match="precision must be one of"):
        KeypointShape(False, precision="int4")  # type: ignore[arg-type]


def test_the_shipped_shapes_follow_a_stretch_of_the_image_and_its_rotation() -> None:
    """A patch of a texture that is stretched twofold has a shape that undoes more than half of that."""
    network = KeypointShape(True)
    image = texture(96, 96, batch=40)
    round_, long = image[..., 32:64, 32:64], nn.functional.interpolate(image, (96, 192), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        before = network(round_)
        after = network(long[..., 32:64, 80:112])
        rotated = network(long[..., 32:64, 80:112].rot90(1, (2, 3)))
        mirrored = network(long[..., 32:64, 80:112].flip(3))
    # the matrix maps to what is in the patch: x is longer
    assert 0.15 < (after - before)[:, 0].mean() < 0.4  # log(2) / 2 = .35
    assert (after - before)[:, 1].mean().abs() < 0.05
    assert (rotated + after).norm(dim=1).mean() < 0.5 * after.norm(dim=1).mean()
    assert (mirrored - after * after.new_tensor([1, -1])).norm(dim=1).mean() < 0.5 * after.norm(dim=1).mean()
