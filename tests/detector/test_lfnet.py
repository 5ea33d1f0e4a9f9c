"""LF-Net's detector and descriptor: oracles, gradients, masks, small images, and mixing with other parts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import (
    DescriptorMatcher,
    LAFOrienter,
    LocalFeatureMatcher,
    PassLAF,
    extract_patches_simple,
    get_laf_center,
    get_laf_orientation,
    get_laf_scale,
    laf_from_center_scale_ori,
)
from torch import Tensor, nn
from torch.autograd import gradcheck

from kornia_lift import mix_features
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.lfnet import LAF_SCALE, LFNetDetector
from kornia_lift.detector.soft_nms import merge_scales, sample_squares, soft_argmax, soft_nms, strict_maxima
from kornia_lift.feature.lfnet import LFNetFeature, LFNetPatchDescriptor
from kornia_lift.networks.lfnet import SCALES, Grid, LFNetDescriptor, normalise_maps, resize_maps
from tests.helpers.pictures import texture


def read(shared: Path, name: str) -> dict[str, Tensor]:
    with np.load(shared / "oracles" / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def set_norm(norm: nn.modules.batchnorm._BatchNorm, rows: Tensor) -> None:
    for tensor, row in zip((norm.weight, norm.bias, norm.running_mean, norm.running_var), rows, strict=True):
        assert tensor is not None
        tensor.copy_(row)


def set_layer(layer: nn.Module, weight: Tensor, bias: Tensor) -> None:
    assert isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


@torch.no_grad()
def oracle_detector(o: dict[str, Tensor], grid: Grid, joint: bool, count: int = 40) -> LFNetDetector:
    detector = LFNetDetector(count, grid=grid, joint=joint).double().eval()
    maps = detector.maps
    set_layer(maps.input, o["p_init_w"], o["p_init_b"])
    for n, block in enumerate(maps.blocks):
        set_norm(block.norm1, o[f"p_b{n}_bn1"])  # type: ignore[arg-type]
        set_norm(block.norm2, o[f"p_b{n}_bn2"])  # type: ignore[arg-type]
        set_layer(block.conv1, o[f"p_b{n}_w1"], o[f"p_b{n}_b1"])  # type: ignore[arg-type]
        set_layer(block.conv2, o[f"p_b{n}_w2"], o[f"p_b{n}_b2"])  # type: ignore[arg-type]
    set_norm(maps.norm, o["p_fin_bn"])
    for n, head in enumerate(maps.scores):
        set_layer(head, o["p_score_w"][n], o["p_score_b"][n])
    set_layer(maps.orientation, o["p_ori_w"], o["p_ori_b"])
    return detector


def test_dense_maps_reproduce_the_oracle(shared: Path) -> None:
    o = read(shared, "lfnet_detector")
    assert torch.allclose(torch.tensor(SCALES, dtype=torch.float64), o["factors"], atol=1e-9)
    image = o["image"][None, None]
    assert (normalise_maps(image)[0, 0] - o["image_normalised"]).abs().max() < 1e-12
    for grid, joint, score, scale in (
        ("legacy", True, "score", "scale"),
        ("half", True, "half_3d_score", "half_3d_scale"),
        ("legacy", False, "legacy_2d_score", "legacy_2d_scale"),
        ("half", False, "half_2d_score", "half_2d_scale"),
    ):
        detector = oracle_detector(o, grid, joint)  # type: ignore[arg-type]
        with torch.no_grad():
            found = detector.dense(image)
        assert (found[0][0] - o[score]).abs().max() < 1e-6, (grid, joint)
        assert (found[1][0] - o[scale]).abs().max() < 1e-6, (grid, joint)
        assert (found[2][0] - o["orientation"]).abs().max() < 1e-9
    with torch.no_grad():
        single = oracle_detector(o, "legacy", True).float().dense(image.float())
        features = oracle_detector(o, "legacy", True).maps.features(normalise_maps(image))[0]
    assert (features - o["features"]).abs().max() < 1e-5
    assert (single[0][0] - o["score"]).abs().max() < 1e-4


def test_keypoints_reproduce_the_oracle(shared: Path) -> None:
    o = read(shared, "lfnet_detector")
    detector = oracle_detector(o, "legacy", True)
    with torch.no_grad():
        lafs, responses = detector(o["image"][None, None])
    count = int(laf_is_filled(lafs).sum())
    assert count == len(o["keypoints_raster"]) == 28
    column, row = o["keypoints_raster"].unbind(1)
    order = o["score"][row, column].argsort(descending=True)
    assert (responses[0, :count] - o["score"][row, column][order]).abs().max() < 1e-6
    assert (get_laf_center(lafs)[0, :count] - o["keypoints_refined"][order]).abs().max() < 1e-5
    scale = get_laf_scale(lafs)[0, :count, 0, 0]
    assert (scale - 16 * 32 / 31 * o["keypoint_scale"][order]).abs().max() < 1e-5
    vector = o["keypoint_orientation"][order]
    change = get_laf_orientation(lafs)[0, :count, 0] + torch.rad2deg(torch.atan2(vector[:, 1], vector[:, 0]))
    assert ((change + 180) % 360 - 180).abs().max() < 1e-5
    assert (lafs[0, count:] == 0).all() and (responses[0, count:] == 0).all()


def test_soft_suppression_reproduces_the_oracle(shared: Path) -> None:
    o = read(shared, "lfnet_softnms")
    joint = soft_nms(o["logits"][None])
    assert (joint[0] - o["out3d"]).abs().max() < 1e-12
    assert (soft_nms(o["logits"][None, :1])[0, 0] - o["out2d_scale0"]).abs().max() < 1e-12
    score, scale = merge_scales(joint, o["factors"].tolist())
    assert (score[0] - o["merge_score"]).abs().max() < 1e-7
    assert (scale[0] - o["merge_scale"]).abs().max() < 1e-7
    assert (strict_maxima(o["hard_nms_input"][None])[0] == o["hard_nms_mask"]).all()


def test_soft_argmax_reproduces_the_oracle(shared: Path) -> None:
    o = read(shared, "lfnet_softargmax")
    assert (soft_argmax(o["patches"]) - o["out_strength1"]).abs().max() < 1e-8
    assert (soft_argmax(o["patches"], 10) - o["out_strength10"]).abs().max() < 1e-8


def test_patches_reproduce_the_oracle(shared: Path) -> None:
    """LF-Net's own cutting, and kornia's of our frame where no sample touches the border."""
    o = read(shared, "lfnet_crop")
    maps, image = o["image"][None], torch.zeros(5, dtype=torch.long)
    cut = sample_squares(maps, image, o["keypoints"], 16 * o["scale"], 32, o["theta_rad"])
    assert (cut - o["out"]).abs().max() < 1e-10
    lafs = laf_from_center_scale_ori(
        o["keypoints"][None],
        (LAF_SCALE * o["scale"])[None, :, None, None],
        -torch.rad2deg(o["theta_rad"])[None, :, None],
    )
    patches = extract_patches_simple(maps[None], lafs, 32, normalize_lafs_before_extraction=True)[0, :, 0]
    assert ((patches - o["out"]).abs() * o["inside"]).max() < 1e-3


def integer_noise(count: int, seed: int) -> Tensor:
    """The recipe of the oracle's README: hashes of integers as numbers in [-1, 1]."""
    h = (np.arange(count, dtype=np.uint64) + np.uint64(seed * 1000003)) & np.uint64(0xFFFFFFFF)
    keep = np.uint64(0xFFFFFFFF)
    h = (h * np.uint64(0x9E3779B1)) & keep
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = ((h ^ (h >> np.uint64(shift))) * np.uint64(factor)) & keep
    h ^= h >> np.uint64(16)
    return torch.from_numpy(h.astype(np.float64) / 2**31 - 1)


