"""LIFTDetector: LIFT's release to the digit, known positions and scales, masks, padding, independence of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kornia.feature import BlobHessian
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTResponse, ScaleSpaceConfig
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.extrema import max_filter, strict_maxima
from kornia_lift.detector.refinement import newton_step
from kornia_lift.detector.scale_space import plan_levels
from kornia_lift.geometry import lift_from_lafs
from tests.helpers.pictures import blob_image, blob_response, texture

BLOBS = [(60.3, 50.7, 2.5), (140.25, 60.1, 4.0), (70.6, 150.4, 6.0), (170.8, 170.2, 8.0), (120.4, 110.6, 3.0)]


def thorough(**options: Any) -> ScaleSpaceConfig:
    """LIFT's fine search from sigma 1 with maxima over scales too, whatever the default of the package is."""
    base = {"min_sigma": 1.0, "levels_per_octave": 5, "nms_radius": 3, "scale_nms": 2, "edge_threshold": 10.0,
            "suppression_pixels": 0.0, "enlarge_to": 0.0}  # fmt: skip
    return ScaleSpaceConfig(**(base | options))


def oracle_detector(oracle: np.lib.npyio.NpzFile, config: ScaleSpaceConfig) -> LIFTDetector:
    response = LIFTResponse(False, mean=float(oracle["mean"]) / 255, std=float(oracle["std"]) / 255)
    with torch.no_grad():
        response.conv.weight.copy_(torch.from_numpy(oracle["W"]))
        assert response.conv.bias is not None
        response.conv.bias.copy_(torch.from_numpy(oracle["b"]))
    return LIFTDetector(64, config, resp_module=response).eval()


def test_faithful_detector_reproduces_the_release(shared: Path) -> None:
    oracle = np.load(shared / "oracles/detector_runtime.npz")
    detector = oracle_detector(oracle, ScaleSpaceConfig.lift())
    image = torch.from_numpy(oracle["image"]).float()[None, None] / 255
    levels = plan_levels(*image.shape[-2:], detector.config, 1000)
    assert np.allclose([level.sigma for level in levels], oracle["scales"])
    assert np.allclose([level.resize for level in levels], oracle["resize"])
    with torch.no_grad():
        scores = detector.score_levels(image)
        lafs, responses = detector(image)
    for i in (0, 5, 10):
        expected = oracle[f"score{i}"]
        inside = np.isfinite(expected)
        assert scores[i].shape[1:] == expected.shape
        assert (scores[i][0].isfinite().numpy() == inside).all()
        assert np.abs(scores[i][0].numpy()[inside] - expected[inside]).max() < 1e-4
    xy, sigma, _ = lift_from_lafs(lafs)
    found = torch.cat([xy[0], sigma[0, :, None], responses[0, :, None]], 1)[laf_is_filled(lafs)[0]]
    assert found.shape == (32, 4)
    assert np.abs(found.numpy() - oracle["xyzs"]).max() < 1e-2


def test_default_corrects_the_position_bias_of_the_release() -> None:
    """LIFT's positions are off by 0.5 - 0.255 sigma pixels; ours are not."""
    blob = (70.6, 150.4, 6.0)
    image = blob_image(240, 240, [blob])
    errors = {}
    for name, config in (("default", ScaleSpaceConfig()), ("lift", ScaleSpaceConfig.lift())):
        with torch.no_grad():
            lafs, _ = LIFTDetector(1, config, resp_module=blob_response())(image)
        xy, sigma, _ = lift_from_lafs(lafs)
        errors[name] = (xy[0, 0] - torch.tensor(blob[:2])).tolist()
        scale = sigma[0, 0].item()
    assert max(map(abs, errors["default"])) < 0.05
    assert np.mean(errors["lift"]) == pytest.approx(0.5 - 0.255 * scale, abs=0.25)


@pytest.mark.parametrize("levels_per_octave", [3, 5])
def test_blobs_are_found_at_sub_pixel_positions_and_scales(levels_per_octave: int) -> None:
    config = thorough(levels_per_octave=levels_per_octave, scale_nms=1)
    with torch.no_grad():
        lafs, _ = LIFTDetector(5, config, resp_module=blob_response())(blob_image(240, 240, BLOBS[:3] + BLOBS[4:]))
    xy, sigma, _ = lift_from_lafs(lafs)
    for x, y, size in BLOBS[:3] + BLOBS[4:]:
        distance = (xy[0] - torch.tensor([x, y])).norm(dim=1)
        assert distance.min() < 0.1
        assert 0.85 < sigma[0, distance.argmin()] / size < 1.05


def test_without_refinement_keypoints_sit_on_level_pixels() -> None:
    config = thorough(subpixel=False)
    with torch.no_grad():
        lafs, _ = LIFTDetector(5, config, resp_module=blob_response())(blob_image(240, 240, BLOBS))
    _, sigma, _ = lift_from_lafs(lafs)
    steps = sigma[laf_is_filled(lafs)].log2() * config.levels_per_octave
    assert torch.allclose(steps, steps.round(), atol=1e-4)


