"""The fourth patch shows no keypoint."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from kornia_lift.training.data.prepare import negatives
from kornia_lift.training.data.prepare.negatives import ROTATED_SUPPORT, free_regions, square_overlap
from kornia_lift.training.data.prepare.sift import Keypoints


def keypoints(count: int, rng: np.random.Generator) -> Keypoints:
    return Keypoints(rng.random((count, 2)) * [500, 150], rng.uniform(2, 5, count), np.zeros(count))


def test_regions_are_free_supported_and_of_the_given_scales() -> None:
    rng = np.random.default_rng(0)
    points = keypoints(60, rng)
    xy, sigma = free_regions((500, 400), points, np.array([2.0, 3.0, 4.0]), 30, rng)
    assert len(xy) >= 20
    assert set(sigma) <= {2.0, 3.0, 4.0}
    reach = ROTATED_SUPPORT * sigma[:, None]
    assert (xy >= reach).all()
    assert (xy <= np.array([499, 399]) - reach).all()
    inside = (np.abs(xy[:, None] - points.xy) <= 6 * sigma[:, None, None]).all(2)
    assert not inside.any()
    assert square_overlap(xy, sigma, points.xy, points.sigma).max() <= 0.1
    among = square_overlap(xy, sigma, xy, sigma)
    assert among[~np.eye(len(xy), dtype=bool)].max() <= 0.1


def test_regions_use_the_whole_image() -> None:
    """The published sampler forgot an offset of 12 sigma: its regions crowd the upper left."""
    none = Keypoints(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    parts = [free_regions((300, 300), none, np.array([2.0]), 1, np.random.default_rng(i))[0] for i in range(300)]
    assert np.concatenate(parts).mean(axis=0) == pytest.approx([149.5, 149.5], abs=15)


def test_a_image_full_of_keypoints_gives_none() -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 200, 5.0), np.arange(0, 200, 5.0)), -1).reshape(-1, 2)
    points = Keypoints(grid, np.full(len(grid), 2.0), np.zeros(len(grid)))
    assert len(free_regions((200, 200), points, np.array([2.0]), 10, np.random.default_rng(0))[0]) == 0


def test_a_image_too_small_for_any_scale_gives_none() -> None:
    none = Keypoints(np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    assert len(free_regions((60, 300), none, np.array([2.0]), 10, np.random.default_rng(0))[0]) == 0


def test_overlap_of_squares_by_hand() -> None:
    # half sides 6 and 12; equal centres: 144/576; 12 apart in x: 6*12/(144+576-72)
    a, b = np.zeros((1, 2)), np.array([[0.0, 0], [12.0, 0], [30.0, 0]])
    overlap = square_overlap(a, np.array([1.0]), b, np.array([2.0, 2.0, 2.0]))
    np.testing.assert_allclose(overlap, [[0.25, 72 / 648, 0.0]])


def test_chunks_do_not_change_the_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    points = keypoints(60, np.random.default_rng(1))
    arguments = (500, 400), points, np.array([2.0, 3.0]), 15
    whole = free_regions(*arguments, np.random.default_rng(2))
    monkeypatch.setattr(negatives, "COMPARED_AT_ONCE", 7 * len(points))
    for part, all_at_once in zip(free_regions(*arguments, np.random.default_rng(2)), whole, strict=True):
        np.testing.assert_array_equal(part, all_at_once)


def test_memory_does_not_grow_with_the_keypoints() -> None:
    """A large image has tens of thousands of SIFT keypoints; all candidates against all of them took gigabytes."""
    rng = np.random.default_rng(0)
    points = Keypoints(rng.random((50_000, 2)) * [4000, 3000], np.ones(50_000), np.zeros(50_000))
    tracemalloc.start()
    try:
        free_regions((4000, 3000), points, np.array([2.0]), 50, rng)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150 * 2**20
