"""Scores that do not depend on local contrast: known answers, and the same score on every path."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn import functional as F

from kornia_lift import LIFTResponse
from kornia_lift.networks.contrast import LocalContrast, gaussian_contrast, window_deviation, window_sums
from kornia_lift.weights import WeightFileError
from tests.helpers.pictures import texture

FILTER, GAUSSIAN = LocalContrast("filter"), LocalContrast("gaussian")
BOTH = pytest.mark.parametrize("contrast", [FILTER, GAUSSIAN], ids=["filter", "gaussian"])
ALL = pytest.mark.parametrize("contrast", [None, FILTER, GAUSSIAN], ids=["none", "filter", "gaussian"])


def network(contrast: LocalContrast | None, seed: int = 0) -> LIFTResponse:
    torch.manual_seed(seed)
    response = LIFTResponse(False, contrast=contrast).eval()
    torch.nn.init.normal_(response.conv.bias)  # type: ignore[arg-type]
    return response


def worst(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest score."""
    return ((found.double() - expected.double()).abs().max() / expected.abs().max()).item()


def windows(z: Tensor) -> Tensor:
    """All windows of one image, shape (N, 1, 25, 25)."""
    return z[0, 0].unfold(0, 25, 1).unfold(1, 25, 1).reshape(-1, 1, 25, 25)


@pytest.mark.parametrize("size", [1, 2, 7, 25])
def test_window_sums(size: int) -> None:
    x = torch.arange(30 * 41, dtype=torch.float64).view(1, 1, 30, 41)
    assert torch.allclose(window_sums(x, size), F.avg_pool2d(x, size, 1) * size**2)


def test_window_deviation() -> None:
    x = texture(150, 60)
    with torch.no_grad():
        found = window_deviation(x, 25)
    expected = windows(x).flatten(1).double().std(1, correction=0).view(1, 1, 126, 36)
    assert worst(found, expected) < 1e-5
    assert torch.allclose(window_deviation(x, 25), found, atol=1e-6)  # with gradients: in one piece


def test_deviation_of_low_contrast_on_bright_ground() -> None:
    x = 0.98 + 0.001 * texture(60, 60)
    expected = windows(x.double()).flatten(1).std(1, correction=0).view(1, 1, 36, 36)
    assert worst(window_deviation(x, 25), expected) < 0.01


def test_the_filter_form_is_its_definition() -> None:
    response, x = network(FILTER), texture(40, 45)
    cut = windows(x).flatten(1)
    z = (cut - cut.mean(1, keepdim=True)) / (cut.std(1, correction=0, keepdim=True) + FILTER.eps)
    weight, bias = response.conv.weight.flatten(1), response.conv.bias
    assert bias is not None
    hinges = F.linear(z, weight, bias).view(-1, 4, 4).amax(2)
    expected = (hinges * torch.tensor([1, -1, 1, -1])).sum(1).view(1, 1, 16, 21)
    assert worst(response.valid(x), expected) < 1e-5


def test_the_gaussian_form_is_its_definition() -> None:
    """On cells of 4 pixels the Gaussian errs by a hundredth of the deviation."""
    x, at = texture(150, 170).double(), torch.arange(-40, 41, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (at / 8) ** 2)

    def smooth(x: Tensor) -> Tensor:
        rows = F.conv2d(x, kernel.view(1, 1, -1, 1), padding=(40, 0))
        return F.conv2d(rows, kernel.view(1, 1, 1, -1), padding=(0, 40))

    total = smooth(torch.ones_like(x))
    rest = x - smooth(x) / total
    expected = rest / ((smooth(rest**2) / total).sqrt() + 0.03)
    found = gaussian_contrast(x, GAUSSIAN)
    assert (found - expected).abs().max() < 0.06
    assert (found - expected)[..., 24:-24, 24:-24].square().mean().sqrt() < 0.01
    z = network(GAUSSIAN).double().normalize(x)
    assert torch.allclose(z * 0.25 + 0.45, (0.15 * found + 0.45).clamp(0, 1))


def test_constructor_default_is_the_papers() -> None:
    response, x = LIFTResponse(False), texture(40, 40)
    assert response.contrast is None
    assert set(response.state_dict()) == {"mean", "std", "conv.weight", "conv.bias"}
    assert torch.allclose(response.normalize(x), (x - 0.45) / 0.25)


def test_shipped_weights_bring_their_normalisation() -> None:
    assert LIFTResponse().contrast == LocalContrast("gaussian", eps=LIFTResponse().contrast.eps)
    assert LIFTResponse().contrast.eps == pytest.approx(0.03, abs=1e-6)


