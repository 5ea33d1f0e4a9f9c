"""Patches from a shared pyramid are kornia's, and the parts that cut them are kornia's parts."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import (
    LAFDescriptor,
    LAFOrienter,
    extract_patches_from_pyramid,
    get_laf_orientation,
    laf_from_center_scale_ori,
    scale_laf,
)
from torch import Tensor
from torch.nn.functional import normalize as normalize_vectors

from kornia_lift import LIFTDescriptor, LIFTFeature, LIFTOrientation, ScaleSpaceConfig
from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.geometry.pyramid import PatchPyramid, extract_patches
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from tests.helpers.pictures import texture


def frames(height: int, width: int, batch: int = 1, count: int = 60) -> Tensor:
    """Frames of all sizes and angles, also beyond the border, some stretched."""
    generator = torch.Generator().manual_seed(height)
    random = torch.rand(4, batch, count, generator=generator)
    centre = torch.stack([random[0] * (width + 20) - 10, random[1] * (height + 20) - 10], -1)
    lafs = laf_from_center_scale_ori(centre, 2 * 60 ** random[2, :, :, None, None], 360 * random[3, :, :, None])
    lafs[:, ::4, 0, :2] *= 1.7
    return lafs


@pytest.mark.parametrize("size", [(300, 401), (133, 257), (64, 64), (40, 200), (5, 9), (3, 3)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("side", [64, 32])
def test_patches_are_kornias(size: tuple[int, int], batch: int, side: int) -> None:
    image, lafs = texture(*size, batch=batch), frames(*size, batch=batch)
    found = PatchPyramid(image).cut(lafs, side)
    expected = extract_patches_from_pyramid(image, lafs, side)
    assert found.shape == expected.shape
    # positions are rounded differently: a part of 1e-7 of the side, times the contrast
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("size", [(300, 401), (133, 257), (40, 200), (5, 9), (3, 3)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patches_cut_at_once_are_those_cut_by_level(size: tuple[int, int], batch: int, dtype: torch.dtype) -> None:
    pyramid, lafs = PatchPyramid(texture(*size, batch=batch).to(dtype)), frames(*size, batch=batch).to(dtype)
    depth = 1 + max(k for k in range(8) if k == 0 or min(size) >> k >= 32)
    level = torch.arange(lafs.shape[1]).expand(batch, -1) % depth  # of all, whatever their scales
    finite = torch.ones_like(level, dtype=torch.bool)
    finite[:, 3] = False
    expected = pyramid.cut_by_level(lafs, level, finite, 32)
    found = pyramid.cut_at_once(lafs, level, finite, 32, depth)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert (found - expected).abs().max() < (1e-4 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_patches_do_not_depend_on_the_threads(threads: int) -> None:
    image, lafs = texture(90, 110), frames(90, 110)[:, :7]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = PatchPyramid(image).cut(lafs, 16)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found, torch.cat([PatchPyramid(image).cut(lafs[:, k : k + 1], 16) for k in range(7)], 1))


def test_patches_of_half_precision_are_those_of_the_same_image_in_float32() -> None:
    image, lafs = texture(130, 130).half(), frames(130, 130)
    found = PatchPyramid(image).cut(lafs, 32)
    assert found.dtype == torch.float16
    torch.testing.assert_close(found, PatchPyramid(image.float()).cut(lafs, 32).half(), rtol=0, atol=0)


def test_frames_that_are_not_finite_give_black_patches() -> None:
    image, lafs = texture(130, 130), frames(130, 130)
    lafs[0, 3, 0, 2] = float("nan")
    lafs[0, 5, 1, 1] = float("inf")
    found, expected = PatchPyramid(image).cut(lafs, 64), extract_patches_from_pyramid(image, lafs, 64)
    assert (found[0, [3, 5]] == 0).all()
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("batch", [1, 2])
def test_orienter_and_descriptor_are_kornias(batch: int) -> None:
    image, lafs = texture(150, 170, batch=batch), frames(150, 170, batch=batch)
    orientation, descriptor = LIFTOrientation(False).eval(), LIFTDescriptor(False).eval()
    with torch.no_grad():
        expected = LAFOrienter(64, angle_detector=orientation)(lafs, image)
        for source in (image, PatchPyramid(image)):
            oriented = PatchOrienter(orientation)(lafs, source)
            angle = get_laf_orientation(oriented) - get_laf_orientation(expected)
            assert (((angle + 180) % 360 - 180).abs() < 0.1).float().mean() > 0.98
            found = PatchDescriptor(descriptor)(source, lafs)
            assert (found - LAFDescriptor(descriptor, patch_size=64)(image, lafs)).abs().max() < 1e-3


@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_is_the_mean_over_regions_of_several_sizes(normalize: bool) -> None:
    image, lafs, sizes = texture(150, 170), frames(150, 170), (0.7, 1.0, 1.4)
    network = LIFTDescriptor(False, normalize=normalize).eval()
    with torch.no_grad():
        single = torch.stack([PatchDescriptor(network)(image, scale_laf(lafs, size)) for size in sizes])
        pooled = PatchDescriptor(network, sizes)(image, lafs)
        expected = normalize_vectors(single.sum(0), dim=-1) if normalize else single.mean(0)
        torch.testing.assert_close(pooled, expected)
        torch.testing.assert_close(PatchDescriptor(network, sizes)(PatchPyramid(image), lafs), pooled)
    with torch.enable_grad():  # kornia's own patches
        assert (PatchDescriptor(network, sizes)(image, lafs) - pooled).abs().max() < 1e-3 * pooled.abs().max()


@pytest.mark.parametrize("sizes", [(), (1.0, 0.0), (1.0, -2.0), (float("inf"),), (float("nan"),)])
def test_sizes_that_make_no_sense_are_named(sizes: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="one or more factors above 0"):
        PatchDescriptor(LIFTDescriptor(False), sizes)


def test_no_frames_give_no_descriptors() -> None:
    image, none = texture(80, 80), torch.zeros(1, 0, 2, 3)
    with torch.no_grad():
        assert PatchDescriptor(LIFTDescriptor(False))(image, none).shape == (1, 0, 128)
    with torch.no_grad():
        assert PatchOrienter(LIFTOrientation(False))(none, image).shape == none.shape


def test_more_frames_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    image, lafs = texture(150, 170, batch=2), frames(150, 170, batch=2)
    describe = PatchDescriptor(LIFTDescriptor(False).eval())
    with torch.no_grad():
        whole = describe(image, lafs)
        monkeypatch.setattr("kornia_lift.feature.patches.CHUNK", 14)
        assert torch.allclose(describe(image, lafs), whole, atol=1e-5)


@pytest.mark.parametrize("upright", [False, True])
def test_feature_agrees_with_its_differentiable_form(upright: bool) -> None:
    config = ScaleSpaceConfig(min_sigma=2, max_sigma=8)
    extract, image = LIFTFeature(60, upright=upright, config=config), texture(150, 160)
    with torch.no_grad():
        lafs, responses, descriptors = extract(image)
    with torch.enable_grad():
        expected = extract(image)
    assert torch.allclose(responses, expected[1], rtol=1e-4, atol=1e-4)
    similarity = (descriptors[0] @ expected[2][0].mT).amax(1)
    assert (similarity > 0.999).float().mean() > 0.95
    assert similarity.min() > 0.9
    assert lafs.shape == expected[0].shape


def test_an_orienter_with_context_sees_more_and_leaves_the_scale() -> None:
    image, lafs = texture(150, 170), frames(150, 170)
    network = PolarOrientation(False, precision="float32").eval()
    plain, wide = PatchOrienter(network), PatchOrienter(network, context=1.7)
    with torch.no_grad():
        found = wide(lafs, image)
        expected = scale_laf(plain(scale_laf(lafs, 1.7), image), 1 / 1.7)
        assert not torch.allclose(found, plain(lafs, image), atol=1e-2)
    assert torch.allclose(found, expected, atol=1e-3)
    with torch.enable_grad():  # kornia's own path
        same = wide(lafs, image)
    # rounding may exchange two equally likely directions
    assert ((same - found).abs().amax((2, 3)) < 0.05).float().mean() > 0.9


@pytest.mark.parametrize("context", [0.0, -1.0, float("inf"), float("nan")])
def test_an_impossible_context_is_refused(context: float) -> None:
    with pytest.raises(ValueError, match="context expects a factor above 0"):
        PatchOrienter(PolarOrientation(False, precision="float32"), context)


def test_compact_networks_are_kornias_parts_too() -> None:
    image, lafs = texture(150, 170), frames(150, 170)
    network = CompactDescriptor(False, precision="float32").eval()
    with torch.no_grad():
        found = PatchDescriptor(network)(PatchPyramid(image), lafs)
        assert torch.allclose(found, PatchDescriptor(network)(image, lafs), atol=1e-3)
        # one large patch of a frame of any size, which the pyramid may cut from another level
        large = LAFDescriptor(network, patch_size=128)(image, scale_laf(lafs, 4.0))
        assert ((large * found).sum(-1) > 0.8).float().mean() > 0.9


class Ambiguous(PolarOrientation):
    """Two directions, 90 degrees apart, of given probabilities."""

    def distribution(self, patch: Tensor) -> Tensor:
        p = torch.zeros(len(patch), 72)
        p[:, 4], p[:, 22] = 0.6, 0.4
        return p


def test_candidates_are_the_frames_at_the_peaks() -> None:
    image, lafs = texture(150, 170, batch=2), frames(150, 170, batch=2)
    orienter = PatchOrienter(Ambiguous(False), angles=3)
    for source in (image, PatchPyramid(image)):
        with torch.no_grad():
            found, weights = orienter.candidates(lafs, source)
        roots = torch.tensor([0.6, 0.4, 0.0]).sqrt()
        torch.testing.assert_close(weights, (roots / roots.sum()).expand(2, 60, 3))
        for each, clockwise in zip(found, (20.0, 110.0), strict=False):
            angle = get_laf_orientation(each) - get_laf_orientation(lafs) + clockwise
            assert ((angle + 180) % 360 - 180).abs().max() < 1e-2
    torch.testing.assert_close(found[0], orienter(lafs, image))


def test_the_first_candidate_is_the_orientation() -> None:
    image, lafs = texture(150, 170), frames(150, 170)
    orienter = PatchOrienter(PolarOrientation("lift-plus"), context=1.5, angles=2)
    with torch.no_grad():
        found, weights = orienter.candidates(lafs, PatchPyramid(image))
        torch.testing.assert_close(found[0], orienter(lafs, PatchPyramid(image)))
    assert (weights.sum(-1) - 1).abs().max() < 1e-5
    assert 0 < (weights[..., 1] > 0).float().mean() < 1
    assert (weights[..., 0] >= weights[..., 1]).float().mean() > 0.9


def test_the_mean_over_angles_is_the_same_whichever_is_first() -> None:
    image, lafs = texture(150, 170, batch=2), frames(150, 170, batch=2)
    other = scale_laf(lafs, 0.8)
    describe = PatchDescriptor(CompactDescriptor(False, precision="float32").eval())
    weights = torch.full((2, 60, 2), 0.5)
    weights[:, ::3] = torch.tensor([1.0, 0.0])
    weights[0, 0] = 0  # an empty slot
    with torch.no_grad():
        found = describe.average(image, [lafs, other], weights)
        parts = torch.stack([describe(image, each) for each in (lafs, other)], -1)
        expected = normalize_vectors((parts * weights[:, :, None]).sum(-1), dim=-1)
        torch.testing.assert_close(found, expected)
        assert (found[0, 0] == 0).all()
        torch.testing.assert_close(found[:, 1::3], describe.average(image, [other, lafs], weights)[:, 1::3])
    with torch.enable_grad():  # kornia's own patches
        assert (describe.average(image, [lafs, other], weights) - found).abs().max() < 1e-2


def test_frames_without_weight_are_not_described(monkeypatch: pytest.MonkeyPatch) -> None:
    image, lafs = texture(150, 170), frames(150, 170)
    describe = PatchDescriptor(CompactDescriptor(False).eval())
    weights = torch.tensor([1.0, 0.0]).repeat(1, 60, 1)
    weights[0, 5] = 0.5
    counts: list[int] = []
    run = describe._describe
    monkeypatch.setattr(describe, "_describe", lambda img, each: counts.append(each.shape[1]) or run(img, each))
    with torch.no_grad():
        describe.average(image, [lafs, lafs], weights)
    assert counts == [60, 1]


def test_several_angles_need_a_distribution() -> None:
    with pytest.raises(ValueError, match="estimates one angle for each patch, got angles=2"):
        PatchOrienter(LIFTOrientation(False), angles=2)


@pytest.mark.parametrize("network", [LIFTOrientation, PolarOrientation])
@pytest.mark.parametrize("angles", [0, -1])
def test_there_is_at_least_one_angle(network: type[LIFTOrientation | PolarOrientation], angles: int) -> None:
    with pytest.raises(ValueError, match=f"angles expects a number of at least 1, got {angles}"):
        PatchOrienter(network(False), angles=angles)


def test_the_feature_averages_over_angles() -> None:
    image = torch.cat([texture(150, 160), texture(150, 160, seed=3)])
    many = LIFTFeature(40, pretrained="lift-plus")
    one = LIFTFeature(40, pretrained="lift-plus", angles=1)
    assert many.orienter.angles == 4
    with torch.no_grad():
        (lafs, _, averaged), (same, _, single) = many(image), one(image)
        alone = many(image[1:])
    assert torch.allclose(lafs, same, atol=1e-3)  # the frame is that of the most likely angle
    similarity = (averaged * single).sum(-1)
    assert ((similarity - 1).abs() < 1e-3).any() and (similarity < 0.98).any()
    assert ((averaged[1] * alone[2][0]).sum(-1) > 0.99).all()
    with pytest.raises(ValueError, match="give either angles or orienter"):
        LIFTFeature(40, pretrained=False, orienter=one.orienter, angles=2)


def test_averaging_agrees_with_its_differentiable_form() -> None:
    feature, image = LIFTFeature(40, pretrained="lift-plus", precision="float32"), texture(150, 160)
    with torch.no_grad():
        _, _, expected = feature(image)
    image.requires_grad_()
    lafs, _, found = feature(image)
    similarity = (found[0] @ expected[0].mT).amax(1)
    assert (similarity > 0.99).float().mean() > 0.9
    (grad,) = torch.autograd.grad(found.square().sum() + found[..., 0].sum() + lafs.sum() * 0, image)
    assert grad.isfinite().all() and grad.abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patches_without_those_of_kornia_are_the_same(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    """What is used with kornia 0.8, whose own patches are half a pixel off, gradients to image and frames included."""
    image, lafs = texture(130, 140, batch=2).to(dtype), frames(130, 140, batch=2).to(dtype)
    found = []
    for ours in (False, True):
        monkeypatch.setattr("kornia_lift.geometry.pyramid.SAMPLES_PIXEL_CENTRES", not ours)
        x, moved = image.clone().requires_grad_(), lafs.clone().requires_grad_()
        patches = extract_patches(x, moved, 32)
        found.append((patches, *torch.autograd.grad(patches.square().sum(), [x, moved])))
    for ours, kornias in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(ours, kornias, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["lift", "lift-plus"])
def test_a_feature_without_kornias_patches_is_the_same(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    image = texture(96, 128).requires_grad_()
    feature = LIFTFeature(20, pretrained=name)
    expected = feature(image)
    monkeypatch.setattr("kornia_lift.geometry.pyramid.SAMPLES_PIXEL_CENTRES", False)
    for ours, kornias in zip(feature(image), expected, strict=True):
        torch.testing.assert_close(ours, kornias, atol=2e-3, rtol=1e-3)
