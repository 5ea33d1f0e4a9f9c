"""Every mixture of detectors, orientations and descriptors runs, by itself and inside LocalFeatureMatcher."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import get_args

import pytest
import torch
from kornia.feature import (
    DescriptorMatcher,
    KeyNet,
    KeyNetDetector,
    LAFDescriptor,
    LocalFeatureMatcher,
    OriNet,
    PassLAF,
    TFeat,
)
from torch import nn

from kornia_lift import LIFTDescriptor, LIFTDetector, LIFTOrientation, LIFTResponse, mix_features
from kornia_lift.feature.each_image import EachImage
from kornia_lift.feature.mixing import Descriptor, Detector, Orientation
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.networks import CompactDescriptor, PolarOrientation
from kornia_lift.networks.dense_response import DenseResponse
from tests.helpers.pictures import blob_image, blob_response, texture

CASES = list(itertools.product(get_args(Detector), get_args(Orientation), get_args(Descriptor)))


def test_the_list_is_that_of_the_documentation() -> None:
    assert len(CASES) == 100


@pytest.mark.parametrize(("detector", "orientation", "descriptor"), CASES)
def test_every_mixture_matches_an_image_with_itself(
    detector: Detector, orientation: Orientation, descriptor: Descriptor
) -> None:
    torch.manual_seed(1)  # with some random weights the last ReLU of KeyNet is dead
    image = texture(72, 80)
    feature = mix_features(detector, orientation, descriptor, 16, pretrained=False)
    with torch.no_grad():
        lafs, responses, descs = feature(image)
        matcher = LocalFeatureMatcher(feature, DescriptorMatcher("nn"))
        found = matcher({"image0": image, "image1": image, "lafs1": lafs, "descriptors1": descs})
    assert lafs.shape == (1, 16, 2, 3)
    assert responses.shape == (1, 16)
    assert descs.shape == (1, 16, 256 if descriptor == "lf-net" else 128)
    assert lafs.isfinite().all()
    assert descs.isfinite().all()
    assert len(found["keypoints0"]) > 0
    # the same image twice: every match is right (an untrained descriptor may confuse a few)
    same = (found["keypoints0"] - found["keypoints1"]).norm(dim=1) < 1e-3
    assert same.float().mean() > 0.7


@pytest.mark.parametrize("detector", ["lift", "dog", "hessian"])
def test_frames_of_all_scale_space_detectors_have_the_size_of_lifts_patch(detector: Detector) -> None:
    sigma = 4.0
    image = blob_image(160, 160, [(80.3, 75.6, sigma)])
    feature = mix_features(detector, "upright", "sift", 1, pretrained=False)
    if detector == "lift":
        feature.detector.resp = blob_response()
    with torch.no_grad():
        lafs, _, _ = feature(image)
    xy, found, _ = lift_from_lafs(lafs)
    assert (xy[0, 0] - torch.tensor([80.3, 75.6])).abs().max() < 0.1
    assert 0.8 < found[0, 0] / sigma < 1.25


def test_scale_laf_enlarges_the_described_frame() -> None:
    image = texture(80, 80)
    with torch.no_grad():
        a = mix_features("dog", "upright", "sift", 5, pretrained=False)(image)[0]
        b = mix_features("dog", "upright", "sift", 5, pretrained=False, scale_laf=2.0)(image)[0]
    assert torch.allclose(2 * a[..., :2], b[..., :2])


def test_modules_are_taken_as_they_are() -> None:
    detector, describe = LIFTDetector(7, pretrained=False), LAFDescriptor(nn.Flatten(), patch_size=8)
    feature = mix_features(detector, PassLAF(), describe)
    with torch.no_grad():
        lafs, _, descs = feature(texture(80, 80))
    assert lafs.shape[1] == 7
    assert descs.shape[2] == 64


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("sift", "lift", "lift"), "unknown detector 'sift': expected one of lift, lf-net, dog, hessian, keynet"),
        (("lift", "sift", "lift"), "unknown orientation 'sift': expected one of lift, dominant"),
        (("lift", "lift", "orb"), "unknown descriptor 'orb': expected one of lift, lf-net, sift"),
    ],
)
def test_unknown_names_are_named(names: tuple[str, str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mix_features(*names, pretrained=False)  # type: ignore[arg-type]


def test_kornias_parts_get_their_published_weights(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pretrained`` reaches kornia's parts, here through the cache of torch.hub, and needs no weights of LIFT."""
    monkeypatch.setenv("TORCH_HOME", str(shared / "peers"))
    feature = mix_features("keynet", "orinet", "tfeat", 8)
    assert isinstance(feature.detector, EachImage) and isinstance(feature.detector.detector, KeyNetDetector)
    for part, published in (
        (feature.detector.detector.model, KeyNet(True)),
        (feature.orienter.angle_detector, OriNet(True)),
        (feature.descriptor.descriptor, TFeat(True)),
    ):
        assert isinstance(part, nn.Module)
        state = part.state_dict()
        assert all(torch.equal(state[name], t) for name, t in published.state_dict().items())