def test_single_level_search_finds_maxima_of_one_level() -> None:
    config = thorough(min_sigma=4, max_sigma=4, scale_nms=0)
    with torch.no_grad():
        lafs, _ = LIFTDetector(5, config, resp_module=blob_response())(blob_image(200, 200, [(100.2, 90.7, 4.0)]))
    xy, sigma, _ = lift_from_lafs(lafs)
    assert sigma[0, 0].item() == pytest.approx(4)
    assert (xy[0, 0] - torch.tensor([100.2, 90.7])).abs().max() < 0.05


def test_edges_are_rejected_unless_asked_for() -> None:
    bar = torch.zeros(1, 1, 160, 160)
    bar[..., 76:84, :] = 1  # a long bar: one large curvature
    bar += 0.02 * texture(160, 160)
    counts = []
    for threshold in (10.0, None):
        detector = LIFTDetector(200, thorough(edge_threshold=threshold), resp_module=blob_response())
        with torch.no_grad():
            lafs, _ = detector(bar)
        y = lafs[0, :, 1, 2][laf_is_filled(lafs)[0]]
        counts.append(int(((y - 79.5).abs() < 4).sum()))
    assert counts[0] < counts[1]


def test_border_rule_of_the_release_drops_frames_that_leave_the_image() -> None:
    detector = LIFTDetector(300, thorough(border=12 * 2**0.5), resp_module=blob_response())
    with torch.no_grad():
        lafs, _ = detector(texture(140, 160))
    xy, sigma, _ = lift_from_lafs(lafs)
    filled = laf_is_filled(lafs)[0]
    assert filled.sum() > 3
    x, y, reach = xy[0, filled, 0], xy[0, filled, 1], 12 * 2**0.5 * sigma[0, filled]
    assert (x - reach).min() >= 1
    assert (y - reach).min() >= 1
    assert (x + reach).max() < 159
    assert (y + reach).max() < 139


def test_keypoints_come_by_decreasing_response_then_empty_slots() -> None:
    with torch.no_grad():
        lafs, responses = LIFTDetector(400, resp_module=blob_response())(texture(100, 120))
    filled = laf_is_filled(lafs)[0]
    count = int(filled.sum())
    assert 5 < count < 400
    assert filled[:count].all()
    assert (responses[0, :count].diff() <= 0).all()
    assert (lafs[0, count:] == 0).all()
    assert (responses[0, count:] == 0).all()


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    detector = LIFTDetector(50, pretrained=False).eval()
    images = texture(90, 100, batch=3)
    images[1] *= 0.3
    with torch.no_grad():
        together = detector(images)
        alone = [detector(image[None]) for image in images]
    for i, (lafs, responses) in enumerate(alone):
        assert torch.allclose(together[0][i], lafs[0], atol=1e-3)
        assert torch.allclose(together[1][i], responses[0], atol=1e-4)


def test_boolean_mask_keeps_keypoints_off_the_excluded_region() -> None:
    config = ScaleSpaceConfig(suppression_sigma=0, suppression_pixels=0)  # what is masked would have suppressed others
    detector = LIFTDetector(5000, config, pretrained=False).eval()  # more slots than keypoints
    image = texture(100, 160)
    mask = torch.zeros(1, 1, 100, 160, dtype=torch.bool)
    mask[..., 80:] = True
    with torch.no_grad():
        free, _ = detector(image)
        lafs, _ = detector(image, mask)
    x = lafs[0, :, 0, 2][laf_is_filled(lafs)[0]]
    assert len(x) > 5
    assert x.min() > 79
    # what stays is what was there: the mask does not make maxima
    kept = lafs[0, laf_is_filled(lafs)[0]]
    assert (kept[:, None] - free[0][None]).abs().amax((2, 3)).amin(1).max() < 1e-3


def test_weights_of_a_mask_never_promote() -> None:
    detector = LIFTDetector(200, pretrained=False).eval()
    image = texture(100, 120)
    with torch.no_grad():
        _, free = detector(image)
        lafs, halved = detector(image, torch.full((1, 1, 100, 120), 0.5))
    count = int(laf_is_filled(lafs).sum())
    expected = torch.where(free >= 0, free * 0.5, free / 0.5)[:, :count]
    assert torch.allclose(halved[:, :count], expected, atol=1e-5)
    with torch.no_grad():
        assert torch.equal(detector(image, torch.full((1, 1, 100, 120), 255.0))[1], free)


