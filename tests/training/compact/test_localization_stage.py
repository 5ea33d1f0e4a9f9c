"""The localization stage: pairs of detections whose relation is known, the loss worked out by hand, and learning."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTDetector
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks.localization import KeypointLocalization
from kornia_lift.training.compact.copies import CopyConfig, KeypointPairs, copy_images
from kornia_lift.training.compact.localization import FAR, LocalizationStage
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.homographies import CropConfig
from tests.helpers.networks import Constant
from tests.helpers.pictures import blob_image, blob_response, texture

SAME = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)
WARP = CropConfig(size=1000, scale=1.3, stretch=1.3, perspective=0.1, shift=0.0)


def gray(image: Tensor) -> Tensor:
    return (image[0, 0] * 255).round().to(torch.uint8)


def pairs(images: int = 2, size: int = 220) -> list[KeypointPairs]:
    detector = LIFTDetector(300, resp_module=blob_response()).eval()
    config = CopyConfig(copies=1, warp=WARP, photometric=SAME)
    return copy_images([gray(texture(size, size, seed=seed)) for seed in range(images)], detector, config)


def test_pairs_are_where_the_homography_says() -> None:
    blobs = [(60.0 + 55 * i + 7 * j, 60.0 + 55 * j - 5 * i, 3.0) for i in range(6) for j in range(6)]
    detector = LIFTDetector(300, resp_module=blob_response()).eval()
    config = CopyConfig(copies=3, warp=WARP, photometric=SAME)
    found = copy_images([gray(blob_image(420, 420, blobs))], detector, config)
    assert found
    for pair in found:
        # a blob is found at its centre, in the image and in the copy
        assert (pair.moved - pair.copy_xy).norm(dim=1).median() < 0.3
        zoom = pair.jacobian.det().abs().sqrt()
        assert (pair.copy_sigma / (zoom * pair.sigma)).log().abs().median() < 0.15
        # the Jacobian is that of the map between neighbouring keypoints
        step = pair.xy[1] - pair.xy[0]
        middle = (pair.jacobian[0] + pair.jacobian[1]) / 2
        assert ((pair.moved[1] - pair.moved[0]) - middle @ step).norm() < 0.02 * step.norm()


def test_images_without_repeated_keypoints_are_refused() -> None:
    flat = torch.full((200, 200), 90, dtype=torch.uint8)
    with pytest.raises(ValueError, match="no image shows 8 keypoints"):
        copy_images([flat], LIFTDetector(300, pretrained=False).eval(), CopyConfig())


def test_the_loss_is_what_the_formula_says() -> None:
    side = pairs()
    network = Constant(0.01, -0.02, 0.1, math.log(0.05))
    stage = LocalizationStage(network, side, side, images=2, per_image=40, jitter=0.0, photometric=SAME)  # type: ignore[arg-type]
    batch = stage.batch(torch.Generator().manual_seed(0), 0)
    loss, figures = stage.loss(batch)
    total, distances = 0.0, []
    for offset, jacobian, ratio in zip(batch["offset"], batch["jacobian"], batch["log_ratio"], strict=True):
        move = torch.tensor([0.01, -0.02]) * LAF_SCALE_PER_SIGMA
        error = math.sqrt(float((offset + jacobian @ move - move).square().sum()) + 1e-4)
        spread = 0.05 * LAF_SCALE_PER_SIGMA * (math.sqrt(float(jacobian.det())) + 1)
        scale = abs(float(ratio))  # both corrections are the same
        huber = scale**2 / 2 if scale < 0.1 else 0.1 * (scale - 0.05)
        total += error / spread + 2 * math.log(spread) + 2 * min(error, 1) + 20 * huber
        distances.append(error)
    assert loss.item() == pytest.approx(total / len(distances), rel=1e-4)
    assert figures["sigmas"] == pytest.approx(sum(distances) / len(distances), rel=1e-4)


def test_jitter_moves_frames_and_what_is_known_of_them_alike() -> None:
    """Moved and rescaled frames have other offsets, and what is known of their scales changes by the same factor."""
    side = pairs(1)
    stage = LocalizationStage(KeypointLocalization(False), side, side, photometric=SAME)
    still, moved = (stage.pairs.draw([0], 30, torch.Generator().manual_seed(3), jitter) for jitter in (0.0, 0.2))
    assert (still["offset"] - moved["offset"]).abs().max() > 0.1
    # the scales of both views changed by what the ratio changed
    change = (moved["jacobian"].det() / still["jacobian"].det()).sqrt().log()
    torch.testing.assert_close(moved["log_ratio"] - still["log_ratio"], change, atol=1e-4, rtol=1e-4)


def test_learning_brings_moved_frames_together() -> None:
    torch.manual_seed(0)
    side = pairs(3)
    network = KeypointLocalization(False, blocks=True)
    stage = LocalizationStage(network, side, side, images=3, per_image=48, photometric=SAME)
    assert stage.validate()["error"] == pytest.approx(stage.measure.chance, abs=0.02)
    assert stage.measure.what.startswith(f"keypoints more than {FAR}")
    optimizer = torch.optim.AdamW(stage.network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for step in range(30):
        loss, figures = stage.loss(stage.batch(generator, step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(figures)
    for name in ("sigmas", "log_scale"):  # by chance frames are .15 sigma and 15 % off, each
        assert sum(f[name] for f in seen[-10:]) < 0.7 * sum(f[name] for f in seen[:5]) * 2
    after = stage.validate()
    assert after["error_certain_half"] <= after["error"]
