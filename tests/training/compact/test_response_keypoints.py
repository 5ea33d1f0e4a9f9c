"""Distances of keypoints of pairs of crops from the peaks that the other crops have there: what counts, what not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from kornia.feature import get_laf_scale
from torch import Tensor, nn

from kornia_lift.detector.scale_space import LEVEL_SIGMA
from kornia_lift.feature.patches import PatchDescriptor, PatchOrienter
from kornia_lift.geometry import LAF_SCALE_PER_SIGMA
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.networks.polar_orientation import PolarOrientation
from kornia_lift.training.compact.response.keypoints import ChosenKeypoints, choose_keypoints, distances_of_pairs
from kornia_lift.training.compact.response.levels import LevelGrid
from kornia_lift.training.compact.response.matches import KeypointMatcher, expected_by_homography, mismatch_maps

GRID = LevelGrid(96, count=3)
SIDE = GRID.sides[0]
EYE = torch.eye(3)


def bumps(*locations: tuple[int, float, float]) -> list[Tensor]:
    """Maps with quadratic peaks at (level, x, y), in pixels of the level, each 7 pixels wide."""
    maps = []
    for n, side in enumerate(GRID.sides):
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        score = torch.zeros(side, side)
        for level, at_x, at_y in locations:
            if level == n:
                score = torch.maximum(score, 1 - ((x - at_x) ** 2 + (y - at_y) ** 2) / 12)
        maps.append(score[None, None])
    return maps


def distance(
    first: Sequence[tuple[int, float, float]],
    second: Sequence[Tensor],
    to_second: Tensor = EYE,
    common: Sequence[Tensor] | None = None,
    empty: int = 0,
) -> float:
    """Mean distance of keypoints (level, x, y), in pixels of the crop, and of empty slots, from the peaks of maps."""
    middle = [(0, SIDE // 2, SIDE // 2)] * empty  # where empty slots point
    level = torch.tensor([[n for n, _, _ in [*first, *middle]]] * 2)
    xy = torch.tensor([[(x, y) for _, x, y in [*first, *middle]]] * 2, dtype=torch.float32)
    valid = torch.tensor([[True] * len(first) + [False] * empty] * 2)
    chosen = ChosenKeypoints(xy, level, valid, torch.zeros_like(level))
    scores = [torch.cat([torch.zeros_like(each), each]) for each in second]
    allowed = [torch.ones_like(each) for each in scores] if common is None else common
    return float(distances_of_pairs(GRID, scores, allowed, chosen, to_second[None]))


def value(*apart: float) -> float:
    """The mean of distances, smooth at 0."""
    return sum(math.sqrt(d**2 + 0.01) - 0.1 for d in apart) / len(apart)


def zoom(factor: float) -> Tensor:
    """Enlarge about the centre of the crop."""
    middle = (GRID.size - 1) / 2
    return torch.tensor([[factor, 0, middle * (1 - factor)], [0, factor, middle * (1 - factor)], [0, 0, 1.0]])


def test_the_mean_over_keypoints_is_taken() -> None:
    second = bumps((0, 40.5, 40), (0, 60, 61.2), (0, 20, 20))
    assert distance([(0, 40, 40), (0, 60, 60), (0, 20, 20)], second) == pytest.approx(value(0.5, 1.2, 0), abs=1e-4)


def test_nothing_to_compare_is_no_distance() -> None:
    assert distance([(0, 40, 40)], bumps()) == 0
    assert distance([], bumps((0, 48, 48)), empty=2) == 0


def test_empty_slots_do_not_count() -> None:
    second = bumps((0, 41, 40), (0, SIDE // 2, SIDE // 2))
    assert distance([(0, 40, 40)], second, empty=3) == pytest.approx(value(1), abs=1e-4)


@pytest.mark.parametrize("factor", [1.0, 2**0.5, 2.0])
def test_the_peak_is_looked_for_at_the_size_that_the_map_gives(factor: float) -> None:
    """Enlarged by 2, a keypoint of the finest level is found two levels up; distances are in pixels of that level."""
    level = round(GRID.per_octave * math.log2(factor))
    at = (SIDE / 2) * GRID.sides[level] / SIDE - 0.5  # the centre of the crop stays where it is
    second = bumps((level, at + 0.75, at))
    assert distance([(0, 47.5, 47.5)], second, zoom(factor)) == pytest.approx(value(0.75), abs=1e-4)
    others = bumps(*((n, at + 0.75, at) for n in range(GRID.count) if n != level))
    assert distance([(0, 47.5, 47.5)], others, zoom(factor)) == 0


@pytest.mark.parametrize(
    ("level", "factor", "nearest"), [(0, 2**1.55, 2), (0, 4.0, 2), (0, 0.7, 0), (2, 0.2, 0), (0, 0.1, 0)]
)
def test_sizes_that_no_level_has_do_not_count(level: int, factor: float, nearest: int) -> None:
    """Not even where the nearest level has a peak at the location."""
    lands, pixel = {0: (48.0, 48), 2: (48.5, 24)}[nearest]
    at = 47.5 + (lands - 47.5) / factor
    assert distance([(level, at, at)], bumps((nearest, pixel, pixel + 0.5)), zoom(factor)) == 0


@pytest.mark.parametrize(
    ("at", "counts"), [(2, False), (3, True), (SIDE - 4, True), (SIDE - 3, False), (SIDE + 9, False)]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_square_that_is_searched_lies_in_the_map(at: int, counts: bool, axis: int) -> None:
    x, y = (at, 40) if axis == 0 else (40, at)
    found = distance(
        [(0, x, y)], bumps((0, x, y), (0, 3, 3), (0, SIDE - 4, SIDE - 4), (0, SIDE - 4, 40), (0, 40, SIDE - 4))
    )
    assert found == 0
    moved = distance([(0, x, y)], bumps((0, x + (0.5 if axis else 0), y + (0 if axis else 0.5))))
    assert moved == pytest.approx(value(0.5) if counts else 0, abs=1e-4)


@pytest.mark.parametrize(
    ("dx", "dy", "counts"),
    [
        (1.9, 0, True),
        (-1.9, 0.4, True),
        (0, -1.2, True),
        (2, 0, False),
        (1.9, 1.7, False),
        (2, 2, False),
        (4, 0, False),
    ],
)
def test_peaks_farther_away_are_other_keypoints(dx: float, dy: float, counts: bool) -> None:
    apart = distance([(0, 40, 40)], bumps((0, 40 + dx, 40 + dy)))
    assert apart == pytest.approx(value(math.hypot(dx, dy)) if counts else 0, abs=1e-4)


def test_the_slope_towards_another_peak_is_none() -> None:
    ramp = [torch.arange(side, dtype=torch.float32).expand(1, 1, side, side) / side for side in GRID.sides]
    assert distance([(0, 40, 40)], ramp) == 0


def test_the_mask_of_the_peak_itself_decides() -> None:
    second = bumps((0, 41, 40), (0, 60, 60.5))
    allowed = [torch.ones(2, 1, side, side) for side in GRID.sides]
    allowed[0][1, 0, 40, 41] = 0
    keypoints = [(0, 40.0, 40.0), (0, 60.0, 60.0)]
    assert distance(keypoints, second, common=allowed) == pytest.approx(value(0.5), abs=1e-4)
    allowed = [torch.zeros(2, 1, side, side) for side in GRID.sides]
    allowed[0][1, 0, 40, 41] = 1
    assert distance(keypoints, second, common=allowed) == pytest.approx(value(1), abs=1e-4)


class Recorded(nn.Module):
    """Stands in for a stage: keeps the frames that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = torch.empty(0)

    def forward(self, pyramid: object, lafs: Tensor) -> Tensor:
        self.frames = lafs
        return torch.nn.functional.normalize(lafs.flatten(2), dim=2)


