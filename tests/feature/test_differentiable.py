"""Gradients reach image and networks through LAF position, scale and orientation, and equal finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from kornia.feature import extract_patches_from_pyramid, get_laf_orientation, get_laf_scale
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTFeature, LIFTOrientation, LIFTResponse, ScaleSpaceConfig
from kornia_lift._kornia import laf_is_filled
from kornia_lift.geometry import lafs_from_lift
from tests.helpers.pictures import texture

CONFIG = ScaleSpaceConfig(min_sigma=2, max_sigma=6, levels_per_octave=4, scale_nms=1)


def slope(function: Callable[[Tensor], Tensor], at: Tensor, direction: Tensor, step: float) -> float:
    """Directional derivative by central differences of fourth order."""
    with torch.no_grad():
        f = [function(at + k * step * direction).item() for k in (-2, -1, 1, 2)]
    return (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)


def check(function: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6, tolerance: float = 1e-5) -> None:
    """Compare the gradient with finite differences along a random direction; it must not be zero."""
    at = at.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(at), at)
    direction = torch.randn(at.shape, dtype=at.dtype, generator=torch.Generator().manual_seed(3))
    expected = slope(function, at.detach(), direction, step)
    found = (gradient * direction).sum().item()
    assert abs(expected) > 1e-6
    assert found == pytest.approx(expected, rel=tolerance, abs=1e-7)


def parts_of(lafs: Tensor, responses: Tensor) -> dict[str, Tensor]:
    lafs, responses = lafs[laf_is_filled(lafs)][None], responses[laf_is_filled(lafs)]
    weight = torch.linspace(1, 2, lafs.shape[1], dtype=lafs.dtype)
    return {
        "x": (lafs[0, :, 0, 2] * weight).sum(),
        "y": (lafs[0, :, 1, 2] * weight).sum(),
        "scale": (get_laf_scale(lafs)[0, :, 0, 0] * weight).sum(),
        "response": (responses * weight).sum(),
    }


@pytest.mark.parametrize("part", ["x", "y", "scale", "response"])
def test_detector_gradients_reach_the_image(part: str) -> None:
    detector = LIFTDetector(6, CONFIG, pretrained=False).double().eval()
    check(lambda image: parts_of(*detector(image))[part], texture(64, 70).double())


@pytest.mark.parametrize("part", ["x", "y", "scale", "response"])
def test_detector_gradients_reach_the_network(part: str) -> None:
    detector = LIFTDetector(6, CONFIG, pretrained=False).double().eval()
    image, resp = texture(64, 70).double(), detector.resp
    assert isinstance(resp, LIFTResponse)

    def function(weight: Tensor) -> Tensor:
        return parts_of(*torch.func.functional_call(detector, {"resp.conv.weight": weight}, (image,)))[part]

    check(function, resp.conv.weight.detach())


def test_orientation_gradients_reach_image_and_frame() -> None:
    """Through LAFOrienter's parts: the angle of the patch, from the frame and from the image."""
    network = LIFTOrientation(False).double().eval()
    image = texture(72, 72).double()
    xy = torch.tensor([[[35.3, 36.2]]], dtype=torch.float64)

    def angle(image: Tensor, sigma: Tensor) -> Tensor:
        return network(extract_patches_from_pyramid(image, lafs_from_lift(xy, sigma), 64)[0]).sum()

    sigma = torch.tensor([[3.317]], dtype=torch.float64)
    check(lambda image: angle(image, sigma), image, step=1e-8, tolerance=1e-4)
    check(lambda sigma: angle(image, sigma), sigma, step=1e-8, tolerance=1e-4)  # few kinks of the bilinear sampling


def test_whole_feature_gradients_equal_finite_differences() -> None:
    """Image to descriptors, through detection, orientation and description at once."""
    feature = LIFTFeature(3, config=CONFIG, pretrained=False).double().eval()
    weight = torch.randn(3, 128, dtype=torch.float64)

    def function(image: Tensor) -> Tensor:
        lafs, responses, descs = feature(image)
        assert laf_is_filled(lafs).all()
        angles = torch.deg2rad(get_laf_orientation(lafs))
        return (descs[0] * weight).sum() + torch.sin(angles).sum() + responses.sum()

    # bilinear sampling and maxima have kinks: the step must not cross many of them
    check(function, texture(64, 70).double(), step=1e-8, tolerance=2e-2)


@pytest.mark.parametrize("part", ["x", "y", "scale", "angle", "response", "descriptor"])
def test_gradients_of_the_default_feature_equal_finite_differences(part: str) -> None:
    """With the options and weights that a user gets."""
    feature = LIFTFeature(5).double().eval()
    weight = torch.randn(5, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def function(image: Tensor) -> Tensor:
        lafs, responses, descs = feature(image)
        assert laf_is_filled(lafs).all()
        angles = torch.deg2rad(get_laf_orientation(lafs))[0, :, 0]
        more = {"angle": (torch.sin(angles) * weight[:, 0]).sum(), "descriptor": (descs[0] * weight).sum()}
        return (parts_of(lafs, responses) | more)[part]

    # angle and descriptor: bilinear sampling and maxima have kinks, the step must not cross many of them
    step, tolerance = (1e-8, 2e-2) if part in ("angle", "descriptor") else (1e-6, 1e-4)
    check(function, texture(90, 100).double(), step=step, tolerance=tolerance)


def test_one_backward_reaches_all_three_networks_and_the_image_also_with_empty_slots() -> None:
    feature = LIFTFeature(200, config=CONFIG, pretrained=False)
    image = texture(64, 70, batch=2).requires_grad_()
    lafs, responses, descs = feature(image)
    assert not laf_is_filled(lafs).all()
    (descs.pow(3).sum() + responses.sum() + lafs.sum()).backward()
    assert image.grad is not None
    assert image.grad.isfinite().all()
    assert image.grad.abs().sum() > 0
    for name, parameter in feature.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_descriptors_alone_reach_the_response_through_the_frames() -> None:
    """A loss on descriptors moves the keypoints: position and scale come from the score."""
    feature = LIFTFeature(10, config=CONFIG, pretrained=False)
    _, _, descs = feature(texture(64, 70))
    descs.pow(3).sum().backward()
    response = feature.detector.resp
    assert isinstance(response, LIFTResponse)
    assert response.conv.weight.grad is not None
    assert response.conv.weight.grad.abs().sum() > 0


def test_image_without_keypoints_can_be_part_of_a_loss() -> None:
    feature = LIFTFeature(5, config=CONFIG, pretrained=False)
    image = torch.full((1, 1, 64, 64), 0.5, requires_grad=True)
    lafs, responses, descs = feature(image)
    (lafs.sum() + responses.sum() + descs.sum()).backward()
    assert image.grad is None or image.grad.isfinite().all()


def test_selection_carries_no_gradient_but_position_does() -> None:
    """As the documentation says: moving the score of a pixel changes where a keypoint sits, never which one is kept."""
    detector = LIFTDetector(
        4, ScaleSpaceConfig(min_sigma=2, max_sigma=6, scale_nms=1, subpixel=False), pretrained=False
    )
    lafs, responses = detector(texture(64, 70).requires_grad_())
    assert responses.requires_grad
    assert not lafs.requires_grad  # without the Newton step positions are whole pixels
