"""CompactResponse: a score of every pixel, the fast path, its keypoints in LIFTDetector."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import kornia
import pytest
import torch
from kornia.feature import ScaleSpaceDetector
from kornia.geometry.transform import ScalePyramid
from torch import Tensor

import kornia_lift.networks.compact_response as room
from kornia_lift._kornia import ShapeError, laf_is_filled
from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.detector.extrema import max_filter
from kornia_lift.detector.scale_space import ScaleSpaceConfig
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.compact_response import CompactResponse
from kornia_lift.networks.contrast import LocalContrast
from kornia_lift.weights import write_safetensors
from tests.helpers.pictures import texture


def random_response(**options: object) -> CompactResponse:
    """Random weights, in eval mode."""
    torch.manual_seed(0)
    return CompactResponse(**options).eval()  # type: ignore[arg-type]


def test_counts_its_parameters() -> None:
    assert sum(p.numel() for p in CompactResponse().parameters()) == 57_984


def test_weights_say_how_wide_the_network_is(tmp_path: Path) -> None:
    narrow, image = random_response(widths=(8, 16, 24)), texture(60, 70)
    path = tmp_path / "narrow.safetensors"
    write_safetensors(path, {f"response.{name}": value for name, value in narrow.state_dict().items()}, {})
    loaded = CompactResponse(path)
    assert sum(p.numel() for p in loaded.parameters()) == sum(p.numel() for p in narrow.parameters()) == 21_824
    assert not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), narrow(image), rtol=0, atol=0)
    with pytest.raises(ValueError, match="do not fit"):
        CompactResponse(path, widths=(16, 32, 32))


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (26, 40), (65, 80)])
def test_every_pixel_has_a_score(size: tuple[int, int]) -> None:
    network = random_response()
    with torch.no_grad():
        score = network(torch.rand(2, 1, *size))
    assert score.shape == (2, 1, *size) and score.isfinite().all()


def test_batches_are_scored_like_single_images() -> None:
    network, images = random_response(precision="float32"), texture(60, 70, batch=3)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert torch.allclose(together, alone, atol=1e-4)


def test_the_fast_path_gives_the_same() -> None:
    network, images = random_response(precision="float32"), texture(61, 83, batch=2)
    with torch.no_grad():
        found = network(images)
        with fast_paths(False):
            expected = network(images)
        assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))
        half = random_response(precision="bfloat16")
        assert (half(images) - expected).abs().mean() < 0.02 * expected.std()
        # every weight that changes is seen
        network.at_half[0].weight.mul_(0.5)
        assert not torch.allclose(network(images), found, atol=1e-3)


def test_strips_of_large_images_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = random_response(precision="float32"), texture(300, 130)
    with torch.no_grad():
        whole = network(image)
        monkeypatch.setattr(room, "STRIP_PIXELS", 136 * 40)
        strips = network(image)
    assert torch.allclose(whole, strips, atol=1e-4 * float(whole.abs().max()))


def test_a_shift_by_whole_cells_shifts_the_score() -> None:
    network, image = random_response(precision="float32"), texture(400, 400)
    with torch.no_grad():
        far = slice(136, 240)
        one, two = network(image)[..., far, far], network(image[..., 8:, 16:])[..., 128:232, 120:224]
    assert torch.allclose(one, two, atol=1e-3 * float(one.abs().max()))


def test_contrast_and_brightness_hardly_matter() -> None:
    network, image = random_response(), texture(120, 120)
    with torch.no_grad():
        one, two = network(image).flatten(), network(image * 0.5 + 0.3).flatten()
    assert torch.corrcoef(torch.stack([one, two]))[0, 1] > 0.98


@pytest.mark.parametrize("factor", [0.01, 0.3, 2.0])
def test_the_score_is_proportional_to_the_contrast(factor: float) -> None:
    network, z = random_response(precision="float32"), torch.randn(1, 1, 64, 80).clamp(-1, 1)
    with torch.no_grad():
        one, two = network.score_normalized(z), network.score_normalized(z * factor)
    torch.testing.assert_close(two, one * factor, rtol=1e-4, atol=1e-5 * factor)
    assert one.std() > 0.01


@pytest.mark.parametrize("network", [random_response, lambda: CompactResponse("lift-fast")])
def test_no_pixel_of_a_block_is_preferred(network: Callable[[], CompactResponse]) -> None:
    """Where the image is smooth, the four scores of a block come from nearly the same features."""
    image = kornia.filters.gaussian_blur2d(texture(400, 500), (31, 31), (5.0, 5.0))
    with torch.no_grad():
        score = network()(image)
    inner = score[..., 8:-8, 8:-8]
    peaks = (inner == max_filter(score, 3)[..., 8:-8, 8:-8]).nonzero()[:, 2:]
    assert len(peaks) > 100
    share = torch.bincount(peaks[:, 0] % 2 * 2 + peaks[:, 1] % 2, minlength=4) / len(peaks)
    assert share.max() < 0.4, share  # .25 without preference, .79 without the filter; random weights on some CPUs .352


def test_gradients_reach_the_image_and_every_weight() -> None:
    network, image = random_response(), texture(48, 48).requires_grad_()
    network(image).square().mean().backward()
    assert image.grad is not None and image.grad.abs().max() > 0
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtype_follows_the_input(dtype: torch.dtype) -> None:
    network = random_response().to(dtype)
    with torch.no_grad():
        assert network(texture(40, 40).to(dtype)).dtype == dtype


def test_a_copy_and_a_state_dict_give_the_same() -> None:
    network, image = random_response(precision="float32"), texture(40, 40)
    other = CompactResponse(precision="float32").eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        expected = network(image)
        assert torch.equal(copy.deepcopy(network)(image), expected)
        assert torch.equal(other(image), expected)


def test_bad_input() -> None:
    network = CompactResponse()
    with pytest.raises(
        ShapeError, match=r"CompactResponse expects grayscale images \(B, 1, H, W\), got \(1, 3, 8, 8\)"
    ):
        network(torch.rand(1, 3, 8, 8))
    with pytest.raises(TypeError, match="floating"):
        network(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="window 'gaussian', got 'filter'"):
        CompactResponse(contrast=LocalContrast("filter"))
    with pytest.raises(ValueError, match="precision must be one of"):
        CompactResponse(precision="int8")  # type: ignore[arg-type]


def test_it_is_a_response_of_the_detector() -> None:
    network, image = random_response(), texture(120, 150)
    detector = LIFTDetector(50, resp_module=network)
    assert detector.config == ScaleSpaceConfig.compact()
    with torch.no_grad():
        lafs, responses = detector(image)
        assert laf_is_filled(lafs).sum() > 20 and (responses[0].diff() <= 0).all()


@pytest.mark.parametrize("gray", [0.0, 0.1, 0.2, 0.5, 1.0])
def test_constant_images_have_no_keypoints(gray: float) -> None:
    for precision in ("float32", "bfloat16"):
        detector = LIFTDetector(50, resp_module=random_response(precision=precision))
        with torch.no_grad():
            lafs, _ = detector(torch.full((1, 1, 130, 170), gray))
        assert not laf_is_filled(lafs).any()


def test_black_borders_attract_no_keypoints() -> None:
    detector, image = LIFTDetector(200, resp_module=random_response()), texture(200, 200)
    image[..., :60] = 0
    with torch.no_grad():
        lafs, _ = detector(image)
    x: Tensor = lafs[laf_is_filled(lafs)][:, 0, 2]
    assert len(x) and x.min() > 64


def test_gradients_through_the_detector() -> None:
    detector, image = LIFTDetector(20, resp_module=random_response()), texture(90, 90).requires_grad_()
    lafs, responses = detector(image)
    (lafs[..., 2].sum() + lafs[..., :2].sum() + responses.sum()).backward()
    assert image.grad is not None and image.grad.isfinite().all() and image.grad.abs().max() > 0


@pytest.mark.parametrize("batch", [1, 2])
def test_is_a_response_of_kornias_detector(batch: int) -> None:
    """Kornia passes the blur of every level, as to LIFTResponse."""
    response = CompactResponse("lift-fast")
    detector = ScaleSpaceDetector(
        40,
        resp_module=response,
        mr_size=response.sigma_ratio * LAF_SCALE_PER_SIGMA,
        scale_pyr_module=ScalePyramid(3, 1.6, 16, double_image=True),
    )
    image = texture(100, 120, batch=batch)
    with torch.no_grad():
        lafs, responses = detector(image)
        own, _ = LIFTDetector(40, resp_module=response)(image)
    assert lafs.shape == (batch, 40, 2, 3) and (responses > 0).sum() > 25 * batch
    apart = torch.cdist(lafs[0, :, :, 2], own[0, :, :, 2]).amin(1)
    assert (apart < 2).float().mean() > 0.3  # other levels, the same corners
    with pytest.raises(ValueError, match="CompactResponse expects one sigma per image"):
        response(image, torch.ones(3))
