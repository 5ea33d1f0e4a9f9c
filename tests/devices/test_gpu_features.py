"""Whole features, matching and commands on a GPU: the keypoints, descriptors and matches of the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import LocalFeatureMatcher, laf_is_filled
from torch import Tensor

from kornia_lift import LIFTFeature, match_images
from kornia_lift.detector.padding import find_padding
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.feature.lfnet import LFNetFeature
from kornia_lift.feature.mixing import Descriptor, Detector, Orientation, mix_features
from kornia_lift.integrations._extract import extract
from kornia_lift.matching.filtering import CorrespondenceFilter, FilteredMatcher, PutativeMatcher
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.correspondence import CorrespondenceNet
from tests.helpers.pictures import texture

pytestmark = pytest.mark.gpu
MODELS = ("lift", "lift-plus")


def share_found(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> tuple[float, float]:
    """Share of the expected keypoints that are within half a pixel of found ones, and the mean cosine of these."""
    near, cosine = [], []
    for b in range(len(expected[0])):
        mine, other = (laf_is_filled(lafs)[b].cpu() for lafs in (expected[0], found[0]))
        one, two = expected[0][b, mine, :, 2].float().cpu(), found[0][b, :, :, 2].float().cpu()[other]
        distance, partner = torch.cdist(one, two).min(1)
        near.append((distance < 0.5).float())
        described = found[2][b].float().cpu()[other][partner]
        cosine.append((expected[2][b, mine].float().cpu() * described).sum(1)[distance < 0.5])
    return float(torch.cat(near).mean()), float(torch.cat(cosine).mean())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("dtype", "share", "cosine"),
    # bfloat16 has 8 bits for a gray value, which no position of half a pixel survives
    [(torch.float64, 0.99, 0.99), (torch.float32, 0.97, 0.98), (torch.float16, 0.85, 0.95), (torch.bfloat16, 0.0, 0.8)],
)
def test_features_agree_with_the_cpu(
    model: str, dtype: torch.dtype, share: float, cosine: float, cuda: torch.device
) -> None:
    feature, images = LIFTFeature(150, pretrained=model), texture(160, 200, 2)
    with torch.inference_mode():
        with fast_paths(False):
            expected = feature(images)
        found = feature.to(cuda)(images.to(cuda, dtype))
    assert {t.device.type for t in found} == {cuda.type}
    assert found[1].dtype == found[2].dtype == dtype
    assert found[0].dtype == torch.promote_types(dtype, torch.float32)
    near, alike = share_found(found, expected)
    assert near >= share and alike >= cosine, (near, alike)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 0.97), (torch.float16, 0.9)])
def test_images_of_a_batch_do_not_see_each_other(
    model: str, dtype: torch.dtype, share: float, cuda: torch.device
) -> None:
    feature = LIFTFeature(100, pretrained=model, device=cuda)
    images = torch.cat([texture(120, 160, 2), torch.full((1, 1, 120, 160), 0.4)]).to(cuda, dtype)
    with torch.inference_mode():
        together = feature(images)
        singles = [torch.cat(parts) for parts in zip(*(feature(image[None]) for image in images), strict=True)]
    near, alike = share_found((together[0][:2], together[1], together[2]), (singles[0][:2], singles[1], singles[2]))
    assert near > share and alike > 0.97
    assert not together[0][2].any() and not together[2][2].any()


@pytest.mark.parametrize("model", MODELS)
def test_flat_images_have_no_keypoints(model: str, cuda: torch.device) -> None:
    y, x = torch.meshgrid(torch.arange(200.0) / 200, torch.arange(260.0) / 260, indexing="ij")
    ramp = (0.2 + 0.1 * x + 0.05 * y)[None, None].to(cuda)
    feature = LIFTFeature(50, pretrained=model, device=cuda)
    with torch.inference_mode():
        for image in (ramp, torch.zeros_like(ramp), torch.full_like(ramp, 0.37), ramp.half()):
            assert not laf_is_filled(feature(image)[0]).any()
        with torch.autocast(cuda.type, torch.bfloat16):
            assert not laf_is_filled(feature(ramp)[0]).any()


def test_released_scale_space_mask_and_gradient(cuda: torch.device) -> None:
    image = texture(140, 180).to(cuda)
    mask = torch.arange(180, device=cuda).gt(90).expand(1, 1, 140, 180)
    for config in (ScaleSpaceConfig.lift(), None):
        feature = LIFTFeature(60, config=config, device=cuda)
        lafs, responses, descriptors = feature(image, mask)
        filled = laf_is_filled(lafs)
        assert filled.sum() > 5 and (lafs[..., 0, 2][filled] > 88).all()
        (lafs.square().mean() + responses.square().mean() + descriptors[..., 0].sum()).backward()
        for name, parameter in feature.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_black_padding_is_found(cuda: torch.device) -> None:
    image = texture(200, 200, 2) * 0.9 + 0.1
    y, x = torch.meshgrid(torch.arange(200) - 99.5, torch.arange(200) - 99.5, indexing="ij")
    rotated = torch.where(x.abs() + y.abs() < 120, image[:1], 0)
    expected = find_padding(torch.cat([rotated, image[1:]]))
    found = find_padding(torch.cat([rotated, image[1:]]).to(cuda))
    assert expected is not None and found is not None and expected[0].any() and not expected[1].any()
    assert torch.equal(found.cpu(), expected)
    assert find_padding(image.to(cuda)) is None


@pytest.mark.parametrize("model", MODELS)
def test_autocast_leaves_the_keypoints(model: str, cuda: torch.device) -> None:
    feature, image = LIFTFeature(80, pretrained=model, device=cuda), texture(120, 160).to(cuda)
    with torch.inference_mode():
        expected = feature.detector(image)[1]
        with torch.autocast(cuda.type, torch.bfloat16):
            found = feature(image)
    assert all(t.isfinite().all() for t in found)
    torch.testing.assert_close(found[1].sort().values, expected.sort().values, atol=0.5, rtol=0.02)


def test_a_wrong_device_is_named(cuda: torch.device) -> None:
    if cuda.type == "cpu":
        pytest.skip("there is no wrong device")
    feature, image = LIFTFeature(20, device=cuda), texture(60, 70)
    with pytest.raises(ValueError, match="move one of them"):
        feature(image)
    with pytest.raises(ValueError, match="mask and images on one device"):
        feature(image.to(cuda), torch.ones(1, 1, 60, 70))


@pytest.mark.parametrize(
    "parts",
    [
        ("dog", "lift", "sift"),
        ("lift", "dominant", "sift"),
        ("hessian", "upright", "lift"),
        ("lift", "orinet", "tfeat"),
    ],
)
def test_mixtures(parts: tuple[Detector, Orientation, Descriptor], cuda: torch.device) -> None:
    feature = mix_features(*parts, 40, pretrained=False).to(cuda)
    with torch.inference_mode():
        lafs, _, descriptors = feature(texture(100, 120, 2).to(cuda))
    assert laf_is_filled(lafs).sum() > 10 and descriptors.device.type == cuda.type and descriptors.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lfnet(dtype: torch.dtype, cuda: torch.device) -> None:
    feature = LFNetFeature(50).to(cuda)
    with torch.inference_mode():
        lafs, responses, descriptors = feature(texture(100, 120, 2).to(cuda, dtype))
    filled = laf_is_filled(lafs)
    assert filled.any() and responses.dtype == dtype and descriptors.isfinite().all()
    feature(texture(100, 120).to(cuda))[2].sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in feature.descriptor.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_matching_two_images(model: str, cuda: torch.device) -> None:
    pytest.importorskip("cv2")
    whole = texture(200, 260)
    first, second = whole[..., :240], whole[..., 20:]
    feature = LIFTFeature(300, pretrained=model, device=cuda)
    for keep in (None, CorrespondenceFilter(CorrespondenceNet(pretrained=True).eval().to(cuda))):
        match = match_images(first, second, feature, geometry="homography", keep=keep)
        assert match.verified.sum() > 50
        here, there = (points[match.verified] for points in match.points)
        assert np.abs(here - there - [20, 0]).max() < 3
    matcher = FilteredMatcher(
        LocalFeatureMatcher(feature, PutativeMatcher()), CorrespondenceNet(pretrained=True).eval()
    )
    with torch.inference_mode():
        found = matcher.to(cuda)({"image0": first.to(cuda), "image1": second.to(cuda)})
    assert {t.device.type for t in found.values()} == {cuda.type} and len(found["confidence"])


def test_records_for_other_programs(cuda: torch.device) -> None:
    feature = LIFTFeature(40, device=cuda)
    with torch.inference_mode():
        records = extract(feature, texture(90, 110, 2).to(cuda))
    assert len(records) == 2
    for record in records:
        parts = (record.xy, record.scores, record.descriptors, record.sigma, record.angle)
        assert {len(t) for t in parts} == {len(record.xy)} and {t.device.type for t in parts} == {cuda.type}


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], cuda: torch.device) -> None:
    cv2, h5py = pytest.importorskip("cv2"), pytest.importorskip("h5py")
    from kornia_lift.cli import main

    folder = tmp_path / "images"
    folder.mkdir()
    whole = (texture(160, 220)[0, 0] * 255).byte().numpy()
    for name, part in (("a.png", whole[:, :200]), ("b.png", whole[:, 20:])):
        cv2.imwrite(str(folder / name), part)
    for dtype in ("float32", "float16"):
        out = tmp_path / f"{dtype}.h5"
        options = ["-n", "100", "--device", str(cuda), "--dtype", dtype]
        assert main(["extract", str(folder), "--out", str(out), *options]) == 0
        with h5py.File(out) as file:
            assert len(file["a.png/keypoints"]) > 50
    capsys.readouterr()
    names = [str(folder / "a.png"), str(folder / "b.png")]
    out_image = ["--out", str(tmp_path / "matches.jpg")]
    assert main(["match", *names, "-n", "200", "--device", str(cuda), "--json", *out_image]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] > 30
