"""Images without texture have no keypoints, the faintest texture has."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kornia_lift import LIFTDetector, LIFTFeature, LIFTResponse, ScaleSpaceConfig
from kornia_lift._kornia import laf_is_filled
from kornia_lift.geometry import lift_from_lafs
from kornia_lift.networks._fast.plan import fast_paths
from kornia_lift.networks.contrast import LocalContrast
from tests.helpers.pictures import texture


def ramp(height: int, width: int, low: float, right: float, down: float) -> Tensor:
    """A linear ramp of gray values from ``low`` at the top left, shape (1, 1, H, W)."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return (low + right * x + down * y)[None, None]


FLAT: dict[str, Tensor] = {
    **{f"gray {gray}": torch.full((1, 1, 90, 100), gray) for gray in (0.0, 0.1, 0.2, 0.37, 0.45, 0.5, 0.73, 1.0)},
    "ramp to the right": ramp(90, 100, 0, 1, 0),
    "ramp down": ramp(90, 100, 0.2, 0, 0.5),
    # oblique ramps are no such images: resizing leaves ripples of 3e-4 on them, which a response may see
}


def with_contrast(contrast: LocalContrast | None) -> LIFTResponse:
    """The shipped filters with another normalisation."""
    response = LIFTResponse(True)
    response.set_contrast(contrast)
    return response


def detect_flat(image: Tensor, response: LIFTResponse, **options: Any) -> int:
    detector = LIFTDetector(300, ScaleSpaceConfig(**options), resp_module=response).eval().to(image.dtype)
    with torch.no_grad():
        lafs, responses = detector(image)
    assert (responses[~laf_is_filled(lafs)] == 0).all()
    return int(laf_is_filled(lafs).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("contrast", [None, LocalContrast("filter"), LocalContrast("gaussian")])
def test_images_without_texture_have_no_keypoints(contrast: LocalContrast | None, dtype: torch.dtype) -> None:
    """In float32 by the frequency domain, in float64 directly: rounding errors are never keypoints."""
    response = with_contrast(contrast)
    found = {name: detect_flat(image.to(dtype), response) for name, image in FLAT.items()}
    assert not any(found.values()), found


@pytest.mark.parametrize("contrast", [None, LocalContrast("filter"), LocalContrast("gaussian")])
def test_images_without_texture_have_no_keypoints_without_the_fast_path(contrast: LocalContrast | None) -> None:
    response = with_contrast(contrast)
    with fast_paths(False):
        found = {name: detect_flat(image, response) for name, image in FLAT.items()}
    assert not any(found.values()), found


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_without_texture_have_no_keypoints_in_half_precision(dtype: torch.dtype) -> None:
    response = LIFTResponse(True)
    names = ("gray 0.0", "gray 0.1", "gray 0.37", "gray 1.0")
    small = {name: FLAT[name][:, :, :50, :60].to(dtype) for name in names}
    found = {name: detect_flat(image, response) for name, image in small.items()}
    assert not any(found.values()), found


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_images_without_texture_have_no_keypoints_that_are_localized(dtype: torch.dtype, fast: bool) -> None:
    feature = LIFTFeature(50, pretrained="lift-plus", precision="float32")
    # products in half precision leave ripples on the steepest ramps
    names = [name for name in FLAT if dtype in (torch.float32, torch.float64) or name.startswith("gray")]
    with fast_paths(fast), torch.no_grad():
        found = {name: laf_is_filled(feature(FLAT[name].to(dtype))[0]).sum().item() for name in names}
    assert not any(found.values()), found


def test_rounding_errors_beside_texture_are_no_keypoints() -> None:
    """The frequency domain spreads the rounding errors of a textured half over the constant one."""
    image = torch.full((1, 1, 140, 300), 0.2)
    image[..., :150] = (texture(140, 150) > 0.5).float()  # of the largest contrast
    with torch.no_grad():
        lafs, _ = LIFTDetector(2000, resp_module=with_contrast(None)).eval()(image)
    xy, sigma, _ = lift_from_lafs(lafs)
    xy, sigma = xy[laf_is_filled(lafs)], sigma[laf_is_filled(lafs)]
    assert len(xy) > 20
    assert (xy[:, 0] < 150 + 8 * sigma).all()  # where the filter sees nothing but gray there is nothing


def test_the_faintest_texture_of_eight_bits_has_keypoints() -> None:
    """The floor is so far below one gray level that it costs nothing."""
    image = 0.4 + (texture(140, 150) - 0.5).round() / 255
    image += torch.rand(image.shape, generator=torch.Generator().manual_seed(0)).round() / 255
    assert detect_flat(image, LIFTResponse(True)) > 20