@torch.no_grad()
def oracle_descriptor() -> LFNetDescriptor:
    network = LFNetDescriptor().double().eval()
    norms = (network.norm1, network.norm2, network.norm3, network.norm4)
    for n, layer in enumerate((network.conv1, network.conv2, network.conv3, network.fc1, network.fc2)):
        shape = layer.weight.shape
        fan_in = math.prod(shape[1:])
        weight = integer_noise(shape.numel(), 3 * n + 1) * math.sqrt(6 / fan_in)
        linear = isinstance(layer, nn.Linear)
        weight = weight.view(shape[1], shape[0]).T if linear else weight.view(shape)
        set_layer(layer, weight, 0.1 * integer_noise(shape[0], 3 * n + 2))
        if n < 4:
            u = integer_noise(4 * shape[0], 3 * n + 3).view(4, -1)
            set_norm(norms[n], torch.stack([1 + 0.4 * u[0], 0.2 * u[1], 0.3 * u[2], 1 + 0.6 * u[3]]))
    return network


def test_descriptor_reproduces_the_oracle(shared: Path) -> None:
    o = read(shared, "lfnet_descriptor")
    network = oracle_descriptor()
    assert torch.allclose(network.fc2.weight.T.flatten()[:4], o["first_fc2_w"])
    with torch.no_grad():
        assert (network(o["patches"]) - o["descriptors"]).abs().max() < 1e-10
        assert (network.float()(o["patches"].float()) - o["descriptors"]).abs().max() < 1e-5