def test_one_mask_serves_a_batch() -> None:
    mask = torch.ones(1, 1, 80, 90, dtype=torch.uint8)
    mask[..., :45] = 0
    with torch.no_grad():
        lafs, _ = LIFTDetector(50, pretrained=False)(texture(80, 90, batch=2), mask)
    assert lafs[..., 0, 2][laf_is_filled(lafs)].min() > 44
    assert laf_is_filled(lafs).any(1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 5, 200), (1, 1, 8, 8), (0, 1, 60, 60)])
def test_images_too_small_for_the_filter_give_empty_slots(shape: tuple[int, ...]) -> None:
    lafs, responses = LIFTDetector(7, pretrained=False)(torch.rand(shape))
    assert lafs.shape == (shape[0], 7, 2, 3)
    assert responses.shape == (shape[0], 7)
    assert not laf_is_filled(lafs).any()


def test_any_response_can_be_injected() -> None:
    with torch.no_grad():
        lafs, _ = LIFTDetector(30, resp_module=BlobHessian())(texture(100, 120))
    assert laf_is_filled(lafs).sum() > 5


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    detector = LIFTDetector(30, pretrained=False).to(dtype).eval()
    lafs, responses = detector(texture(90, 90).to(dtype))
    assert lafs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert responses.dtype == dtype
    assert laf_is_filled(lafs).any()


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (torch.rand(1, 3, 60, 60), ValueError, "rgb_to_grayscale"),
        (torch.rand(1, 60, 60), ValueError, r"image\[None\]"),
        (torch.zeros(1, 1, 60, 60, dtype=torch.uint8), TypeError, "uint8"),
        (torch.full((1, 1, 60, 60), float("nan")), ValueError, "NaN"),
        (torch.full((1, 1, 60, 60), float("inf")), ValueError, "infinity"),
    ],
)
def test_bad_images_are_named(image: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LIFTDetector(5, pretrained=False)(image)


@pytest.mark.parametrize("shape", [(1, 1, 30, 60), (3, 1, 60, 60), (2, 3, 60, 60), (60, 60)])
def test_masks_that_do_not_fit_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expects a mask \(1 or 2, 1, 60, 60\)"):
        LIFTDetector(5, pretrained=False)(torch.rand(2, 1, 60, 60), torch.ones(shape))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"min_sigma": 0.0}, "0 < min_sigma"),
        ({"min_sigma": 4.0, "max_sigma": 2.0}, "got 4.0 and 2.0"),
        ({"levels_per_octave": 0}, "levels_per_octave >= 1"),
        ({"nms_radius": 0}, "nms_radius >= 1"),
        ({"scale_nms": -1}, "scale_nms >= 0"),
        ({"edge_threshold": 0.5}, "finite edge_threshold >= 1"),
        ({"border": -1.0}, "border >= 0"),
    ],
)
def test_impossible_settings_are_named(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ScaleSpaceConfig(**arguments)  # type: ignore[arg-type]


def test_number_of_features_is_checked() -> None:
    with pytest.raises(ValueError, match="num_features from 1 to 1000000, got 0"):
        LIFTDetector(0, pretrained=False)


@pytest.mark.parametrize("radius", [1, 2, 3, 5])
def test_max_filter_is_the_maximum_of_the_window(radius: int) -> None:
    x = torch.randn(2, 17, 13)
    expected = torch.nn.functional.max_pool2d(x[None], 2 * radius + 1, stride=1, padding=radius)[0]
    assert torch.equal(max_filter(x, radius), expected)


def test_plateaus_are_no_maxima() -> None:
    score = torch.zeros(1, 20, 20)
    score[0, 8, 8] = score[0, 8, 9] = 1
    score[0, 14, 14] = 2
    assert strict_maxima(score, 2).nonzero().tolist() == [[0, 14 - 2, 14 - 2]]


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_strict_maxima_exceed_all_others_of_their_window(radius: int) -> None:
    score = torch.randint(0, 40, (2, 23, 29)).float()
    windows = score.unfold(1, 2 * radius + 1, 1).unfold(2, 2 * radius + 1, 1).flatten(3)
    middle = windows[..., windows.shape[-1] // 2]
    assert torch.equal(strict_maxima(score, radius), (windows >= middle[..., None]).sum(-1) == 1)


def test_newton_step_is_exact_for_a_quadratic() -> None:
    peak, top = torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64), 5.0
    curvature = torch.tensor([[2.0, 0.3, 0.1], [0.3, 1.5, -0.2], [0.1, -0.2, 1.0]], dtype=torch.float64)

    def value(x: float, y: float, s: float) -> float:
        d = torch.tensor([x, y, s], dtype=torch.float64) - peak
        return top - (d @ curvature @ d).item() / 2

    own = [value(dx, dy, 0) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    cross = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)]  # (dx, dy)
    around = own + [value(dx, dy, s) for s in (-1, 1) for dx, dy in cross]
    step, fitted = newton_step(torch.tensor([around], dtype=torch.float64))
    assert step[0].tolist() == pytest.approx(peak.tolist())
    assert fitted.item() == pytest.approx(top)
