"""Small images are searched on finer levels, as if they had been enlarged, and so are images for many keypoints."""

import pytest
import torch
from kornia.feature import get_laf_center, get_laf_scale

from kornia_lift import LIFTDetector
from kornia_lift._kornia import laf_is_filled
from kornia_lift.detector.scale_space import ScaleSpaceConfig, plan_levels
from kornia_lift.feature import shrink
from tests.helpers.pictures import texture


def test_a_smaller_image_has_levels_that_are_finer_by_as_much() -> None:
    config = ScaleSpaceConfig(enlarge_to=800)
    large, small = config.sigmas(800, 800, 1000), config.sigmas(600, 600, 1000)
    assert large[0] == config.min_sigma
    assert [sigma / 0.75 for sigma in small] == pytest.approx(large)


@pytest.mark.parametrize("size", [(200, 200), (100, 400), (100, 100), (30, 30)])
def test_images_are_enlarged_by_two_at_most(size: tuple[int, int]) -> None:
    config = ScaleSpaceConfig(enlarge_to=800)
    assert config.sigmas(*size, 1000)[0] == pytest.approx(config.min_sigma / 2)
    assert config.sigmas(*size, 1000)[-1] == pytest.approx(config.max_sigma / 2)


@pytest.mark.parametrize(("size", "enlarge_to"), [((1600, 1200), 800), ((800, 800), 800), ((64, 64), 0)])
def test_other_images_are_not_enlarged(size: tuple[int, int], enlarge_to: float) -> None:
    assert ScaleSpaceConfig(enlarge_to=enlarge_to).sigmas(*size, 1000)[0] == 2.0
    assert plan_levels(*size, ScaleSpaceConfig(enlarge_to=enlarge_to), 1000)[0].sigma == 2.0


def test_the_release_has_the_same_levels_for_images_of_any_size() -> None:
    assert ScaleSpaceConfig.lift().sigmas(64, 64, 1000) == ScaleSpaceConfig.lift().sigmas(900, 900, 1000)


@pytest.mark.parametrize(
    ("num_features", "finest"), [(1, 2.0), (1000, 2.0), (2000, 2**0.5), (4000, 1.0), (100_000, 1.0)]
)
def test_many_keypoints_are_searched_on_finer_levels(num_features: int, finest: float) -> None:
    sigmas = ScaleSpaceConfig().sigmas(800, 800, num_features)
    assert sigmas[0] == pytest.approx(finest)
    assert ScaleSpaceConfig(enlarge_to=0).sigmas(100, 100, num_features)[0] == 2.0
    # where the image has room for them, nothing changes
    assert ScaleSpaceConfig().sigmas(1600, 1600, min(num_features, 4000))[0] == 2.0


def test_a_detector_finds_more_and_finer_keypoints_where_more_are_asked_for() -> None:
    image = texture(400, 500)
    found = []
    for enlarge_for in (10**6, 1000):
        with torch.inference_mode():
            lafs, _ = LIFTDetector(6000, ScaleSpaceConfig(enlarge_to=400, enlarge_for=enlarge_for))(image)
        found.append(get_laf_scale(lafs[:, laf_is_filled(lafs)[0]]).flatten())
    few, many = found
    assert many.min() < 0.6 * few.min() and len(many) > 1.5 * len(few)


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
