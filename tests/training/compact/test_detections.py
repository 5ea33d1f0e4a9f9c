"""Detections that the reconstruction pairs: a plane seen by two cameras, worked out by hand, and a textured one."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from kornia_lift.detector.detector import LIFTDetector
from kornia_lift.networks.compact_descriptor import CompactDescriptor
from kornia_lift.training.compact.descriptor import ViewDescriptorStage
from kornia_lift.training.compact.detections import DetectionConfig, Detections, find_pairs, pair_detections
from kornia_lift.training.compact.observations import Observations, ViewConfig, connected_images, join_observations
from kornia_lift.training.compact.views import ViewPairs
from kornia_lift.training.data.cameras import Camera
from kornia_lift.training.modern.pairs import WarpConfig
from tests.helpers.training import picture

FOCAL, SIZE = 300.0, 400
MIDDLE = (SIZE - 1) / 2


def camera(rotation: np.ndarray, translation: tuple[float, float, float]) -> Camera:
    pytest.importorskip("pycolmap")
    middle = SIZE / 2  # COLMAP's pixel centres
    return Camera("PINHOLE", (FOCAL, FOCAL, middle, middle), (SIZE, SIZE), rotation, np.array(translation))


# the plane Z = 4 of the first camera; the second sees it twice as large, rotated clockwise by 90 degrees, and shifted
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
CAMERAS = (np.eye(3), (0.0, 0.0, 0.0)), (QUARTER, (0.4, 0.1, -2.0))


def to_second(xy: np.ndarray) -> np.ndarray:
    return 2 * (xy - MIDDLE) @ QUARTER[:2, :2].T + np.array([0.4, 0.1]) * FOCAL / 2 + MIDDLE


def plane(points: np.ndarray) -> Observations:
    n = len(points)
    blank = (torch.zeros(SIZE, SIZE, dtype=torch.uint8),) * 2
    return Observations(
        blank,
        torch.arange(2).repeat_interleave(n),
        torch.arange(n).repeat(2),
        torch.from_numpy(np.concatenate([points, to_second(points)])).float(),
        torch.tensor([1.0, 2.0]).repeat_interleave(n),
        torch.tensor([0.0, math.pi / 2]).repeat_interleave(n),
        torch.zeros(2 * n),
    )


POINTS = np.stack(np.meshgrid([160.0, 200, 240], [150.0, 200, 230]), -1).reshape(-1, 2)
NEAR = POINTS + np.array([5.0, -3.0])  # detections beside the points


def paired(first: np.ndarray, second: np.ndarray, sigma: float = 4.0, **options: float) -> list[tuple[int, int]]:
    """Pairs of detections at the given locations; scales 2 in the first image."""
    found = [Detections(first, np.full(len(first), 2.0)), Detections(second, np.full(len(second), sigma))]
    config = DetectionConfig(min_shared=2, variety=0.0, **options)  # type: ignore[arg-type]
    result = pair_detections(plane(POINTS), [camera(*c) for c in CAMERAS], found, config)
    half = len(result) // 2
    assert torch.equal(result.track.sort().values, torch.arange(half).repeat_interleave(2))
    pairs = []
    for track in range(half):
        one, two = (result.track == track).nonzero()[:, 0].tolist()
        assert result.image[[one, two]].tolist() == [0, 1]
        assert result.sigma[[one, two]].tolist() == [2.0, sigma]
        assert result.zoom[two] / result.zoom[one] == 2
        assert result.angle[two] - result.angle[one] == pytest.approx(math.pi / 2)
        pairs.append(
            tuple(
                int(np.linalg.norm(f.xy - result.xy[row].numpy(), axis=1).argmin())
                for f, row in zip(found, (one, two), strict=True)
            )
        )
    return sorted(pairs)  # type: ignore[arg-type]


def test_detections_of_one_location_are_paired() -> None:
    order = np.random.default_rng(0).permutation(len(NEAR))
    noise = np.random.default_rng(1).normal(0, 0.3, NEAR.shape)
    assert paired(NEAR, (to_second(NEAR) + noise)[order]) == sorted((int(n), k) for k, n in enumerate(order))


@pytest.mark.parametrize(
    ("moved", "options"),
    [
        ((4.5, 0.0), {"epipolar": 99.0}),  # not where it should be
        ((1.2, 1.2), {"epipolar": 0.4}),  # beside the epipolar line
    ],
)
def test_a_detection_elsewhere_is_not_paired(moved: tuple[float, float], options: dict[str, float]) -> None:
    second = to_second(NEAR)
    second[4] += moved
    found = paired(NEAR, second, **options)
    assert found == [(n, n) for n in range(len(NEAR)) if n != 4]


def test_detections_of_another_scale_or_far_from_every_point_are_not_paired() -> None:
    assert paired(NEAR, to_second(NEAR), sigma=4.0 * 1.5)
    assert not paired(NEAR, to_second(NEAR), sigma=4.0 * 1.7)
    far = POINTS + np.array([14.0, 0.0])
    assert not paired(far, to_second(far))


def test_two_detections_do_not_share_a_partner() -> None:
    first = np.concatenate([NEAR[:1], NEAR[:1] + 0.5])
    assert paired(first, to_second(NEAR[:1]) + 0.1) == [(0, 0)]


def test_images_that_share_most_of_their_points_give_fewer_pairs() -> None:
    found = [Detections(NEAR, np.full(9, 2.0)), Detections(to_second(NEAR), np.full(9, 4.0))]
    config = DetectionConfig(min_shared=2, per_pair=9)
    cameras = [camera(*c) for c in CAMERAS]
    assert len(pair_detections(plane(POINTS), cameras, found, config)) == 2  # all points are common: one pair
    seen = plane(POINTS)
    other = seen.track + 100 * ((seen.track >= 5) & (seen.image == 1))
    apart = dataclasses.replace(seen, track=other)  # 5 of 9 are
    assert len(pair_detections(apart, cameras, found, config)) == 2 * round(9 * (4 / 9) ** 1.5)


def detected() -> Observations:
    n = len(NEAR)
    seen = plane(NEAR)
    return dataclasses.replace(seen, sigma=torch.tensor([2.0, 4.4]).repeat_interleave(n))


def test_detections_are_seen_at_their_own_scales_and_places() -> None:
    source = ViewPairs(detected(), 2, 4, WarpConfig(scale=1.3, shift=0.2, angle=0.0), ViewConfig(region=2.0))
    anchor, positive, reach, other = source.draw(torch.Generator().manual_seed(0))
    for index, half in ((anchor, reach), (positive, other)):
        # the paper's 12 sigma are 6 to either side, and 64/63 for pixel centres
        assert torch.allclose(half, source.seen.sigma[index] * 2 * 6 * 64 / 63)
        lafs = source.frames(index, half, torch.zeros(len(index)), torch.Generator(), torch.ones(len(index)))
        assert torch.allclose(lafs[:, :, 2], source.seen.xy[index])
        assert torch.allclose(lafs[:, :, :2].det().abs().sqrt(), half, rtol=1e-4)


def test_images_are_connected_through_others() -> None:
    image, track = torch.tensor([0, 2, 2, 4, 1, 3]), torch.tensor([0, 0, 1, 1, 2, 3])
    assert connected_images(image, track, 6).tolist() == [0, 1, 0, 3, 0, 5]
    assert connected_images(image[:0], track[:0], 2).tolist() == [0, 1]


def test_locations_of_two_images_of_one_place_are_no_negatives() -> None:
    other = dataclasses.replace(detected(), images=(torch.zeros(SIZE, SIZE, dtype=torch.uint8),) * 2)
    seen = join_observations(
        other.images * 2, [detected(), dataclasses.replace(other, image=other.image + 2, track=other.track)]
    )
    source = ViewPairs(seen, 4, 4, WarpConfig(), ViewConfig())
    rows = torch.tensor([0, 8, 9 + 4, 18 + 4])  # two locations of image 0, another one of image 1, and one of image 2
    not_negative = source.ambiguous(rows, torch.full((4,), 18.0))
    assert not_negative.int().tolist() == [[1, 0, 1, 0], [0, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]]


def test_locations_without_room_are_refused() -> None:
    images = (torch.zeros(60, 60, dtype=torch.uint8),)
    n = 5
    seen = Observations(
        images,
        torch.zeros(n, dtype=torch.long),
        torch.arange(n),
        torch.full((n, 2), 4.0),
        torch.ones(n),
        torch.zeros(n),
        torch.zeros(n),
    )
    pairs = ViewPairs(seen, 1, 4, WarpConfig(), ViewConfig())
    with pytest.raises(ValueError, match="no location has room for a support region of 11 pixels"):
        pairs.draw(torch.Generator().manual_seed(0))


def test_images_are_rotated_as_a_whole() -> None:
    """Otherwise the angle alone would tell two locations of one image apart."""

    class Angles(ViewPairs):
        def frames(self, index, reach, angle, generator, stretch):  # type: ignore[no-untyped-def]
            drawn.append((self.seen.image[index], angle))
            return super().frames(index, reach, angle, generator, stretch)

    drawn: list[tuple[torch.Tensor, torch.Tensor]] = []
    source = Angles(detected(), 2, 4, WarpConfig(), ViewConfig())
    stage = ViewDescriptorStage(CompactDescriptor(False), source, source, upright_share=0.0)
    stage.batch(torch.Generator().manual_seed(0), 0)
    (image, angle), (_, same) = drawn
    assert torch.equal(angle, same)
    first, second = angle[image == 0], angle[image == 1]
    assert first.unique().numel() == second.unique().numel() == 1 and first[0] != second[0]


def test_what_the_detector_finds_is_paired() -> None:
    """One texture at two offsets, as two cameras beside each other see a plane: detections lie at that offset."""
    shift = 40
    whole = torch.from_numpy(picture(3, SIZE + shift))
    # a third image without a camera takes no part
    images = whole[:SIZE, shift:], whole[:SIZE, :SIZE], whole[:SIZE, :SIZE]
    cameras = [*(camera(np.eye(3), (x, 0.0, 0.0)) for x in (0.0, shift * 4 / FOCAL)), None]
    grid = np.stack(np.meshgrid(np.arange(20.0, 340, 15), np.arange(20.0, 380, 15)), -1).reshape(-1, 2)
    n = len(grid)
    xy = torch.from_numpy(np.concatenate([grid, grid + np.array([shift, 0])])).float()
    seen = Observations(
        images,
        torch.arange(2).repeat_interleave(n),
        torch.arange(n).repeat(2),
        xy,
        torch.ones(2 * n),
        torch.zeros(2 * n),
        torch.zeros(2 * n),
    )
    found = find_pairs(seen, cameras, LIFTDetector(200).eval(), DetectionConfig(variety=0.0))
    assert len(found) >= 2 * 50 and (found.sigma >= 0.9).all()
    rows = found.track.argsort(stable=True).view(-1, 2)
    assert (found.image[rows] == torch.tensor([0, 1])).all()
    offset = found.xy[rows[:, 1]] - found.xy[rows[:, 0]] - torch.tensor([float(shift), 0.0])
    assert offset.norm(dim=1).median() < 0.5
    assert offset[:, 1].abs().max() < 1.51  # the epipolar lines are rows
