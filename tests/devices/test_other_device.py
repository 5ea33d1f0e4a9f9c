"""What runs elsewhere than on the CPU keeps its tensors there: on a device that the CPU plays, in place of a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import LocalFeatureMatcher, laf_is_filled
from torch import Tensor, nn

from kornia_lift import LIFTFeature, LIFTResponse
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.lfnet import LFNetDetector
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.feature.lfnet import LFNetFeature
from kornia_lift.feature.mixing import mix_features
from kornia_lift.matching import match_descriptors
from kornia_lift.matching.filtering import FilteredMatcher, PutativeMatcher
from kornia_lift.networks import layers
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.networks.layers import exact_conv2d
from kornia_lift.networks.lfnet import LFNetDescriptor
from kornia_lift.training.compact.detections import detect
from kornia_lift.training.config import LoopConfig
from kornia_lift.training.correspondences.config import CorrespondenceConfig
from kornia_lift.training.correspondences.stage import CorrespondenceStage
from kornia_lift.training.lfnet.stage import LFNetNetworks, LFNetStage
from kornia_lift.training.loop.update import Update
from kornia_lift.training.stage import Stage
from tests.devices.other_device import OtherDevice, here
from tests.helpers.lfnet import config as lfnet_config
from tests.helpers.lfnet import warped
from tests.helpers.pictures import texture
from tests.helpers.training import matched_pair

IMAGES = texture(80, 110, 2)
MASK = torch.arange(110).gt(50).expand(1, 1, 80, 110)


def test_the_device_refuses_what_cuda_refuses() -> None:
    with OtherDevice() as other:
        there = torch.rand(3, 4).to(other.device)
        with pytest.raises(RuntimeError, match="all tensors on one device"):
            there + torch.rand(3, 4)
        with pytest.raises(TypeError, match="cpu"):
            there.numpy()
        assert torch.equal(here(there + 1.5), here(there) + 1.5)
        total = (there * 2).sum()
        assert float(total) == float(here(there).sum() * 2) and other.waits["_local_scalar_dense"] == 1


FEATURES: dict[str, Callable[[], nn.Module]] = {
    "lift": lambda: LIFTFeature(30),
    "lift-plus": lambda: LIFTFeature(30, pretrained="lift-plus"),
    "release": lambda: LIFTFeature(30, config=ScaleSpaceConfig.lift()),
    "mixture": lambda: mix_features("dog", "lift", "sift", 30, pretrained=False),
    "LF-Net": lambda: LFNetFeature(30),
}


@pytest.mark.parametrize("name", FEATURES)
@pytest.mark.parametrize("fast", [False, True])
def test_features_are_those_of_the_cpu(name: str, fast: bool) -> None:
    torch.manual_seed(0)
    feature = FEATURES[name]()
    with torch.no_grad():
        with fast_paths(False):
            expected = feature(IMAGES, MASK)
        with fast_paths(fast), OtherDevice() as other:
            found = feature.to(other.device)(IMAGES.to(other.device), MASK.to(other.device))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(here(b), a, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_gradients_flow_there(model: str) -> None:
    feature = LIFTFeature(20, pretrained=model)
    with OtherDevice() as other:
        found = feature.to(other.device)(IMAGES[:1].to(other.device), MASK.to(other.device) * 0.7)
        sum(t.square().sum() for t in found).backward()  # type: ignore[union-attr]
        assert all(p.grad is not None and p.grad.device == other.device for p in feature.parameters())


def test_the_cpu_waits_for_the_device_as_often_for_many_images_as_for_one() -> None:
    detector, images = LIFTDetector(40), texture(90, 120, 4)
    waits = []
    for count in (1, 4):
        with OtherDevice() as other, torch.no_grad():
            detector.to(other.device)(images[:count].to(other.device))
            other.waits.clear()
            detector(images[:count].to(other.device))
            waits.append(sum(other.waits.values()))
    assert waits[1] <= 1.2 * waits[0], waits


def test_matching_there() -> None:
    pytest.importorskip("cv2")
    descriptors = torch.nn.functional.normalize(torch.rand(20, 16), dim=1)
    feature, network = LIFTFeature(40), CorrespondenceNet(pretrained=True).eval()
    with OtherDevice() as other, torch.no_grad():
        there = descriptors.to(other.device)
        pairs, _ = match_descriptors(there, there, 0.9)
        assert np.array_equal(np.sort(pairs[:, 0]), pairs[np.argsort(pairs[:, 0]), 1])
        matcher = FilteredMatcher(LocalFeatureMatcher(feature, PutativeMatcher()), network).to(other.device)
        image = IMAGES.to(other.device)
        found = matcher({"image0": image, "image1": image})
        assert {t.device for t in found.values()} == {other.device}


def test_keypoints_for_training_are_found_there() -> None:
    detector, image = LIFTDetector(30).eval(), (texture(80, 110)[0, 0] * 255).byte()
    with fast_paths(False):
        expected = detect(image, detector)
        with OtherDevice() as other:
            found = detect(image, detector.to(other.device))
    np.testing.assert_allclose(found.xy, expected.xy, atol=1e-2)


def correspondence_stage(device: Any) -> Stage:
    config = CorrespondenceConfig(pairs_per_batch=3, matches_per_pair=40, essential_from=0)
    pairs = [matched_pair(n, count=60) for n in range(8)]
    return CorrespondenceStage(CorrespondenceNet(channels=8, blocks=1).to(device), pairs[:6], pairs[6:], config)


def lfnet_stage(device: Any) -> Stage:
    networks = LFNetNetworks(LFNetDetector(40), LFNetDescriptor()).to(device)
    return LFNetStage(networks, warped(1), warped(2), lfnet_config())


@pytest.mark.parametrize("make", [correspondence_stage, lfnet_stage])
def test_stages_train_and_validate_there(make: Callable[[Any], Stage]) -> None:
    results = []
    for number in range(2):
        with OtherDevice() as other:
            torch.manual_seed(0)
            stage = make(other.device if number else "cpu")
            update = Update(stage, LoopConfig(steps=1, optimizer="sgd", learning_rate=1e-4), "", "stage")
            stage.network.eval()
            with torch.no_grad():
                error = stage.validate()["error"]
            batch = stage.batch(torch.Generator().manual_seed(1), 0)
            results.append((error, update(batch, 0, 0.0)["loss"]))
    assert results[1] == pytest.approx(results[0], rel=1e-3)


def test_scores_are_not_rounded_where_cudnn_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cuDNN is asked for: the same convolution, without TensorFloat-32."""
    asked = []

    def cudnn(x: Tensor, weight: Tensor, padding: Any, stride: Any, *_: Any, allow_tf32: bool) -> Tensor:
        asked.append((tuple(stride), allow_tf32))
        return torch.nn.functional.conv2d(x, weight, padding=padding)

    x, weight, bias = torch.rand(2, 1, 30, 40), torch.rand(3, 1, 5, 5), torch.rand(3)
    response, image = LIFTResponse().eval(), texture(50, 60)
    with torch.no_grad(), fast_paths(False):
        expected = exact_conv2d(x, weight, bias, (2, 1)), response(image)
        monkeypatch.setattr(layers, "_would_round", lambda _: True)
        monkeypatch.setattr(torch, "cudnn_convolution", cudnn)
        found = exact_conv2d(x, weight, bias, (2, 1)), response(image)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-5)
    assert len(asked) > 2 and set(asked) == {((1, 1), False)}


@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_autocast_makes_no_keypoints(model: str) -> None:
    y, x = torch.meshgrid(torch.arange(120.0) / 120, torch.arange(160.0) / 160, indexing="ij")
    detector = LIFTFeature(50, pretrained=model).detector
    image = texture(120, 160)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for flat in ((0.2 + 0.1 * x + 0.05 * y)[None, None], torch.full((1, 1, 120, 160), 0.37)):
            assert not laf_is_filled(detector(flat)[0]).any()
        found = detector(image)[1]
    with torch.inference_mode():
        torch.testing.assert_close(found, detector(image)[1], atol=1e-3, rtol=1e-3)
