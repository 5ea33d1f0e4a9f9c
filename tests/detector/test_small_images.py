"""Small images are searched on levels that are finer in proportion, as if they had been enlarged."""

import pytest
import torch
from kornia.feature import get_laf_center

from kornia_lift import LIFTDetector
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.scale_space import ScaleSpaceConfig, plan_levels
from kornia_lift.feature import shrink
from tests.helpers.pictures import texture


def test_a_smaller_image_has_levels_that_are_finer_by_as_much() -> None:
    config = ScaleSpaceConfig(enlarge_to=800)
    large, small = config.sigmas(800, 800), config.sigmas(600, 600)
    assert large[0] == config.min_sigma
    assert [sigma / 0.75 for sigma in small] == pytest.approx(large)


@pytest.mark.parametrize("size", [(200, 200), (100, 400), (100, 100), (30, 30)])
def test_images_are_enlarged_by_two_at_most(size: tuple[int, int]) -> None:
    config = ScaleSpaceConfig(enlarge_to=800)
    assert config.sigmas(*size)[0] == pytest.approx(config.min_sigma / 2)
    assert config.sigmas(*size)[-1] == pytest.approx(config.max_sigma / 2)


@pytest.mark.parametrize(("size", "enlarge_to"), [((1600, 1200), 800), ((800, 800), 800), ((64, 64), 0)])
def test_other_images_are_not_enlarged(size: tuple[int, int], enlarge_to: float) -> None:
    assert ScaleSpaceConfig(enlarge_to=enlarge_to).sigmas(*size)[0] == 2.0
    assert plan_levels(*size, ScaleSpaceConfig(enlarge_to=enlarge_to))[0].sigma == 2.0


def test_the_release_has_the_same_levels_for_images_of_any_size() -> None:
    assert ScaleSpaceConfig.lift().sigmas(64, 64) == ScaleSpaceConfig.lift().sigmas(900, 900)


def test_a_copy_of_half_the_size_shows_the_keypoints_of_the_image() -> None:
    image = texture(640, 640)
    found = {}
    for enlarge_to in (0.0, 640.0):
        detector = LIFTDetector(200, ScaleSpaceConfig(enlarge_to=enlarge_to))
        with torch.inference_mode():
            lafs, _ = detector(image)
            again, _ = detector(shrink(image, 320))
        first = get_laf_center(lafs)[0, laf_is_filled(lafs)[0]]
        second = get_laf_center(again)[0, laf_is_filled(again)[0]] * 2 + 0.5
        found[enlarge_to] = (torch.cdist(first, second).amin(1) < 2).float().mean().item()
    assert found[640.0] > 1.5 * found[0.0]
