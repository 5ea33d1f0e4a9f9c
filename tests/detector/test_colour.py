"""A response may see colours: detector, feature and matching hand it RGB images, and gray ones to all other parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kornia_lift import LIFTDetector, LIFTFeature, match_images
from kornia_lift._gray import as_gray, sees_colour
from kornia_lift._kornia import ShapeError, laf_is_filled
from kornia_lift.convert import TILDEResponse, load_tilde
from kornia_lift.convert.tilde import GAIN
from kornia_lift.detector.scale_space import LEVEL_SIGMA, SCORE_BORDER, ScaleSpaceConfig
from kornia_lift.matching import extract_features
from tests.helpers.pictures import texture

BORDER = slice(SCORE_BORDER, -SCORE_BORDER)


class Red(nn.Module):
    """Scores the red channel; a gray image is its own."""

    sees_colour = True

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1]


class Spy(nn.Module):
    """Counts the channels that it is given, and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: list[int] = []

    def forward(self, lafs: Tensor, img: Tensor) -> Tensor:
        self.channels.append(img.shape[1])
        return lafs


def coloured(height: int = 96, width: int = 120) -> Tensor:
    """Three channels without anything in common."""
    return torch.cat([texture(height, width, seed=seed) for seed in (1, 2, 3)], 1)


@pytest.mark.parametrize("name", ["Mexico24", "Mexico"])
def test_tilde_scores_the_colours_in_the_detector(shared: Path, name: str) -> None:
    oracle = np.load(shared / "oracles/tilde_40x40.npz")
    image = torch.from_numpy(oracle["bgr"][..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    sigma = 2 * LEVEL_SIGMA  # one level, of the size of the image: small ones are enlarged by 2
    own_size = ScaleSpaceConfig(min_sigma=sigma, max_sigma=sigma)
    detector = LIFTDetector(9, own_size, resp_module=load_tilde(shared / f"weights_upstream/{name}.txt"))
    with torch.inference_mode():
        (score,) = detector.score_levels(image)
    assert score.shape == (1, 40, 40)
    expected = oracle[f"{name}_score"]
    found = score[0, BORDER, BORDER].numpy() / GAIN
    assert np.abs(found - expected[BORDER, BORDER]).max() < 1e-4 * np.abs(expected).max()


def test_the_response_decides() -> None:
    image = coloured()
    with torch.inference_mode():
        lafs, responses = LIFTDetector(20, resp_module=Red())(image)
        red, red_responses = LIFTDetector(20, resp_module=Red())(image[:, :1])
    assert laf_is_filled(lafs).any()
    torch.testing.assert_close(lafs, red, atol=1e-3, rtol=0)  # resized three channels at a time
    torch.testing.assert_close(responses, red_responses)


def test_other_parts_see_gray() -> None:
    affine, orientation, localizer = Spy(), Spy(), Spy()
    detector = LIFTDetector(20, resp_module=Red(), aff_module=affine, ori_module=orientation, localizer=localizer)
    with torch.inference_mode():
        detector(coloured())
    assert affine.channels == orientation.channels == localizer.channels == [1]


def test_feature_and_matching_hand_colours_on() -> None:
    image = coloured()
    feature = LIFTFeature(20, detector=LIFTDetector(20, resp_module=Red())).eval()
    assert feature.sees_colour
    with torch.inference_mode():
        lafs, _, descriptors = feature(image)
        red, _ = LIFTDetector(20, resp_module=Red())(image[:, :1])
    centres = red[0, laf_is_filled(red)[0], :, 2]
    torch.testing.assert_close(lafs[0, : len(centres), :, 2], centres)
    gray = as_gray(image)  # that is what is described
    torch.testing.assert_close(descriptors, feature.descriptor(gray, lafs), atol=1e-3, rtol=0)
    for found in (extract_features(feature, image), match_images(image, image, feature).first):
        np.testing.assert_allclose(found.keypoints, centres.numpy(), atol=1e-4)
    smaller = match_images(image, image, feature, max_size=100).first  # reduced in colour
    assert len(smaller)


def test_gray_images_do_for_all() -> None:
    with torch.inference_mode():
        lafs, _ = LIFTDetector(20, resp_module=Red())(texture(96, 120))
    assert laf_is_filled(lafs).any()


@pytest.mark.parametrize("response", [None, TILDEResponse(2, 2, channels=1)])
def test_others_are_refused_colours(response: nn.Module | None) -> None:
    detector = LIFTDetector(9, ScaleSpaceConfig(), resp_module=response, pretrained=False)
    assert not sees_colour(detector)
    with pytest.raises(ShapeError, match="convert with `kornia.color.rgb_to_grayscale`"):
        detector(coloured())


def test_two_channels_are_neither() -> None:
    with pytest.raises(ShapeError, match=r"expects images \(B, 1\|3, H, W\)"):
        LIFTDetector(9, resp_module=Red())(coloured()[:, :2])
