"""Dtypes of images, weights and of torch, also in several threads."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kornia_lift import LIFTDetector, LIFTFeature
from kornia_lift.geometry import lafs_from_lift
from kornia_lift.geometry.pyramid import extract_patches
from tests.helpers.networks import feature
from tests.helpers.pictures import texture


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_dtype_follows_the_image_and_weights_stay(dtype: torch.dtype) -> None:
    size = 60 if dtype == torch.float16 else 90  # float16 convolutions are slow on CPU
    image = texture(size, size)
    extract = feature(8)
    with torch.no_grad():
        lafs, responses, descs = extract(image.to(dtype))
    assert descs.dtype == responses.dtype == dtype
    assert lafs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert descs.isfinite().all()
    assert all(p.dtype == torch.float32 for p in extract.parameters())


def test_float64_agrees_with_float32() -> None:
    extract, image = feature(20), texture(90, 90)
    with torch.no_grad():
        single, double = extract(image), extract(image.double())
    assert torch.allclose(single[0].double(), double[0], atol=1e-2)
    assert torch.allclose(single[2].double(), double[2], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", ["lift", "lift-plus"])
def test_half_precision_images_have_the_keypoints_of_their_gray_values(model: str, dtype: torch.dtype) -> None:
    """bfloat16 holds 8 bits: levels resized in it, and products with filters in it, would give a fifth other ones."""
    extract = LIFTFeature(100, pretrained=model)
    image = texture(150, 180).to(dtype)
    with torch.inference_mode():
        found, expected = extract(image)[0][0, :, :, 2], extract(image.float())[0][0, :, :, 2]
    assert len(found) == len(expected) == 100
    assert (torch.cdist(found.float(), expected).amin(1) < 0.5).float().mean() > 0.95


def test_half_precision_files_give_modules_of_one_dtype() -> None:
    loaded = LIFTFeature(10)
    assert {t.dtype for t in [*loaded.parameters(), *loaded.buffers()]} == {torch.float32}


def test_images_of_another_dtype_leave_the_weights_alone() -> None:
    """Other threads may be using them; gradients still reach them."""
    extract, image = feature(20), texture(80, 90)
    before = dict(extract.named_parameters())
    calls = []
    extract.detector.register_forward_hook(lambda *_: calls.append(dict(extract.named_parameters())))
    _, responses, descs = extract(image.double())
    assert descs.dtype == torch.float64
    for during in (*calls, dict(extract.named_parameters())):
        assert all(during[name] is parameter for name, parameter in before.items())
    (descs.sum() + responses.sum()).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in extract.parameters())


def test_threads_may_send_images_of_different_dtypes() -> None:
    extract, image = feature(20), texture(80, 90)
    with torch.inference_mode():
        expected = {d: extract(image.to(d))[2] for d in (torch.float32, torch.float64)}

    def describe(dtype: torch.dtype) -> tuple[torch.dtype, float]:
        with torch.inference_mode():
            found = extract(image.to(dtype))[2]
        # rounding depends on the threads of the library: one keypoint may give way to another
        near = torch.cdist(expected[found.dtype][0], found[0]).amin(1) < 1e-2
        return found.dtype, float(near.double().mean())

    sent = list(expected) * 6
    with ThreadPoolExecutor(4) as pool:
        for dtype, (found, share) in zip(sent, pool.map(describe, sent), strict=True):
            assert found == dtype
            assert share >= 0.9


def test_default_dtype_of_torch_changes_nothing() -> None:
    extract, image = feature(20), texture(80, 90)
    with torch.no_grad():
        expected = extract(image)
        torch.set_default_dtype(torch.float64)
        try:
            found = extract(image)
        finally:
            torch.set_default_dtype(torch.float32)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("gradient", [False, True])
def test_bfloat16_does_not_round_the_positions_of_patches(gradient: bool) -> None:
    """It has steps of 4 pixels beyond column 512: patches cut there would move all keypoints."""
    image = texture(70, 900).bfloat16()
    detector = LIFTFeature(150, pretrained="lift-plus", precision="float32").detector
    lafs, _ = LIFTDetector(150, resp_module=detector.resp)(image.float())
    with torch.set_grad_enabled(gradient):
        exact = detector.localizer(lafs, image.float())
        rounded = copy.deepcopy(detector.localizer).bfloat16()(lafs, image)
    far = lafs[..., 0, 2] > 500
    moved, apart = ((exact - other)[far][..., 2].detach().norm(dim=1) for other in (lafs, rounded))
    assert len(apart) > 20
    assert apart.median() < 0.05 < moved.median()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_patches_lie_where_float32_has_them(dtype: torch.dtype) -> None:
    image = texture(70, 900).to(dtype)
    lafs = lafs_from_lift(torch.tensor([[[30.3, 40.7], [700.3, 33.6], [861.9, 30.2]]]), torch.full((1, 3), 2.0))
    expected = extract_patches(image.float(), lafs, 32)
    found = extract_patches(image, lafs, 32)
    assert found.dtype == dtype
    assert (found.float() - expected).abs().max() < 2 * torch.finfo(dtype).eps + 1e-4
