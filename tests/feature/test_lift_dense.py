"""`lift-dense`: keypoints of a response that sees its surroundings at several resolutions."""

from __future__ import annotations

import pytest
import torch
from kornia.feature import PassLAF, get_laf_center, get_laf_orientation, get_laf_scale
from torch import Tensor

from benchmarks.invariance import CHANGES, images, measure
from kornia_lift import LIFTDetector, LIFTFeature, LIFTResponse
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.model import scale_space_of
from kornia_lift.detector.scale_space import LEVEL_SIGMA
from kornia_lift.feature import feature_of
from kornia_lift.networks.dense_response import DenseResponse
from kornia_lift.weights import WeightFileError
from kornia_lift.weights._registry import FOLDER, MODELS
from tests.helpers.pictures import texture

MODEL = "lift-dense"


def detect(image: Tensor, count: int = 200, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    with torch.inference_mode():
        lafs, responses = LIFTDetector(count, pretrained=MODEL).eval()(image, mask)
    kept = laf_is_filled(lafs)
    assert (responses[~kept] == 0).all() and lafs.isfinite().all() and responses.isfinite().all()
    return lafs, kept


def test_it_orients_and_describes_as_lift_plus() -> None:
    """A feature of LIFT's form: its own response and localization, the orientation and descriptor of lift-plus."""
    image = texture(160, 200, seed=5)
    plus, upright = feature_of("lift-dense", 60), feature_of("lift-dense-upright", 60)
    theirs = LIFTFeature(60, pretrained="lift-plus")
    assert type(plus) is LIFTFeature and isinstance(plus.detector.resp, DenseResponse)
    assert (FOLDER / MODELS["lift-dense"].file).stat().st_size < 6e6
    assert (plus.scaling_coef, plus.orienter.context) == (theirs.scaling_coef, theirs.orienter.context)
    with torch.no_grad():
        lafs, responses, descriptors = plus(image)
        frames, same, described = upright(image)
        kept = laf_is_filled(frames)
        assert torch.allclose(theirs.descriptor(image, frames)[kept], described[kept], atol=1e-4)
    assert kept.sum() > 20 and torch.equal(responses, same)
    assert torch.allclose(get_laf_center(lafs), get_laf_center(frames), atol=1e-3)
    assert get_laf_orientation(frames)[kept].abs().max() < 1e-3
    assert (described[kept].norm(dim=1) - 1).abs().max() < 1e-3 and descriptors.shape == (1, 60, 128)
    for name in ("orienter", "descriptor"):
        mine, other = getattr(plus, name).state_dict(), getattr(theirs, name).state_dict()
        assert all(torch.equal(mine[key], other[key]) for key in other)
    oriented = LIFTFeature(20, upright=False, pretrained="lift-dense-upright")
    assert type(oriented.orienter) is type(theirs.orienter) and isinstance(upright.orienter, PassLAF)


def test_an_octave_is_searched() -> None:
    config = scale_space_of(MODEL)
    assert LIFTDetector(10, pretrained=MODEL).config == config
    assert config.sigmas(2000, 3000, 1000) == pytest.approx([LEVEL_SIGMA * 2 ** (n / 2) for n in range(3)])


@pytest.mark.parametrize("gray", [0.0, 0.3, 0.5, 1.0])
def test_constant_images_have_no_keypoints(gray: float) -> None:
    assert not detect(torch.full((1, 1, 200, 220), gray))[1].any()


def test_no_image_has_no_keypoints() -> None:
    with torch.inference_mode():
        lafs, responses, descriptors = LIFTFeature(20, pretrained=MODEL)(torch.rand(0, 1, 100, 120))
    assert lafs.shape == (0, 20, 2, 3) and responses.shape == (0, 20) and descriptors.shape == (0, 20, 128)


def test_flat_parts_of_an_image_have_no_keypoints() -> None:
    image = torch.full((1, 1, 160, 260), 0.4)
    image[..., 130:] = texture(160, 130)
    lafs, kept = detect(image)
    assert kept.sum() > 50
    assert get_laf_center(lafs)[kept][:, 0].min() > 130 - 16  # the window of 25 pixels, and a correction


def test_keypoints_keep_away_from_black_corners_and_masked_pixels() -> None:
    image = texture(160, 220, seed=1)
    padded = image.clone()
    padded[..., :70] = 0
    lafs, kept = detect(padded)
    assert kept.sum() > 40 and get_laf_center(lafs)[kept][:, 0].min() > 70 + 4
    mask = torch.zeros(1, 1, 160, 220, dtype=torch.bool)
    mask[..., 80:] = True
    lafs, kept = detect(image, mask=mask)
    assert kept.sum() > 40 and get_laf_center(lafs)[kept][:, 0].min() >= 79.5


def test_the_content_beside_padding_is_found_as_without_it() -> None:
    """Padding has no weight in the local contrast: most keypoints stay, though the network sees its edge."""
    image = texture(200, 300, seed=2)
    padded = image.clone()
    padded[..., :100] = 0
    (lafs, kept), (lafs2, kept2) = detect(image, 400), detect(padded, 400)
    xy, xy2 = get_laf_center(lafs)[kept], get_laf_center(lafs2)[kept2]
    xy = xy[xy[:, 0] > 140]
    assert (torch.cdist(xy, xy2).amin(1) < 1).float().mean() > 0.8


@pytest.mark.parametrize(("size", "most"), [((1, 1), 0), ((12, 300), 0), ((20, 300), 400), ((33, 120), 400)])
def test_small_images_have_few_keypoints_or_none(size: tuple[int, int], most: int) -> None:
    lafs, kept = detect(torch.rand(2, 1, *size))
    assert lafs.shape == (2, 200, 2, 3) and kept.sum() <= most


def test_no_two_keypoints_lie_close_to_each_other() -> None:
    lafs, kept = detect(torch.rand(1, 1, 200, 200), 1000)
    xy = get_laf_center(lafs)[kept].double()
    apart = torch.cdist(xy, xy).fill_diagonal_(1e9).amin(1)
    assert len(xy) > 200 and (apart < 2).float().mean() < 0.02


def test_images_of_a_batch_are_found_as_alone() -> None:
    pair = torch.cat([texture(120, 150, seed=3), texture(120, 150, seed=4) * 0.5])
    lafs, _ = detect(pair, 60)
    for number in range(2):
        alone, _ = detect(pair[number : number + 1], 60)
        near = torch.cdist(get_laf_center(alone)[0], get_laf_center(lafs)[number]).amin(1)
        assert (near < 0.1).float().mean() > 0.95


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_features_have_the_dtype_of_the_image(dtype: torch.dtype) -> None:
    feature, image = LIFTFeature(60, pretrained=MODEL), texture(96, 128)
    with torch.inference_mode():
        lafs, _, descriptors = feature(image)
        lafs2, responses2, descriptors2 = feature(image.to(dtype))
    assert responses2.dtype == descriptors2.dtype == dtype
    assert all(t.dtype == torch.float32 for t in feature.parameters())
    near = torch.cdist(get_laf_center(lafs).double()[0], get_laf_center(lafs2).double()[0]).amin(1)
    assert (near < 0.5).float().mean() > 0.8


def test_gradients_reach_the_image_and_all_networks() -> None:
    feature, image = LIFTFeature(30, pretrained=MODEL), texture(80, 90).requires_grad_()
    lafs, responses, descriptors = feature(image)
    (get_laf_center(lafs).sum() + get_laf_scale(lafs).sum() + responses.sum() + descriptors[..., 0].sum()).backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().sum() > 0
    for name in ("detector.resp.head.weight", "detector.localizer.network.head.weight"):
        gradient = feature.get_parameter(name).grad
        assert gradient is not None and gradient.isfinite().all() and gradient.abs().sum() > 0


@pytest.mark.parametrize("change", ["rotated by 90°", "rotated by 180°"])
def test_most_keypoints_and_descriptors_return_when_the_image_rotates(change: str) -> None:
    pytest.importorskip("skimage")
    moved = measure(LIFTFeature(600, pretrained=MODEL), images()["astronaut"], CHANGES[change])
    assert moved.returned > 0.75 and moved.angle < 10 and moved.descriptor < 0.4


def test_weights_of_other_responses_are_refused() -> None:
    with pytest.raises(WeightFileError, match="do not fit.*another network, which LIFTFeature"):
        LIFTResponse(MODEL)
    with pytest.raises(WeightFileError, match="do not fit.*another network, which LIFTFeature"):
        DenseResponse("lift-plus")
