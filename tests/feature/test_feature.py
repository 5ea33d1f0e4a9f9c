"""LIFTFeature: the contract of a kornia LocalFeature, whatever the input."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import (
    DescriptorMatcher,
    LAFDescriptor,
    LocalFeature,
    LocalFeatureMatcher,
    PassLAF,
    ScaleSpaceDetector,
    SIFTDescriptor,
    get_laf_orientation,
)
from kornia.geometry.transform import rotate
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTFeature, _memory
from kornia_lift._kornia import laf_is_filled
from tests.helpers.networks import DENSE, FAST, feature
from tests.helpers.pictures import blob_response, texture


def test_is_a_local_feature() -> None:
    assert isinstance(feature(), LocalFeature)


@pytest.mark.parametrize(("batch", "channels"), [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_cardinality(batch: int, channels: int) -> None:
    image = texture(90, 110, batch=batch).expand(-1, channels, -1, -1)
    with torch.no_grad():
        lafs, responses, descs = feature()(image)
    assert lafs.shape == (batch, 40, 2, 3)
    assert responses.shape == (batch, 40)
    assert descs.shape == (batch, 40, 128)
    filled = laf_is_filled(lafs)
    assert filled.any(1).all()
    assert torch.allclose(descs[filled].norm(dim=-1), torch.ones(int(filled.sum())), atol=1e-4)
    assert (descs[~filled] == 0).all()
    assert (lafs[~filled] == 0).all()


def test_colour_is_reduced_first() -> None:
    extract, gray = feature(), texture(80, 90)
    with torch.no_grad():
        for a, b in zip(extract(gray), extract(gray.expand(-1, 3, -1, -1)), strict=True):
            assert torch.allclose(a, b, atol=1e-2)


def test_upright_frames_are_upright_and_others_are_not() -> None:
    image = texture(90, 110)
    with torch.no_grad():
        upright, _, _ = feature(upright=True)(image)
        oriented, _, _ = feature()(image)
    filled = laf_is_filled(upright)
    assert (get_laf_orientation(upright)[filled] == 0).all()
    assert get_laf_orientation(oriented)[filled].std() > 1


def test_keypoints_rotate_with_the_image() -> None:
    extract = LIFTFeature(30, pretrained=False, detector=LIFTDetector(30, FAST, resp_module=blob_response())).eval()
    image = texture(121, 121)
    with torch.no_grad():
        lafs, _, _ = extract(image)
        other, _, _ = extract(rotate(image, torch.tensor([90.0]), align_corners=True))
    keep, other_keep = laf_is_filled(lafs)[0], laf_is_filled(other)[0]
    x, y = lafs[0, keep, 0, 2], lafs[0, keep, 1, 2]
    mapped = torch.stack([y, 120 - x], 1)  # rotated by 90 degrees counter-clockwise on screen
    distance = torch.cdist(mapped, other[0, other_keep, :, 2]).amin(1)
    assert (distance < 0.2).float().mean() > 0.9
    assert keep.sum() > 10


def test_num_features_bounds_the_output_and_keeps_the_best() -> None:
    extract, image = feature(10), texture(100, 120)
    more = feature(80)
    more.load_state_dict(extract.state_dict())
    with torch.no_grad():
        few, many = extract(image), more(image)
    assert torch.allclose(few[1], many[1][:, :10])
    assert torch.allclose(few[2], many[2][:, :10], atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 3, 8, 8), (2, 1, 8, 300), (0, 1, 64, 64)])
def test_tiny_images_give_empty_slots(shape: tuple[int, ...]) -> None:
    with torch.no_grad():
        lafs, responses, descs = feature(5)(torch.rand(shape))
    assert lafs.shape == (shape[0], 5, 2, 3)
    assert responses.shape == (shape[0], 5)
    assert descs.shape == (shape[0], 5, 128)
    assert not laf_is_filled(lafs).any()
    assert (descs == 0).all()


def test_constant_image_and_an_image_with_texture_share_a_batch() -> None:
    image = torch.cat([torch.full((1, 1, 90, 90), 0.4), texture(90, 90)])
    with torch.no_grad():
        lafs, _, descs = feature()(image)
    assert laf_is_filled(lafs).any(1).tolist() == [False, True]
    assert descs.isfinite().all()


def test_empty_mask_gives_empty_slots() -> None:
    with torch.no_grad():
        lafs, _, _ = feature()(texture(80, 80), torch.zeros(1, 1, 80, 80, dtype=torch.bool))
    assert not laf_is_filled(lafs).any()


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.rand(60, 60), ValueError, r"\(B, 1\|3, H, W\), got \(60, 60\)"),
        (torch.rand(1, 60, 60), ValueError, r"image\[None\]"),
        (torch.rand(1, 2, 60, 60), ValueError, r"got \(1, 2, 60, 60\)"),
        (torch.rand(1, 60, 60, 3), ValueError, r"permute\(0, 3, 1, 2\)"),
        (torch.rand(1, 3, 0, 60), ValueError, r"got \(1, 3, 0, 60\)$"),  # without advice: it is RGB already
        (torch.zeros(1, 1, 60, 60, dtype=torch.uint8), TypeError, r"uint8.*/ 255"),
        (torch.rand(1, 1, 60, 60) * 255, ValueError, r"\[0, 1\], got values from .* divide 8-bit values by 255"),
        (torch.rand(1, 1, 60, 60) - 3, ValueError, r"\[0, 1\], got values from"),
        (torch.full((1, 1, 60, 60), float("nan")), ValueError, "NaN"),
    ],
)
def test_bad_images_are_named(image: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        feature()(image)


def test_an_array_is_named() -> None:
    with pytest.raises(TypeError, match=r"expects a torch\.Tensor, got ndarray"):
        feature()(torch.rand(1, 1, 60, 60).numpy())


@pytest.mark.parametrize("mask", [torch.ones(1, 1, 30, 30), torch.ones(60, 60), torch.ones(2, 1, 60, 60)])
def test_masks_that_do_not_fit_are_named(mask: Tensor) -> None:
    with pytest.raises(ValueError, match="expects a mask"):
        feature()(torch.rand(1, 1, 60, 60), mask)


def test_slight_overshoot_of_the_value_range_is_accepted() -> None:
    with torch.no_grad():
        feature()(texture(60, 60) * 1.2 - 0.1)


def test_parts_can_be_exchanged() -> None:
    mixed = LIFTFeature(
        pretrained=False,
        detector=ScaleSpaceDetector(12),
        orienter=PassLAF(),
        descriptor=LAFDescriptor(SIFTDescriptor(41), patch_size=41),
    ).eval()
    with torch.no_grad():
        lafs, _, descs = mixed(texture(90, 90))
    assert lafs.shape == (1, 12, 2, 3)
    assert descs.shape == (1, 12, 128)


@pytest.mark.parametrize("factor", [0, -1.0, float("nan"), float("inf")])
def test_scaling_coef_is_checked(factor: float) -> None:
    with pytest.raises(ValueError, match="scaling_coef expects a positive factor, got"):
        feature(10, scaling_coef=factor)


def test_scaling_coef_enlarges_frames_only() -> None:
    plain = feature(10, scaling_coef=1)
    double = feature(10, scaling_coef=2)
    double.load_state_dict(plain.state_dict())
    image = texture(90, 90)
    with torch.no_grad():
        a, b = plain(image)[0], double(image)[0]
    assert torch.allclose(a[..., :2] * 2, b[..., :2], atol=1e-4)
    assert torch.allclose(a[..., 2], b[..., 2])


def test_matches_an_image_with_itself_inside_kornias_matcher() -> None:
    image = texture(130, 160)
    matcher = LocalFeatureMatcher(feature(), DescriptorMatcher("mnn"))
    with torch.no_grad():
        found = matcher({"image0": image, "image1": image})
    assert len(found["keypoints0"]) > 10
    assert torch.allclose(found["keypoints0"], found["keypoints1"], atol=1e-3)


@pytest.mark.parametrize("pooled", [(1.0,), (0.8, 1.2)])
def test_recomputed_activations_give_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, pooled: tuple[float, ...]
) -> None:
    """In chunks, or all at once with everything kept: values, and gradients of weights and image."""
    image = texture(110, 120).double().requires_grad_()
    extract = LIFTFeature(30, config=DENSE, pooled_sizes=pooled, pretrained=False).double()
    calls = []
    original = _memory.checkpoint
    monkeypatch.setattr("kornia_lift._memory.checkpoint", lambda *a, **k: calls.append(a[0]) or original(*a, **k))

    def gradients() -> tuple[Tensor, list[Tensor]]:
        lafs, responses, descriptors = extract(image)
        loss = descriptors.pow(3).sum() + responses.sum() + lafs.square().sum() * 1e-4
        return loss, list(torch.autograd.grad(loss, [image, *extract.parameters()]))

    monkeypatch.setattr("kornia_lift.feature.patches.GRADIENT_CHUNK", 7)
    loss, found = gradients()
    assert len(calls) > 10  # levels of the response, and five chunks of orientation and of each description
    monkeypatch.setattr("kornia_lift.feature.patches.GRADIENT_CHUNK", 10**6)
    monkeypatch.setattr("kornia_lift.detector.detector.recompute", lambda function, *x: function(*x))
    calls.clear()
    expected_loss, expected = gradients()
    assert not calls
    torch.testing.assert_close(loss, expected_loss)
    for a, b in zip(found, expected, strict=True):
        assert b.abs().sum() > 0
        torch.testing.assert_close(a, b)


def test_recomputed_activations_need_little_memory() -> None:
    """What a graph keeps for a keypoint: its patch network's activations alone would be 2 MB."""
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    image = texture(200, 220)
    extract = LIFTFeature(300, config=DENSE, pretrained=False)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        _, _, descriptors = extract(image)
    assert descriptors[0].abs().sum(-1).gt(0).sum() > 200
    assert kept < 60e6
