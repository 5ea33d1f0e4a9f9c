"""Affine shapes of frames: what stays the same, what they follow, and the feature with them."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from kornia.feature import (
    BlobHessian,
    LAFAffNetShapeEstimator,
    PassLAF,
    ScaleSpaceDetector,
    get_laf_center,
    get_laf_orientation,
    get_laf_scale,
)
from kornia.geometry.transform import ScalePyramid
from torch import Tensor, nn

from kornia_lift import LIFTFeature, mix_features
from kornia_lift._kornia import laf_is_filled
from kornia_lift.feature import feature_of
from kornia_lift.feature.shape import LAFShapeEstimator
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.networks.shape import KeypointShape
from tests.helpers.networks import Constant
from tests.helpers.pictures import texture


def frames(angle: float = 0.0) -> Tensor:
    xy = torch.tensor([[[60.0, 70.0], [90.0, 50.0], [75.0, 80.0]]])
    return lafs_from_lift(xy, torch.tensor([[2.0, 3.0, 2.5]]), torch.full((1, 3), angle))


@pytest.mark.parametrize("angle", [0.0, 0.7, 3.0])
def test_position_area_and_orientation_stay(angle: float) -> None:
    before, image = frames(angle), texture(160, 160)
    after = LAFShapeEstimator()(before, image)
    assert not torch.allclose(before, after, atol=1e-2)
    torch.testing.assert_close(get_laf_center(after), get_laf_center(before))
    torch.testing.assert_close(get_laf_scale(after), get_laf_scale(before))
    apart = (get_laf_orientation(after) - get_laf_orientation(before) + 180) % 360 - 180
    assert apart.abs().max() < 1e-3


def test_the_stretch_is_that_of_the_network_by_its_strength() -> None:
    """A stretch by e along x, half of it applied: the axes of the frame are as e to 1."""
    estimator = LAFShapeEstimator(Constant(1.0, 0.0), strength=0.5)  # type: ignore[arg-type]
    before = frames()
    after = estimator(before, texture(160, 160))
    expected = before.clone()
    expected[..., 0, 0] *= math.exp(0.5)
    expected[..., 1, 1] *= math.exp(-0.5)
    torch.testing.assert_close(after, expected)
    same = LAFShapeEstimator(Constant(1.0, 0.0), strength=0.0)(before, texture(160, 160))  # type: ignore[arg-type]
    torch.testing.assert_close(same, before)


def test_empty_slots_stay_empty_and_have_no_gradient_of_nan() -> None:
    laf = torch.cat([frames(), torch.zeros(1, 2, 2, 3)], 1).requires_grad_()
    image = texture(160, 160).requires_grad_()
    after = LAFShapeEstimator()(laf, image)
    assert torch.equal(laf_is_filled(after), laf_is_filled(laf))
    after.square().sum().backward()
    assert laf.grad is not None and laf.grad.isfinite().all()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("stretched", [0.0, 1e-4, 0.8])
def test_frames_in_half_precision(dtype: torch.dtype, stretched: float) -> None:
    """Squares of small stretches and of large frames leave its range."""
    estimator = LAFShapeEstimator(Constant(stretched, 0.0))  # type: ignore[arg-type]
    large = torch.cat([frames(), 30 * frames()], 1)
    expected, found = estimator(large, texture(160, 160)), estimator(large.to(dtype), texture(160, 160))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.02)


def test_no_frames() -> None:
    assert LAFShapeEstimator()(torch.zeros(2, 0, 2, 3), torch.rand(2, 1, 64, 64)).shape == (2, 0, 2, 3)


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    network = KeypointShape(False).double().eval()
    nn.init.normal_(network.head.weight, std=0.1)
    estimator = LAFShapeEstimator(network, strength=1.0)
    image = texture(120, 120).double()
    laf = frames(0.3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: estimator(x, image), laf, eps=1e-5, atol=1e-3, rtol=1e-3)


def test_two_views_of_a_slanted_surface_have_frames_that_cover_the_same() -> None:
    """Of the anisotropy that a compression by 2.5 leaves between two frames, less than half remains."""
    image = texture(200, 300, seed=3)
    slanted = F.interpolate(image, (200, 120), mode="bilinear", antialias=True)
    compression = torch.diag(torch.tensor([0.4, 1.0]))
    xy = torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([200.0, 100.0]) + 50
    first = lafs_from_lift(xy, torch.full((1, 200), 3.0))
    there = (xy + 0.5) * compression.diag() - 0.5
    second = lafs_from_lift(there, torch.full((1, 200), 3.0 * math.sqrt(0.4)))
    estimator = LAFShapeEstimator(strength=1.0)

    def anisotropy(a: Tensor, b: Tensor) -> Tensor:
        values = torch.linalg.svdvals(torch.linalg.inv(b[..., :2]) @ compression @ a[..., :2])
        return (values[..., 0] / values[..., 1]).log()

    with torch.no_grad():
        left = anisotropy(estimator(first, image), estimator(second, slanted))
    torch.testing.assert_close(anisotropy(first, second).mean(), torch.tensor(math.log(2.5)))
    assert left.mean() < 0.5 * math.log(2.5)


@pytest.mark.parametrize("model", ["lift", "lift-plus", "lift-plus-upright"])
def test_the_feature_describes_affine_frames(model: str) -> None:
    image = texture(160, 160)
    feature, without = feature_of(model, 50, affine=True), feature_of(model, 50)
    with torch.inference_mode():
        lafs, responses, descriptors = feature(image)
        round_, same, others = without(image)
    torch.testing.assert_close(responses, same)
    torch.testing.assert_close(get_laf_center(lafs), get_laf_center(round_))
    torch.testing.assert_close(get_laf_scale(lafs), get_laf_scale(round_))
    values = torch.linalg.svdvals(lafs[0, :20, :, :2])
    assert (values[:, 0] / values[:, 1]).mean() > 1.05
    assert (descriptors * others).sum(-1)[0, :20].mean() < 0.999
    if isinstance(without.orienter, PassLAF):
        assert get_laf_orientation(lafs).abs().max() < 1e-3


def test_with_gradient_and_without_the_same() -> None:
    feature, image = LIFTFeature(30, pretrained="lift-plus", affine=True, precision="float32"), texture(160, 160)
    with torch.inference_mode():
        expected = feature(image)
    found = feature(image)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.detach(), b, atol=2e-3, rtol=1e-3)


def test_parts_of_kornia_and_this_one_replace_each_other() -> None:
    image = texture(160, 160)
    detector = ScaleSpaceDetector(
        40, resp_module=BlobHessian(), scale_pyr_module=ScalePyramid(3, 1.6, 32), aff_module=LAFShapeEstimator()
    )
    with torch.inference_mode():
        lafs = detector(image)[0]
        values = torch.linalg.svdvals(lafs[laf_is_filled(lafs)][:, :, :2])
        assert (values[:, 0] / values[:, 1]).mean() > 1.05
        for affine in (LAFAffNetShapeEstimator(False).eval(), True):
            mixed = mix_features("lift", "lift", "sift", 20, affine=affine)
            assert mixed(image)[2].shape == (1, 20, 128)


def test_what_cannot_be_a_shape_is_refused() -> None:
    with pytest.raises(TypeError, match="affine expects True, False or a module"):
        LIFTFeature(10, affine="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leave affine out"):
        feature_of("lf-net", 10, affine=True)
    with pytest.raises(ValueError, match="strength expects a number of at least 0"):
        LAFShapeEstimator(strength=-0.1)
    with pytest.raises(ValueError, match="context expects a factor above 0"):
        LAFShapeEstimator(context=0.0)


def test_a_state_dict_without_shapes_is_that_of_a_feature_without_them() -> None:
    plain, affine = (LIFTFeature(10, pretrained=False, affine=a) for a in (False, True))
    assert set(affine.state_dict()) - set(plain.state_dict()) == {
        f"affine.network.{name}" for name in KeypointShape(False).state_dict()
    }
