"""Keypoints over levels: landing, suppression, repeatability, and the crops and matches they come from."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.response.keypoints import choose_keypoints, distances_of_pairs, found_again
from kornia_lift.training.compact.response.levels import (
    LevelGrid,
    budget_threshold,
    expected_repeatability,
    keypoint_probabilities,
    land,
    scale_space_maxima,
    seen_by_other,
)
from kornia_lift.training.compact.response.matches import KeypointMatcher, expected_by_homography, mismatch_maps
from kornia_lift.training.compact.response.stage import SCALE_CROPS
from kornia_lift.training.data.photometric import Photometric
from kornia_lift.training.warped.crops import WarpedCrops
from kornia_lift.training.warped.homographies import CropConfig, random_homographies, warp_points, zooms
from kornia_lift.training.warped.shapes import draw_shapes

GRID = LevelGrid(96, count=3)
STILL = Photometric(gain=1.0, gamma=1.0, offset=0.0, noise=0.0, blur=0.0, shadow=0.0, jpeg=0.0)


def peaks(*locations: tuple[int, float, float], grid: LevelGrid = GRID) -> list[Tensor]:
    """Maps with a peak at (level, x, y), the position in pixels of the crop."""
    maps = []
    for n, side in enumerate(grid.sides):
        at = grid.positions(n, torch.zeros(()))
        score = torch.zeros(len(at))
        for level, x, y in locations:
            if level == n:
                width = grid.size / side * 1.5
                score = score + torch.exp(-((at - at.new_tensor([x, y])) / width).square().sum(1) / 2)
        maps.append(score.view(1, 1, side, side))
    return maps


def everywhere(grid: LevelGrid = GRID) -> list[Tensor]:
    return grid.scorable(torch.ones(1, 1, grid.size, grid.size))


def scaling(factor: float) -> Tensor:
    """Enlarge about the centre of the crop."""
    middle = (GRID.size - 1) / 2
    return torch.tensor([[factor, 0, middle * (1 - factor)], [0, factor, middle * (1 - factor)], [0, 0, 1.0]])[None]


def test_an_enlarged_crop_shows_things_two_levels_up() -> None:
    landing = land(GRID, scaling(2.0))
    assert torch.allclose(landing.level[0], torch.full((1, 96, 96), 2.0), atol=1e-4)
    assert torch.allclose(landing.position[0][0, 48, 48], torch.tensor([48.5, 48.5]), atol=1e-4)


def test_the_zoom_of_a_homography_is_the_root_of_its_jacobian() -> None:
    matrix = random_homographies(torch.Generator().manual_seed(0), 4, SCALE_CROPS, (96, 96))
    at = torch.tensor([[30.0, 40.0]])
    moved, zoom = warp_points(matrix, at), zooms(matrix, at)
    step = 1e-2
    right, down = (warp_points(matrix, at + at.new_tensor(by)) for by in ([step, 0.0], [0.0, step]))
    jacobian = torch.stack([(right - moved)[:, 0], (down - moved)[:, 0]], 2) / step
    assert torch.allclose(zoom[:, 0], jacobian.det().abs().sqrt(), rtol=1e-2)


def test_the_strongest_level_of_a_location_suppresses_the_others() -> None:
    scores = [10 * a for a in peaks((0, 40, 40), (1, 42, 40), (0, 70, 60))]
    scores[1] = scores[1] * 1.2
    maxima = scale_space_maxima(scores, 3)
    best = budget_threshold(scores, maxima, everywhere(), torch.tensor([2]))
    p = keypoint_probabilities(scores, best, everywhere(), 3)
    first, second = p[0][0, 0], p[1][0, 0]
    assert second.max() > 3 * first[36:45, 36:45].max()  # the keypoint of level 1 wins at (42, 40)
    assert first[60, 70] > 0.1  # the other location is not concerned
    chosen = choose_keypoints(GRID, scores, maxima, everywhere(), best, 5)
    assert sorted(chosen.level[chosen.valid].tolist()) == [0, 1]


def test_the_slope_of_a_wide_peak_suppresses_nothing() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(48.0), indexing="ij")
    scores = peaks((0, 60, 60))
    scores[2] = scores[2] + 5 * torch.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 2 / 8**2)[None, None]
    assert scores[2][0, 0, 30, 30] > scores[0][0, 0, 60, 60]  # at the location of the fine peak, 10 pixels from its own
    maxima = scale_space_maxima(scores, 3)
    assert maxima[0][0, 0, 60, 60]
    assert maxima[2][0, 0, 20, 20]


@pytest.mark.parametrize(
    ("factor", "lowest", "highest"), [(1.0, 0, 2), (0.9, 0, 2), (1.1, 0, 2), (0.6, 1, 2), (1.7, 0, 1)]
)
def test_what_the_finest_level_shows_is_seen_by_a_crop_that_shows_it_a_little_smaller(
    factor: float, lowest: int, highest: int
) -> None:
    """Nearly all keypoints are on the finest level; those of the smaller one of two crops must not be left out."""
    seen = seen_by_other(GRID, everywhere(), land(GRID, scaling(factor)))
    assert [n for n in range(GRID.count) if seen[n].any()] == list(range(lowest, highest + 1))


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
def test_keypoints_of_the_finest_level_are_found_again_in_crops_of_nearly_the_same_size(factor: float) -> None:
    matrix = scaling(factor)
    at = [torch.tensor([[x, y]]) for x, y in ((40.0, 40.0), (60.0, 44.0), (44.0, 62.0))]
    there = [warp_points(matrix, xy)[0, 0].tolist() for xy in at]
    first, second = peaks(*((0, *xy[0].tolist()) for xy in at)), peaks(*((0, *xy) for xy in there))
    scores = [torch.cat(pair) for pair in zip(first, second, strict=True)]
    landings = [land(GRID, matrix), land(GRID, torch.linalg.inv(matrix))]
    seen = [seen_by_other(GRID, everywhere(), landing) for landing in landings]
    common = [torch.cat([everywhere()[n] * side[n] for side in seen]) for n in range(GRID.count)]
    chosen = choose_keypoints(GRID, scores, scale_space_maxima(scores, 3), common, torch.tensor([0.5, 0.5]), 4)
    assert chosen.valid.sum(1).tolist() == [3, 3]
    figures = found_again(GRID, chosen, matrix)
    assert (figures["repeated"], figures["repeated_3px"]) == (1.0, 1.0)
    assert float(distances_of_pairs(GRID, scores, common, chosen, matrix)) < 0.2
    limit = budget_threshold(scores, scale_space_maxima(scores, 3), common, torch.tensor([3, 3]))
    p = keypoint_probabilities([30 * s for s in scores], 30 * limit / 2, common, 3)
    one, two = ([each.chunk(2)[side] for each in p] for side in (0, 1))
    assert float(expected_repeatability(GRID, one, two, landings[0], seen[0], 0.7)) > 0.6


def test_crops_of_an_image_share_one_threshold() -> None:
    """The best four of both crops: three of the rich one and one of the other; alone each has its own two."""
    rich, poor = peaks((0, 20, 20), (0, 50, 20), (0, 20, 50), (0, 70, 70)), peaks((0, 30, 30), (0, 60, 60))
    strength = torch.tensor([3.0, 2.0]).view(2, 1, 1, 1)
    scores = [torch.cat(pair) * strength for pair in zip(rich, poor, strict=True)]
    weaker = torch.ones_like(scores[0])
    weaker[0, 0, 60:, 60:], weaker[1, 0, 50:, 50:] = 0.1, 0.5
    scores[0] = scores[0] * weaker
    maxima = [score == F.max_pool2d(score, 7, 1, 3) for score in scores]
    common = [mask.expand(2, -1, -1, -1) for mask in everywhere()]
    budget = torch.tensor([2, 2])
    together = budget_threshold(scores, maxima, common, budget, per_image=2)
    alone = budget_threshold(scores, maxima, common, budget)
    assert together.tolist() == pytest.approx([float(scores[0][1, 0, 30, 30])] * 2)
    assert alone.tolist() == pytest.approx([float(scores[0][0, 0, 20, 20]), float(scores[0][1, 0, 60, 60])])


@pytest.mark.parametrize(("level", "found"), [(0, 0.0), (1, 0.4), (2, 0.9)])
def test_a_keypoint_counts_again_at_its_size_only(level: int, found: float) -> None:
    first = [torch.zeros(1, 1, side, side) for side in GRID.sides]
    first[0][0, 0, 48, 48] = 1.0
    second = [torch.zeros(1, 1, side, side) for side in GRID.sides]
    expected = (48.5 + 0.5) * GRID.sides[level] / GRID.size - 0.5  # where an enlargement by 2 shows (48, 48)
    at = round(expected)
    second[level][0, 0, at, at] = 1.0
    value = expected_repeatability(GRID, first, second, land(GRID, scaling(2.0)), everywhere(), 0.7)
    near = math.exp(-((at - expected) ** 2) / 0.7**2)
    assert float(value) == pytest.approx(found * near / 0.9 if found == 0.9 else found, abs=0.2)


def test_distances_are_those_of_subpixel_peaks_and_have_a_gradient() -> None:
    first, second = peaks((0, 40.4, 40.0)), peaks((0, 41.0, 40.0))
    scores = [torch.cat(pair).requires_grad_() for pair in zip(first, second, strict=True)]
    common = [mask.expand(2, -1, -1, -1) for mask in everywhere()]
    maxima = scale_space_maxima([s.detach() for s in scores], 3)
    chosen = choose_keypoints(GRID, scores, maxima, common, torch.tensor([0.5, 0.5]), 4)
    distance = distances_of_pairs(GRID, scores, common, chosen, torch.eye(3)[None])
    assert float(distance.detach()) == pytest.approx(math.hypot(0.6, 0.1) - 0.1, abs=0.05)
    (gradient,) = torch.autograd.grad(distance, scores[0])
    assert gradient[0, 0, 40, 41] < 0 < gradient[0, 0, 40, 39]  # the first peak moves towards the second
    figures = found_again(GRID, chosen, torch.eye(3)[None])
    assert figures["repeated"] == 1.0
    assert figures["error_px"] == pytest.approx(0.6, abs=0.05)


def test_identical_crops_are_matched_and_other_crops_are_not() -> None:
    pytest.importorskip("cv2")
    torch.manual_seed(0)
    drawn = WarpedCrops([[image] for image in draw_shapes(3, 0)], CropConfig(per_image=1, size=96), STILL)
    crops = drawn.draw(torch.Generator().manual_seed(0), 2)["first"]
    scores = GRID.levels(torch.cat([crops, crops]))
    common = [mask.expand(4, -1, -1, -1) for mask in everywhere()]
    maxima = scale_space_maxima(scores, 3)
    chosen = choose_keypoints(GRID, scores, maxima, common, torch.zeros(4), 6)
    matcher = KeypointMatcher(PatchOrienter(PolarOrientation(False)), PatchDescriptor(CompactDescriptor(False)), GRID)
    same = torch.eye(3).expand(2, 3, 3)
    repeated, matched = matcher(torch.cat([crops, crops]), chosen, expected_by_homography(chosen, same, same))
    assert torch.equal(repeated, chosen.valid)
    assert matched[repeated].float().mean() > 0.9
    swapped = torch.cat([crops, crops.flip(0)])
    other = type(chosen)(*(torch.cat([part[:2], part[:2].flip(0)]) for part in chosen))
    _, matched = matcher(swapped, other, expected_by_homography(other, same, same))
    assert matched.float().mean() < 0.2
    maps = mismatch_maps(GRID, chosen.pixel, chosen.valid)
    assert sum(int((each == 0).sum()) for each in maps) > 0
    assert all(
        torch.equal(each, torch.ones_like(each)) for each in mismatch_maps(GRID, chosen.pixel, chosen.valid & False)
    )
