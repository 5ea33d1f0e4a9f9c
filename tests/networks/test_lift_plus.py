"""The shipped networks of `lift-plus` do what they were trained for."""

from __future__ import annotations

import math

import pytest
import torch

from kornia_lift import LIFTFeature
from kornia_lift.feature.patches import PatchOrienter
from kornia_lift.networks import CompactDescriptor, PolarOrientation
from tests.helpers.pictures import texture


@pytest.mark.parametrize("degrees", [-140.0, -35.0, 5.0, 33.0, 90.0])
def test_the_angle_rotates_with_the_patch(degrees: float) -> None:
    network, image = PolarOrientation("lift-plus"), texture(100, 100, batch=40, seed=1)

    def seen(angle: float) -> torch.Tensor:
        """The middle of the image by a frame rotated counter-clockwise on screen."""
        c, s = math.cos(angle), math.sin(angle)
        matrix = 0.5 * torch.tensor([[c, s, 0.0], [-s, c, 0.0]])
        grid = torch.nn.functional.affine_grid(matrix.expand(40, 2, 3), [40, 1, 32, 32], align_corners=False)
        return torch.nn.functional.grid_sample(image, grid, align_corners=False)

    with torch.no_grad():
        # the frame has come nearer to the direction by its rotation
        change = network(seen(math.radians(degrees))) - network(seen(0.0)) + math.radians(degrees)
    error = torch.atan2(change.sin(), change.cos()).abs().rad2deg()
    assert error.median() < 3
    assert (error > 20).float().mean() < 0.25


def test_descriptors_separate_locations_under_noise_and_another_illumination() -> None:
    network, patches = CompactDescriptor("lift-plus"), texture(128, 128, batch=60, seed=2)
    generator = torch.Generator().manual_seed(0)
    other = (0.6 * patches**1.3 + 0.1 + 0.01 * torch.randn(patches.shape, generator=generator)).clamp(0, 1)
    with torch.no_grad():
        similar = network(patches) @ network(other).T
    assert (similar.argmax(1) == torch.arange(60)).all()


def test_the_models_are_features_with_compact_networks() -> None:
    feature = LIFTFeature.from_pretrained("lift-plus", num_features=40).eval()
    assert isinstance(feature.orienter, PatchOrienter) and feature.orienter.context == 3.0
    assert isinstance(feature.orienter.angle_detector, PolarOrientation)
    upright = LIFTFeature.from_pretrained("lift-plus-upright", num_features=40).eval()
    image = texture(120, 140)
    with torch.no_grad():
        lafs, _, descriptors = feature(image)
        straight, _, _ = upright(image)
    assert descriptors.shape == (1, 40, 128)
    assert torch.allclose(straight[..., 0, 1], torch.zeros(1, 40), atol=1e-4)
    assert lafs[..., 0, 1].abs().max() > 0.1


def test_the_model_has_the_smaller_networks_and_four_angles() -> None:
    plus = LIFTFeature(pretrained="lift-plus")
    assert plus.detector.localizer.network.blocks and plus.orienter.angle_detector.small
    assert plus.orienter.angles == 4
    assert LIFTFeature(pretrained="lift-plus", angles=2).orienter.angles == 2
    assert plus.descriptor.descriptor.features.pairs()[1][0].weight.shape == (48, 32, 3, 3)
    assert sum(p.numel() for p in plus.detector.parameters()) == 10_016 + 19_866
