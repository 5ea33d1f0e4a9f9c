"""LIFTResponse: the oracle, its contract, and scale maxima inside kornia's ScaleSpaceDetector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia.feature import ScaleSpaceDetector
from kornia.geometry.transform import ScalePyramid
from torch.autograd import gradcheck

from kornia_lift import LIFTResponse
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA, lift_from_lafs
from tests.helpers.pictures import blob_image, blob_response


def test_score_map_reproduces_the_oracle(shared: Path) -> None:
    oracle = np.load(shared / "oracles/detector_patch.npz")
    response = LIFTResponse(False, mean=float(oracle["mean"]) / 255, std=float(oracle["std"]) / 255)
    with torch.no_grad():
        response.conv.weight.copy_(torch.from_numpy(oracle["W"]))
        assert response.conv.bias is not None
        response.conv.bias.copy_(torch.from_numpy(oracle["b"]))
        score = response.valid(torch.from_numpy(oracle["patches48"]).float()[:, None] / 255)
    assert score.shape == (4, 1, 24, 24)
    assert np.abs(score[:, 0].numpy() - oracle["scoremap"]).max() < 1e-5


def test_has_the_parameters_of_the_paper() -> None:
    assert sum(p.numel() for p in LIFTResponse(False).parameters()) == 10_016


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 7, 40), (1, 1, 60, 33), (0, 1, 30, 30)])
def test_output_has_the_size_of_the_input(shape: tuple[int, ...]) -> None:
    response = LIFTResponse(False).eval()
    x = torch.rand(shape)
    assert response(x).shape == shape
    assert response(x, torch.full((len(x),), 2.0)).shape == shape


def test_valid_part_does_not_depend_on_the_padding() -> None:
    response, x = LIFTResponse(False).eval(), torch.rand(1, 1, 40, 50)
    assert torch.allclose(response(x)[..., 12:-12, 12:-12], response.valid(x), atol=1e-5)


def test_strips_do_not_change_the_score() -> None:
    response, x = LIFTResponse(False).eval(), torch.rand(2, 1, 180, 40)
    with torch.no_grad():
        strips = response.valid(x)
    whole = response.valid(x)  # gradients are recorded: in one piece
    assert strips.shape == whole.shape
    assert torch.allclose(strips, whole, atol=1e-5)


def test_batch_and_levels_are_independent() -> None:
    response, x = LIFTResponse(False).eval(), torch.rand(3, 1, 40, 44)
    sigmas = torch.tensor([1.6, 2.0, 1.6])
    both = response(x, sigmas)
    for i in range(3):
        assert torch.allclose(both[i : i + 1], response(x[i : i + 1], sigmas[i : i + 1]), atol=1e-5)


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        (torch.zeros(1, 1, 30, 30, dtype=torch.uint8), TypeError, r"uint8.*image.float\(\) / 255"),
        (torch.rand(1, 3, 30, 30), ValueError, r"\(B, 1, H, W\), got \(1, 3, 30, 30\)"),
        (torch.rand(30, 30), ValueError, r"got \(30, 30\)"),
    ],
)
def test_bad_input_is_named(x: torch.Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        LIFTResponse(False)(x)


def test_number_of_sigmas_is_checked() -> None:
    with pytest.raises(ValueError, match=r"one sigma per image, \(2,\), got \(3,\)"):
        LIFTResponse(False)(torch.rand(2, 1, 30, 30), torch.ones(3))


def test_finds_scale_maxima_in_kornias_scale_space() -> None:
    """Blobs of three octaves: sub-pixel positions, and scales in proportion to the blobs (0.894 for a Gaussian)."""
    blobs = [(60.3, 50.7, 3.0), (150.2, 64.4, 5.0), (80.6, 150.4, 7.0)]
    response = blob_response()
    detector = ScaleSpaceDetector(
        10,
        resp_module=response,
        mr_size=response.sigma_ratio * LAF_SCALE_PER_SIGMA,
        scale_pyr_module=ScalePyramid(3, 1.6, 16, double_image=True),
    )
    with torch.no_grad():
        lafs, _ = detector(blob_image(200, 200, blobs))
    xy, sigma, _ = lift_from_lafs(lafs)
    for x, y, size in blobs:
        distance = (xy[0] - torch.tensor([x, y])).norm(dim=1)
        best = distance.argmin()
        assert distance[best] < 0.3
        assert 0.84 < sigma[0, best] / size < 0.94


@pytest.mark.parametrize("zoom", [0.5, 2.0])
def test_scale_maxima_follow_an_image_that_is_rescaled(zoom: float) -> None:
    data = pytest.importorskip("skimage.data")
    image = torch.from_numpy(data.camera()[:192, 100:292]).float()[None, None] / 255
    other = torch.nn.functional.interpolate(image, scale_factor=zoom, mode="bilinear", antialias=True)
    detector = ScaleSpaceDetector(
        60, resp_module=blob_response(), mr_size=12.19, scale_pyr_module=ScalePyramid(3, 1.6, 16, double_image=True)
    )
    with torch.no_grad():
        (first, _), (second, _) = detector(image), detector(other)
    (xy1, s1, _), (xy2, s2, _) = lift_from_lafs(first), lift_from_lafs(second)
    mapped = (xy1[0] + 0.5) * zoom - 0.5
    distance, nearest = torch.cdist(mapped, xy2[0]).min(1)
    matched = (distance < 1.5 * max(zoom, 1)) & (s1[0] > 0)
    assert matched.sum() >= 12
    ratio = (s2[0][nearest] / s1[0])[matched].log2()
    assert ratio.median().item() == pytest.approx(torch.tensor(zoom).log2().item(), abs=0.15)


def test_gradients_are_exact() -> None:
    response = LIFTResponse(False).double()
    x = torch.rand(1, 1, 26, 27, dtype=torch.float64, requires_grad=True)
    assert gradcheck(response.valid, (x,), fast_mode=True)
    assert gradcheck(lambda x: response(x, torch.tensor([1.7])), (x,), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(dtype: torch.dtype) -> None:
    response = LIFTResponse(False).to(dtype).eval()
    out = response(torch.rand(1, 1, 40, 40).to(dtype))
    assert out.dtype == dtype
    assert out.isfinite().all()