def test_parameter_counts_are_the_published_ones() -> None:
    assert sum(p.numel() for p in LFNetDetector().parameters()) == 41_719 + 224
    assert sum(p.numel() for p in LFNetDescriptor().parameters()) == 2_598_656 + 1_920


@pytest.mark.parametrize("grid", ["half", "legacy"])
def test_resizing_there_and_back_does_not_shift(grid: Grid) -> None:
    x, y = torch.meshgrid(torch.arange(40.0), torch.arange(30.0), indexing="xy")
    ramp = (x + 2 * y)[None, None]
    back = resize_maps(resize_maps(ramp, (42, 57), grid), (30, 40), grid)
    assert (back - ramp)[..., 3:-3, 3:-3].abs().max() < 0.1


def random_detector(count: int = 30, refine: float = 1.0) -> LFNetDetector:
    torch.manual_seed(4)
    detector = LFNetDetector(count, refine_strength=refine).eval()
    nn.init.normal_(detector.maps.orientation.weight, std=0.2)
    return detector


def test_gradients_reach_score_scale_orientation_and_position() -> None:
    detector = random_detector(refine=10.0)
    lafs, responses = detector(texture(64, 72))
    filled = laf_is_filled(lafs)[0]
    assert filled.sum() > 3
    parameters = dict(detector.maps.named_parameters())
    for name, value in (
        ("score", responses.sum()),
        ("scale", get_laf_scale(lafs)[0, filled].sum()),
        ("position", get_laf_center(lafs)[0, filled].square().sum()),
    ):
        grads = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
        moved = {n for n, g in zip(parameters, grads, strict=True) if g is not None and g.abs().sum() > 0}
        assert "scores.2.weight" in moved, name
        assert all(g is None or g.isfinite().all() for g in grads)
    angle = torch.autograd.grad(lafs[0, filled, 0, 1].sum(), detector.maps.orientation.weight)[0]
    assert angle.isfinite().all() and angle.abs().sum() > 0


def test_gradients_of_suppression_and_sampling_are_exact() -> None:
    logits = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: merge_scales(soft_nms(x, window=3), (1.2, 0.8), strength=5.0), (logits,))
    maps = torch.rand(1, 7, 7, dtype=torch.float64, requires_grad=True)
    xy = torch.tensor([[3.2, 3.1]], dtype=torch.float64, requires_grad=True)
    half = torch.tensor([2.3], dtype=torch.float64, requires_grad=True)
    at = torch.zeros(1, dtype=torch.long)
    assert gradcheck(lambda m, p, h: soft_argmax(sample_squares(m, at, p, h, 4), 5.0), (maps, xy, half))


def test_masks_remove_keypoints_and_move_none() -> None:
    detector, image = random_detector(200), texture(72, 96)
    mask = torch.ones(1, 1, 72, 96, dtype=torch.bool)
    mask[..., 48:] = False
    with torch.no_grad():
        lafs, _ = detector(image)
        masked, responses = detector(image, mask)
        halved = detector(image, torch.full((1, 1, 72, 96), 0.5))[1]
        whole = detector(image)[1]
    all_xy, kept_xy = (get_laf_center(frames)[laf_is_filled(frames)] for frames in (lafs, masked))
    expected = all_xy[all_xy[:, 0].round() < 48]
    assert 0 < len(kept_xy) < len(all_xy)
    assert torch.cdist(kept_xy, expected).amin(1).max() < 1e-3
    assert (responses[0].diff() <= 0).all()
    assert torch.allclose(halved, whole / 2)