@pytest.mark.parametrize(("factor", "offset"), [(0.3, 0.05), (0.05, 0.9), (1.0, -0.2)])
def test_filter_form_does_not_see_contrast_nor_brightness(factor: float, offset: float) -> None:
    response, x = network(LocalContrast("filter", eps=0)).double(), texture(60, 70).double()
    with torch.no_grad():
        assert worst(response.valid(factor * x + offset), response.valid(x)) < 1e-9


def test_gaussian_form_does_not_see_contrast_nor_brightness() -> None:
    response, x = network(LocalContrast("gaussian", eps=0)).double(), texture(60, 70).double()
    with torch.no_grad():
        assert worst(response.valid(0.3 * x + 0.05), response.valid(x)) < 1e-9


@BOTH
def test_low_contrast_gains(contrast: LocalContrast) -> None:
    """Of an image whose left half has a tenth of the contrast, both halves score alike; by the paper, not at all."""
    x = texture(120, 300)
    x[..., :150] = 0.5 + 0.1 * (x[..., :150] - 0.5)

    def share(response: LIFTResponse) -> float:
        score = response.valid(x)
        return (score[..., :110].std() / score[..., -110:].std()).item()

    assert share(network(None)) < 0.15
    assert share(network(contrast)) > 0.3


@ALL
@pytest.mark.parametrize("size", [(56, 57), (155, 97), (40, 200)])
def test_all_paths_agree(contrast: LocalContrast | None, size: tuple[int, int]) -> None:
    response, x = network(contrast), texture(*size, batch=2)
    plain = response.valid(x)
    with torch.no_grad():
        fast, direct = response.valid(x), response.valid(x, direct=True)
    assert not torch.equal(fast, direct)  # it was another path
    assert worst(fast, plain) < 5e-6
    assert worst(direct, plain) < 5e-6
    assert worst(response.double().valid(x.double()), plain) < 5e-6


@ALL
def test_batches_are_single_images(contrast: LocalContrast | None) -> None:
    response, x = network(contrast), torch.cat([texture(80, 70), 0.1 + 0.02 * texture(80, 70, seed=1)])
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            both, single = response.valid(x), torch.cat([response.valid(one[None]) for one in x])
            assert torch.allclose(both, single, atol=1e-5 * both.abs().max().item())


@ALL
def test_windows_score_as_images_do(contrast: LocalContrast | None) -> None:
    response, x = network(contrast), texture(60, 50)
    with torch.no_grad():
        z, expected = response.normalize(x), response.valid(x)
        assert torch.allclose(response.score_normalized(z), response(x))
    found = response.score_windows(windows(z)).view_as(expected)
    assert worst(found, expected) < 5e-6
    assert found.requires_grad


def test_windows_of_the_filter_form_need_no_surroundings() -> None:
    response, x = network(FILTER), texture(60, 50)
    alone = response.valid(windows(x)).view(1, 1, 36, 26)
    assert worst(alone, response.valid(x)) < 5e-6
    assert (FILTER.context, GAUSSIAN.context) == (0, 48)


def test_context_of_the_gaussian_form() -> None:
    x = texture(150, 150)
    other = x.clone()
    other[..., -26:] = 0
    found, changed = gaussian_contrast(x, GAUSSIAN), gaussian_contrast(other, GAUSSIAN)
    assert torch.allclose(found[..., : -26 - GAUSSIAN.context - 8], changed[..., : -26 - GAUSSIAN.context - 8])


def test_other_windows_are_refused() -> None:
    with pytest.raises(ValueError, match=r"windows \(N, 1, 25, 25\), got \(3, 25, 25\)"):
        network(None).score_windows(torch.rand(3, 25, 25))


@BOTH
def test_gradients_are_exact(contrast: LocalContrast) -> None:
    response = network(contrast).double()
    x = torch.rand(1, 1, 26, 27, dtype=torch.float64, requires_grad=True)
    assert gradcheck(response.valid, (x,), fast_mode=True)
    assert gradcheck(lambda x: response(x, torch.tensor([1.7])), (x,), fast_mode=True)
    cut = torch.rand(3, 1, 25, 25, dtype=torch.float64, requires_grad=True)
    assert gradcheck(response.score_windows, (cut,), fast_mode=True)


