"""The overlap form against the oracle, by hand, and against brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kornia_lift.evaluation.measures.one_to_one import greedy_one_to_one
from kornia_lift.evaluation.measures.overlap import OverlapOptions, overlap_error, score_overlap
from kornia_lift.features import Features
from kornia_lift.scenes.homographies import HomographySequence, apply_homography
from kornia_lift.scenes.scene import Pair
from tests.helpers.small_scenes import HEIGHT, WIDTH, features, grid_points, plane_homography, unit_vectors


@pytest.mark.parametrize(("normalised", "column"), [(False, 4), (True, 6)])
def test_circles_agree_with_the_oracle(shared: Path, normalised: bool, column: int) -> None:
    rows = np.load(shared / "oracles" / "ellipse_overlap_circles.npz")["rows"]
    covariance = np.square(rows[:, 1])[:, None, None] * np.eye(2)
    error = overlap_error(rows[:, 0], covariance, rows[:, 2:4], normalised=normalised)
    np.testing.assert_allclose(error, rows[:, column + 1], atol=0.005)  # exact area
    np.testing.assert_allclose(error, rows[:, column], atol=1.2)  # raster of the benchmark


def test_concentric_ellipse_inside_a_circle() -> None:
    rotated = np.array([[0.8, -0.6], [0.6, 0.8]])
    covariance = rotated @ np.diag([1.0, 0.25]) @ rotated.T  # semi-axes 1 and 0.5 inside a circle of 1
    error = overlap_error(np.ones(1), covariance[None], np.zeros((1, 2)))
    assert error[0] == pytest.approx(50.0, abs=0.02)


def test_ellipses_agree_with_counted_pixels() -> None:
    covariance, offset = np.array([[9.0, 2.5], [2.5, 4.0]]), np.array([2.0, -1.5])
    x, y = np.meshgrid(np.linspace(-15, 20, 1500), np.linspace(-15, 15, 1500))
    circle = x**2 + y**2 <= 9.0 * 2.0**2  # enlarged three times
    d = np.stack([x - offset[0], y - offset[1]], axis=-1)
    ellipse = np.einsum("...i,ij,...j", d, np.linalg.inv(covariance), d) <= 9.0
    expected = 100 * (1 - (circle & ellipse).sum() / (circle | ellipse).sum())
    assert overlap_error(np.array([2.0]), covariance[None], offset[None])[0] == pytest.approx(expected, abs=0.1)


def test_far_regions_do_not_overlap() -> None:
    error = overlap_error(np.array([2.0]), np.array([[[400.0, 0], [0, 400.0]]]), np.array([[8.0, 0.0]]))
    assert error[0] == 100


def test_greedy_assignment_is_that_of_one_at_a_time() -> None:
    cost = np.random.default_rng(5).uniform(size=(23, 31))
    left, expected = cost.copy(), []
    while np.isfinite(left).any() and left.min() < 0.7:
        row, column = np.unravel_index(left.argmin(), left.shape)
        expected.append((int(row), int(column)))
        left[row], left[:, column] = np.inf, np.inf
    assert sorted(map(tuple, greedy_one_to_one(cost, 0.7).tolist())) == sorted(expected)
    assert len(greedy_one_to_one(np.zeros((4, 6)))) == 4  # equal costs do not stop it
    assert greedy_one_to_one(np.zeros((0, 3))).shape == (0, 2)


@pytest.mark.parametrize("options", [OverlapOptions(e, n) for e in (40, 50) for n in (False, True)])
def test_perfect_regions_score_one_and_displaced_ones_do_not(
    sequence: HomographySequence, options: OverlapOptions
) -> None:
    points = grid_points(16)
    first = features(points, unit_vectors(len(points)), scales=2.0)
    moved = apply_homography(plane_homography(), points)
    second = features(moved, unit_vectors(len(points)), scales=2.0)

    def score(other: object) -> list[float]:
        transfers = sequence.transfer(0, 1, points), sequence.transfer(1, 0, other.keypoints)  # type: ignore[attr-defined]
        return list(score_overlap(sequence, Pair(0, 1), (first, other), transfers, [options]).values())  # type: ignore[arg-type]

    assert score(second) == pytest.approx([1, 1, 1])
    apart = moved.copy()
    apart[3] += [9.5, 0]  # beyond four radii in either image
    count = len(points)
    assert score(features(apart, second.descriptors, scales=2.0))[:2] == pytest.approx([(count - 1) / count] * 2)
    three_times = features(moved, second.descriptors, scales=6.0)
    assert score(three_times) == pytest.approx([0, 0, 0])


@pytest.mark.parametrize("kind", ["sequence", "plane"])
def test_the_order_of_the_images_does_not_matter(kind: str, request: pytest.FixtureRequest) -> None:
    scene = request.getfixturevalue(kind)
    generator = np.random.default_rng(3)
    points = grid_points(9)
    count = len(points)
    sigma = generator.uniform(1.5, 4, (2, count))
    near = apply_homography(plane_homography(), points) + generator.normal(0, 1.5, points.shape)
    described = generator.standard_normal((2, count, 8)).astype(np.float32)
    described[1] = described[0] + 0.8 * described[1]
    sides = [
        Features(points_, d, np.ones(count), s, np.zeros(count), (WIDTH, HEIGHT))
        for points_, d, s in zip((points, near), described, sigma, strict=True)
    ]
    moved = scene.transfer(0, 1, points), scene.transfer(1, 0, near)
    forms = [OverlapOptions(e, n) for e in (40, 50) for n in (False, True)]
    there = score_overlap(scene, Pair(0, 1), (sides[0], sides[1]), moved, forms)
    back = score_overlap(scene, Pair(1, 0), (sides[1], sides[0]), moved[::-1], forms)
    assert there == pytest.approx(back, abs=1e-12)
    assert all(0 < value < 1 for value in there.values())


def test_scales_are_asked_for(sequence: HomographySequence) -> None:
    first = features(grid_points(), unit_vectors(len(grid_points())), scales=None)
    moved = sequence.transfer(0, 1, first.keypoints)
    with pytest.raises(ValueError, match="scale"):
        score_overlap(sequence, Pair(0, 1), (first, first), (moved, moved), [OverlapOptions()])