@pytest.mark.parametrize("size", [(1, 1), (20, 200), (32, 32), (33, 33)])
def test_small_images_have_no_keypoints_or_few(size: tuple[int, int]) -> None:
    lafs, responses = random_detector()(torch.rand(2, 1, *size))
    assert lafs.shape == (2, 30, 2, 3)
    assert lafs.isfinite().all() and responses.isfinite().all()
    if min(size) <= 32:
        assert not laf_is_filled(lafs).any()


def test_constant_images_and_empty_batches_have_no_keypoints() -> None:
    detector = random_detector()
    lafs, responses = detector(torch.full((1, 1, 64, 64), 0.4))
    assert not lafs.any() and not responses.any()
    assert detector(torch.zeros(0, 1, 64, 64))[0].shape == (0, 30, 2, 3)


def test_a_batch_gives_the_keypoints_of_its_images() -> None:
    detector, images = random_detector().double(), texture(64, 72, batch=2).double()
    with torch.no_grad():
        both = detector(images)[0]
        each = torch.cat([detector(image[None])[0] for image in images])
    assert torch.allclose(both, each, atol=1e-8)


@pytest.mark.parametrize(
    ("detector", "orientation", "descriptor"),
    [
        ("lfnet", PassLAF(), "lfnet"),
        ("lfnet", "upright", "sift"),
        ("lfnet", "lift", "lift"),
        ("lfnet", "dominant", "tfeat"),
        ("lift", "lift", "lfnet"),
        ("dog", "dominant", "lfnet"),
        ("hessian", "orinet", "lfnet"),
        ("keynet", "upright", "lfnet"),
        ("lfnet", LAFOrienter(19), "hardnet"),
    ],
)
def test_parts_mix_with_those_of_lift_and_kornia(detector: str, orientation: str | nn.Module, descriptor: str) -> None:
    image = texture(80, 88)
    detector_part = random_detector(16) if detector == "lfnet" else detector
    descriptor_part = LFNetPatchDescriptor() if descriptor == "lfnet" else descriptor
    torch.manual_seed(1)  # with some random weights the last ReLU of KeyNet is dead
    feature = mix_features(
        detector_part,  # type: ignore[arg-type]
        orientation,  # type: ignore[arg-type]
        descriptor_part,  # type: ignore[arg-type]
        16,
        pretrained=False,
    )
    with torch.no_grad():
        lafs, responses, descriptors = feature(image)
        matcher = LocalFeatureMatcher(feature, DescriptorMatcher("nn"))
        found = matcher({"image0": image, "image1": image, "lafs1": lafs, "descriptors1": descriptors})
    assert lafs.shape == (1, 16, 2, 3) and responses.shape == (1, 16)
    assert descriptors.shape == (1, 16, 256 if descriptor == "lfnet" else 128)
    assert lafs.isfinite().all() and descriptors.isfinite().all()
    assert len(found["keypoints0"]) > 0
    assert ((found["keypoints0"] - found["keypoints1"]).norm(dim=1) < 1e-3).float().mean() > 0.7


def test_feature_takes_colour_and_writes_unit_descriptors() -> None:
    feature = LFNetFeature(20, False).eval()
    with torch.no_grad():
        lafs, _, descriptors = feature(texture(64, 80).expand(-1, 3, -1, -1))
    filled = laf_is_filled(lafs)
    assert filled.any()
    assert torch.allclose(descriptors[filled].norm(dim=1), torch.ones(int(filled.sum())), atol=1e-4)
    assert (descriptors[~filled] == 0).all()