@pytest.mark.parametrize(
    ("parts", "advice"),
    [
        ((LIFTResponse(False), "upright", "sift"), "LIFTDetector.1000, resp_module=network."),
        ((DenseResponse(), "upright", "sift"), "LIFTDetector.1000, resp_module=network."),
        (("dog", LIFTOrientation(False), "sift"), "PatchOrienter.network."),
        (("dog", PolarOrientation(), "sift"), "PatchOrienter"),
        (("dog", "upright", LIFTDescriptor(False)), "PatchDescriptor.network."),
        (("dog", "upright", CompactDescriptor()), "PatchDescriptor"),
    ],
)
def test_networks_alone_are_refused(parts: tuple[nn.Module | str, ...], advice: str) -> None:
    with pytest.raises(TypeError, match=f"is a network alone: give {advice}"):
        mix_features(*parts)  # type: ignore[arg-type]


def test_parts_of_other_models() -> None:
    with torch.no_grad():
        lafs, _, descriptors = mix_features("lift", "lift", "sift", 20, pretrained="lift-plus")(texture(90, 90))
    assert lafs.shape == (1, 20, 2, 3) and descriptors.shape == (1, 20, 128)


@pytest.mark.parametrize("detector", ["lift", "dog", "keynet"])
def test_the_number_of_keypoints_is_checked(detector: str) -> None:
    with pytest.raises(ValueError, match="num_features from 1 to"):
        mix_features(detector, "upright", "sift", 0, pretrained=False)


def test_keynet_takes_batches_as_the_other_detectors_do() -> None:
    torch.manual_seed(1)
    images = texture(72, 80, 2)
    masks = torch.ones(2, 1, 72, 80)
    masks[1, :, :, :40] = 0
    feature = mix_features("keynet", "upright", "sift", 16, pretrained=False)
    with torch.no_grad():
        both = feature(images, masks)
        each = [feature(images[k : k + 1], masks[k : k + 1]) for k in range(2)]
        shared = feature(images, masks[1:])
    for together, parts in zip(both, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(together, torch.cat(parts))
    torch.testing.assert_close(shared[0][1], both[0][1])
    assert not torch.equal(shared[0][0], both[0][0])


@pytest.mark.parametrize("shape", [(0, 1, 72, 80), (2, 1, 19, 80), (1, 1, 8, 8)])
def test_without_an_image_that_is_large_enough_keynet_finds_nothing(shape: tuple[int, ...]) -> None:
    lafs, responses, descriptors = mix_features("keynet", "upright", "sift", 16, pretrained=False)(torch.rand(shape))
    assert lafs.shape == (shape[0], 16, 2, 3) and descriptors.shape == (shape[0], 16, 128)
    assert (responses == 0).all() and (lafs == 0).all()


@pytest.mark.parametrize("side", [20, 27])
def test_keynet_takes_every_larger_image(side: int) -> None:
    feature = mix_features("keynet", "upright", "sift", 16, pretrained=False)
    assert all(t.isfinite().all() for t in feature(torch.rand(1, 1, side, 3 * side)))