@BOTH
@pytest.mark.parametrize("eps", [0.0, 0.03])
def test_gradients_of_constant_images_are_finite(contrast: LocalContrast, eps: float) -> None:
    response = network(LocalContrast(contrast.window, eps=eps))
    x = torch.full((1, 1, 40, 40), 0.3, requires_grad=True)
    response.valid(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@ALL
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_follows_the_module(contrast: LocalContrast | None, dtype: torch.dtype) -> None:
    x = texture(40, 42)
    expected, found = network(contrast).valid(x), network(contrast).to(dtype).valid(x.to(dtype))
    assert found.dtype == dtype
    assert worst(found, expected) < (1e-5 if dtype == torch.float64 else 0.1)


@BOTH
def test_sigmas(contrast: LocalContrast) -> None:
    """Kornia's levels: of scores that do not depend on contrast, none depends on it."""
    response = network(LocalContrast(contrast.window, eps=0)).double()
    x = texture(90, 100).double()
    sigma = torch.tensor([1.6], dtype=torch.float64)
    with torch.no_grad():
        assert worst(response(0.2 * x + 0.3, sigma), response(x, sigma)) < 1e-9


@ALL
def test_rounding_errors_stay_below_their_bound(contrast: LocalContrast | None) -> None:
    response, precise = network(contrast), network(contrast).double()
    for image in (texture(90, 100), 0.95 + 0.002 * texture(90, 100), torch.full((1, 1, 90, 100), 0.9)):
        expected = precise.valid(image.double())
        with torch.no_grad():
            bound = response.rounding_error(image)
            for direct in (False, True):
                error = (response.valid(image, direct=direct) - expected).abs().max()
                assert error < bound
        assert bound.shape == (1,)
        if image.std() > 0.1:
            assert bound < 1e-3 * expected.abs().max()


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_bound_follows_the_precision(contrast: LocalContrast | None, dtype: torch.dtype) -> None:
    x = texture(40, 40)
    single, other = network(contrast).rounding_error(x), network(contrast).to(dtype).rounding_error(x.to(dtype))
    assert (other > 10 * single).item() == (dtype == torch.bfloat16)
    if dtype == torch.bfloat16:
        error = (network(contrast).to(dtype).valid(x.to(dtype)).float() - network(contrast).valid(x)).abs().max()
        assert error < 4 * other


@BOTH
def test_rounding_errors_are_not_raised_to_contrast(contrast: LocalContrast) -> None:
    response = network(contrast)
    for gray in (0.0, 0.1, 0.2, 0.5, 0.9, 1.0):
        with torch.no_grad():
            x = F.interpolate(torch.full((1, 1, 97, 90), gray), (71, 80), mode="bilinear", antialias=True)
            for direct in (False, True):
                score = response.valid(x, direct=direct)
                assert score.max() - score.min() < 2e-3
            assert score.std() < 1e-3 * response.valid(texture(71, 80)).std()


@ALL
def test_state_dict_carries_the_contrast(contrast: LocalContrast | None) -> None:
    saved = network(contrast).state_dict()
    for other in (None, FILTER, LocalContrast("gaussian", eps=0.5, sigma=5)):
        loaded = LIFTResponse(False, contrast=other)
        loaded.load_state_dict(saved)
        if contrast is None:
            assert loaded.contrast is None
        else:
            assert loaded.contrast is not None
            assert loaded.contrast.window == contrast.window
            assert loaded.contrast.eps == pytest.approx(contrast.eps)
            assert loaded.contrast.sigma == contrast.sigma
        assert torch.allclose(loaded.valid(texture(40, 40)), network(contrast).valid(texture(40, 40)), atol=1e-5)


@ALL
def test_weight_files_carry_the_contrast(contrast: LocalContrast | None, tmp_path: Path) -> None:
    save = pytest.importorskip("safetensors.torch").save_file
    saved = network(contrast)
    tensors = {f"response.{name}": tensor.half() for name, tensor in saved.state_dict().items()}
    save(tensors, tmp_path / "w.safetensors")
    loaded, x = LIFTResponse(tmp_path / "w.safetensors"), texture(60, 60)
    assert (loaded.contrast is None) == (contrast is None)
    assert worst(loaded.valid(x), saved.valid(x)) < 5e-3


def test_values_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for bad, words in (
        ({"window": "box"}, "'filter' or 'gaussian', got 'box'"),
        ({"eps": -0.1}, "eps >= 0, got -0.1"),
        ({"sigma": 1.0}, "sigma >= 2 pixels, got 1.0"),
    ):
        with pytest.raises(ValueError, match=words):
            LocalContrast(**bad)  # type: ignore[arg-type]
    save = pytest.importorskip("safetensors.torch").save_file
    tensors = {f"response.{name}": tensor for name, tensor in network(FILTER).state_dict().items()}
    tensors["response.window_eps"] = torch.tensor([0.1, 0.2])
    save(tensors, tmp_path / "w.safetensors")
    with pytest.raises(WeightFileError, match="window_eps"):
        LIFTResponse(tmp_path / "w.safetensors")
