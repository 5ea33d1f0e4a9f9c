"""Local contrast in the detector: borders, padding, and images without anything to find."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kornia_lift import LIFTDetector, LIFTResponse, ScaleSpaceConfig
from kornia_lift.networks.contrast import LocalContrast, gaussian_contrast
from tests.helpers.pictures import texture

FILTER, GAUSSIAN = LocalContrast("filter"), LocalContrast("gaussian")
BOTH = pytest.mark.parametrize("contrast", [FILTER, GAUSSIAN], ids=["filter", "gaussian"])


def network(contrast: LocalContrast | None, seed: int = 0) -> LIFTResponse:
    torch.manual_seed(seed)
    response = LIFTResponse(False, contrast=contrast).eval()
    torch.nn.init.normal_(response.conv.bias)  # type: ignore[arg-type]
    return response


def test_borders_draw_no_keypoints() -> None:
    """What lies beyond the image has no weight: near its border the contrast is that of the image inside."""
    whole = texture(160, 160)
    inner = gaussian_contrast(whole[..., 40:-40, 40:-40], GAUSSIAN)
    expected = gaussian_contrast(whole, GAUSSIAN)[..., 40:-40, 40:-40]
    edge = torch.ones_like(inner, dtype=torch.bool)
    edge[..., 8:-8, 8:-8] = False
    assert inner[edge].square().mean() == pytest.approx(expected[edge].square().mean().item(), rel=0.3)


def test_padding_has_no_weight() -> None:
    x = texture(90, 110)
    padded = F.pad(x, (40, 20, 0, 30))
    content = torch.zeros_like(padded, dtype=torch.bool)
    content[..., :90, 40:150] = True
    found = gaussian_contrast(padded, GAUSSIAN, content)
    assert torch.equal(found[~content], torch.zeros_like(found[~content]))
    assert torch.allclose(found[..., :90, 40:150], gaussian_contrast(x, GAUSSIAN), atol=1e-5)
    ignored = gaussian_contrast(padded, GAUSSIAN)[..., :90, 40:150]
    assert not torch.allclose(ignored, gaussian_contrast(x, GAUSSIAN), atol=0.1)


@BOTH
def test_detector_finds_the_same_beside_padding(contrast: LocalContrast) -> None:
    """A black frame around an image changes none of its keypoints; the frame is a multiple of the cells."""
    x = texture(160, 200, seed=3).clamp(0.02, 1)
    # one level of the image's own size: resizing the padded image would move the pixels of the level
    config = ScaleSpaceConfig(min_sigma=47 / 24, max_sigma=47 / 24, enlarge_to=0)
    detector = LIFTDetector(200, config, resp_module=network(contrast)).eval()
    with torch.no_grad():
        lafs, _ = detector(x)
        padded, _ = detector(F.pad(x, (40, 40, 40, 40)))
    xy, moved = lafs[0, :, :, 2], padded[0, :, :, 2] - 40
    xy, moved = xy[lafs[0].abs().sum((1, 2)) > 0], moved[padded[0].abs().sum((1, 2)) > 0]
    size = torch.tensor([199.0, 159.0])
    assert ((moved > 11) & (moved < size - 11)).all()
    moved = moved[((moved > 18) & (moved < size - 18)).all(1)]  # further out the image alone is not searched
    assert len(moved) > 10
    assert torch.cdist(moved.double(), xy.double()).amin(1).max() < 0.02


@BOTH
@pytest.mark.parametrize("content", ["black", "gray", "ramp", "edge", "stripes"])
def test_images_without_anything_to_find_have_no_keypoints(contrast: LocalContrast, content: str) -> None:
    """Nothing changes along their columns, so that all differences there are rounding errors."""
    at = torch.linspace(0, 1, 110)
    row = {"black": 0 * at, "gray": 0 * at + 0.1, "ramp": at, "edge": (at > 0.5).float(), "stripes": (9 * at).sin()}
    x = (row[content].clamp(-1, 1) / 2 + 0.5 * (content == "stripes")).expand(1, 1, 90, 110).contiguous()
    response = LIFTResponse()
    response.set_contrast(contrast)
    detector = LIFTDetector(50, resp_module=response).eval()
    for image in (x, x.mT.contiguous()):
        with torch.no_grad():
            assert detector(image)[0].abs().sum() == 0
        assert detector(image)[0].abs().sum() == 0  # with gradients: without the fast path