@pytest.mark.parametrize(("region", "factor"), [({}, 2.0), ({"region": 3.0}, 3.0)])
def test_keypoints_are_described_at_the_size_of_their_level(region: dict[str, float], factor: float) -> None:
    orienter, descriptor = PatchOrienter(PolarOrientation(False)), PatchDescriptor(CompactDescriptor(False))
    matcher = KeypointMatcher(orienter, descriptor, GRID, **region)
    recorder = matcher.descriptor = Recorded()
    level = torch.tensor([[0, 1, 2]] * 2)
    xy = torch.tensor([[[40.0, 41], [50, 52], [30, 60]]] * 2)
    chosen = ChosenKeypoints(xy, level, torch.ones(2, 3, dtype=torch.bool), level)
    expected = [(each, torch.full((1, 3), 3.0)) for each in xy.chunk(2)]
    matcher(torch.rand(2, 1, 96, 96), chosen, expected)
    sigma = LEVEL_SIGMA * 2.0 ** (level / GRID.per_octave)
    assert torch.allclose(get_laf_scale(recorder.frames)[..., 0, 0], factor * LAF_SCALE_PER_SIGMA * sigma, rtol=1e-4)
    assert torch.allclose(recorder.frames[..., 2], xy, atol=1e-4)


@pytest.mark.parametrize("level", range(GRID.count))
def test_chosen_keypoints_lie_at_the_peaks_of_their_level(level: int) -> None:
    at = GRID.sides[level] // 3
    maps = bumps((level, at + 0.25, at - 0.25))
    maxima = [each == max(float(m.max()) for m in maps) for each in maps]
    allowed = [torch.ones_like(each) for each in maps]
    chosen = choose_keypoints(GRID, maps, maxima, allowed, torch.tensor([0.5]), 3)
    scale = GRID.size / GRID.sides[level]
    expected = [(at + 0.75) * scale - 0.5, (at + 0.25) * scale - 0.5]
    assert chosen.valid.tolist() == [[True, False, False]]
    assert chosen.xy[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    assert chosen.level[0, 0] == level
    before = sum(side * side for side in GRID.sides[:level])
    assert chosen.pixel[0, 0] == before + at * GRID.sides[level] + at


def test_the_first_pixel_of_a_level_belongs_to_it() -> None:
    maps = [torch.zeros(1, 1, side, side) for side in GRID.sides]
    maps[1][0, 0, 2, 2] = 1.0  # the first one that may be a keypoint
    maxima = [each > 0 for each in maps]
    chosen = choose_keypoints(GRID, maps, maxima, [torch.ones_like(each) for each in maps], torch.tensor([0.5]), 1)
    scale = GRID.size / GRID.sides[1]
    assert chosen.level.item() == 1
    assert chosen.xy[0, 0].tolist() == pytest.approx([2.5 * scale - 0.5] * 2)


def test_peaks_between_two_equal_pixels_and_beyond_a_pixel() -> None:
    """A fit that leaves its pixel by a pixel or more is not trusted."""
    for beyond, valid in ((0.5, True), (0.95, True), (1.05, False), (1.6, False)):
        maps = bumps((0, 40 + beyond, 40))
        maxima = [torch.zeros_like(each, dtype=torch.bool) for each in maps]
        maxima[0][0, 0, 40, 40] = True
        chosen = choose_keypoints(GRID, maps, maxima, [torch.ones_like(each) for each in maps], torch.tensor([0.5]), 1)
        assert chosen.valid.item() is valid


def test_maps_of_mismatches_are_zero_around_what_is_matched_wrongly() -> None:
    second = GRID.sides[0] ** 2 + 10 * GRID.sides[1] + 20  # level 1, row 10, column 20
    index = torch.tensor([[5 * SIDE + 7, second, second], [0, 5 * SIDE + 7, 5 * SIDE + 7]])
    wrong = torch.tensor([[True, True, True], [False, True, False]])
    maps = mismatch_maps(GRID, index, wrong)
    assert [tuple(each.shape) for each in maps] == [(2, 1, side, side) for side in GRID.sides]
    expected = [torch.ones(2, 1, side, side) for side in GRID.sides]
    expected[0][:, 0, 4:7, 6:9] = 0
    expected[1][0, 0, 9:12, 19:22] = 0
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(maps, expected, strict=True))


def test_each_crop_expects_its_keypoints_in_the_other_one() -> None:
    to_second, to_first = zoom(2.0)[None], zoom(0.5)[None]
    xy = torch.tensor([[[47.5, 47.5], [50.5, 47.5]], [[47.5, 47.5], [53.5, 47.5]]])
    level = torch.zeros(2, 2, dtype=torch.long)
    chosen = ChosenKeypoints(xy, level, torch.ones(2, 2, dtype=torch.bool), level)
    (second, near), (first, _) = expected_by_homography(chosen, to_second, to_first)
    assert torch.allclose(second, torch.tensor([[[47.5, 47.5], [53.5, 47.5]]]))
    assert torch.allclose(first, torch.tensor([[[47.5, 47.5], [50.5, 47.5]]]))
    assert near.tolist() == [[3.0, 3.0]]