def test_weight_files_fill_detector_and_descriptor(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    feature = LFNetFeature(20, False).eval()
    parts = {"detector": feature.detector, "descriptor": feature.descriptor.describe.descriptor}
    tensors = {f"{part}.{n}": t.clone() for part, module in parts.items() for n, t in module.state_dict().items()}
    save_file(tensors, tmp_path / "lf-net.safetensors")
    again = LFNetFeature(20, tmp_path / "lf-net.safetensors")
    assert not again.training
    image = texture(64, 80)
    with torch.no_grad():
        for a, b in zip(feature(image), again(image), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_detector_alone_takes_any_precision(dtype: torch.dtype) -> None:
    detector, image = LFNetDetector(20, True).eval(), texture(64, 80)
    with torch.no_grad():
        lafs, responses = detector(image.to(dtype))
        same = detector(image.to(dtype).float())
    assert responses.dtype == dtype and lafs.dtype == torch.promote_types(dtype, torch.float32)
    assert laf_is_filled(lafs).any()
    torch.testing.assert_close(lafs.float(), same[0])
    torch.testing.assert_close(responses, same[1].to(dtype))


@pytest.mark.parametrize("arguments", [{"refine_strength": -1.0}, {"refine_strength": math.nan}, {"grid": "third"}])
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any]) -> None:
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name} expects .*, got {arguments[name]!r}"):
        LFNetDetector(20, **arguments)


def test_padding_does_not_count_in_the_normalisation() -> None:
    maps, padding = torch.rand(2, 3, 20, 30), torch.zeros(2, 20, 30, dtype=torch.bool)
    padding[:, :, :10] = True
    found = normalise_maps(maps.masked_fill(padding[:, None], 7.0), padding)
    torch.testing.assert_close(found[..., 10:], normalise_maps(maps[..., 10:]))
    assert not found[..., :10].any()


def test_black_around_an_image_changes_neither_keypoints_nor_descriptors() -> None:
    """A rotated or rectified image lies in black: its keypoints are those of the image without it."""
    feature, image = LFNetFeature(80), texture(240, 240, seed=4)
    inside = 32  # pixels from the border: the network sees beyond it there
    around = torch.nn.functional.pad(image, (30, 50, 40, 20))
    mask = torch.zeros_like(image)
    mask[..., inside:-inside, inside:-inside] = 1
    outer = torch.nn.functional.pad(mask, (30, 50, 40, 20))
    with torch.inference_mode():
        lafs, responses, descriptors = feature(image, mask)
        moved, others, same = feature(around, outer)
        blind = LFNetDetector(80, True, skip_padding=False)(around, outer)[0]
        network = feature.descriptor.describe.descriptor
        blind_descriptors = LFNetPatchDescriptor(network, skip_padding=False)(around, moved)
    count = int(laf_is_filled(lafs).sum())
    assert count > 30

    def nearest(others: Tensor) -> tuple[Tensor, Tensor]:
        at = others[0, :, :, 2] - laf_is_filled(others)[0, :, None] * torch.tensor([30.0, 40.0])
        distance, index = torch.cdist(lafs[0, :count, :, 2], at).min(1)
        # scores of other scales come from maps of another size, whose pixels lie elsewhere
        return distance < 0.5, index

    found, index = nearest(moved)
    assert found.float().mean() > 0.9 > nearest(blind)[0].float().mean()
    assert (descriptors[0, :count] * same[0, index]).sum(1)[found].min() > 0.999
    assert (descriptors[0, :count] * blind_descriptors[0, index]).sum(1)[found].min() < 0.999
    assert (responses[0, :count] - others[0, index]).abs()[found].max() < 0.05


@pytest.mark.parametrize("angle", [15.0, 45.0])
def test_no_keypoint_near_the_black_corners_of_a_rotated_image(angle: float) -> None:
    from kornia_lift.evaluation.warps import ImageWarp

    warp = ImageWarp(angle)
    image = texture(260, 320, seed=2)
    lafs, _ = LFNetDetector(200, True)(warp(image))
    there = lafs[0, laf_is_filled(lafs)[0], :, 2].detach().numpy()
    back = np.linalg.inv(warp.matrix((320, 260)))
    here = np.c_[there, np.ones(len(there))] @ back.T
    assert len(here) > 50
    assert here[:, 0].min() > 15 and here[:, 1].min() > 15 and here[:, 0].max() < 305 and here[:, 1].max() < 245
