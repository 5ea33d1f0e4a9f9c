"""Which levels an image is searched on, and which options make no scale space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kornia_lift.detector.model import scale_space_of
from kornia_lift.detector.scale_space import LEVEL_SIGMA, ScaleSpaceConfig, plan_levels
from kornia_lift.geometry import level_resize


def test_the_release_has_21_levels_from_sigma_1_to_16() -> None:
    config = ScaleSpaceConfig.lift()
    levels = plan_levels(1200, 1600, config, 1000)
    assert [level.sigma for level in levels] == pytest.approx([2 ** (n / 5) for n in range(21)])
    assert (config.nms_radius, config.scale_nms, config.edge_threshold) == (3, 2, 10.0)
    assert (config.suppression_sigma, config.suppression_pixels, config.enlarge_to) == (0, 0, 0)
    assert config.max_sigma == 16
    assert config.faithful and config.skip_padding is False


@pytest.mark.parametrize(
    ("size", "finest"), [((1600, 2400), 1.0), ((2400, 1600), 1.0), ((1601, 2400), 2.0), ((2400, 1601), 2.0)]
)
def test_the_release_enlarges_images_up_to_1600_pixels(size: tuple[int, int], finest: float) -> None:
    levels = plan_levels(*size, ScaleSpaceConfig.lift(), 1000)
    assert levels[0].sigma == pytest.approx(finest)
    assert levels[-1].sigma == pytest.approx(16)
    assert len(levels) == 1 + 5 * math.log2(16 / finest)


def test_our_scale_space_has_fine_levels_of_large_images_too() -> None:
    levels = plan_levels(2400, 3200, ScaleSpaceConfig(min_sigma=1.0, max_sigma=4.0, levels_per_octave=1), 1000)
    assert [level.sigma for level in levels] == pytest.approx([1, 2, 4])


def test_levels_are_the_image_resized_to_one_sigma() -> None:
    for level in plan_levels(600, 801, ScaleSpaceConfig(enlarge_to=0), 1000):
        assert level.resize == level_resize(level.sigma)
        assert level.size == (round(600 * level.resize), round(801 * level.resize))
        assert level.size[0] * level.sigma / 600 == pytest.approx(LEVEL_SIGMA, rel=0.02)


def test_levels_end_where_an_image_is_too_small_for_the_filter() -> None:
    all_of_them = len(plan_levels(2000, 2000, ScaleSpaceConfig(), 1000))
    few = plan_levels(60, 2000, ScaleSpaceConfig(), 1000)
    assert 0 < len(few) < all_of_them
    assert min(min(level.size) for level in few) >= 25
    assert plan_levels(10, 2000, ScaleSpaceConfig(), 1000) == []


def test_the_scales_of_keypoints_that_are_localized() -> None:
    for model, count in (("lift", 10), ("lift-plus", 7)):
        found = scale_space_of(model).sigmas(2000, 2000, 1000)
        assert found == pytest.approx([2 * 8 ** (n / (count - 1)) for n in range(count)])


@pytest.mark.parametrize(
    "options",
    [
        {"min_sigma": 0.0},
        {"min_sigma": 4.0, "max_sigma": 2.0},
        {"max_sigma": math.inf},
        {"levels_per_octave": 0},
        {"nms_radius": 0},
        {"scale_nms": -1},
        {"suppression_sigma": -0.1},
        {"suppression_pixels": math.inf},
        {"enlarge_to": -1.0},
        {"border": math.nan},
        {"edge_threshold": 0.9},
        {"edge_threshold": math.inf},  # no ratio of curvatures would pass
        {"edge_threshold": math.nan},
    ],
)
def test_impossible_options_are_named_with_their_value(options: dict[str, Any]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"ScaleSpaceConfig expects .*{name}.*got .*{options[name]}"):
        ScaleSpaceConfig(**options)


@pytest.mark.parametrize("name", ["levels_per_octave", "nms_radius", "scale_nms"])
def test_counts_of_levels_and_pixels_are_whole_numbers(name: str) -> None:
    with pytest.raises(TypeError, match=rf"expects a whole number for {name}, got 2.5"):
        ScaleSpaceConfig(**{name: 2.5})  # type: ignore[arg-type]  # what a type checker would refuse
    ScaleSpaceConfig(**{name: np.int64(2)})  # type: ignore[arg-type]


def test_the_least_options_are_possible() -> None:
    config = ScaleSpaceConfig(
        min_sigma=2.0, max_sigma=2.0, levels_per_octave=1, nms_radius=1, scale_nms=0, suppression_sigma=0,
        suppression_pixels=0, enlarge_to=0, border=0, edge_threshold=1,
    )  # fmt: skip
    assert config.sigmas(100, 100, 1000) == (2.0,)
