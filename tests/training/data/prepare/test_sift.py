"""SIFT keypoints confirmed by geometry, against scenes whose geometry is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from kornia_lift.training.data.prepare.frames import Frames
from kornia_lift.training.data.prepare.sift import (
    Keypoints,
    Tolerance,
    confirm_tracks,
    detect_sift,
    drop_repeated_locations,
    near_pairs,
    one_per_location,
)


def test_a_blob_has_its_location_and_scale() -> None:
    y, x = np.mgrid[:101, :121]
    blob = 40 + 150 * np.exp(-((x - 60.0) ** 2 + (y - 45.0) ** 2) / (2 * 6.0**2))
    found = detect_sift(torch.from_numpy(blob.astype(np.uint8)))
    best = np.argmin(np.hypot(*(found.xy - [60, 45]).T))
    assert np.hypot(*(found.xy[best] - [60, 45])) < 0.05
    assert found.sigma[best] == pytest.approx(6.0, rel=0.15)


def test_near_pairs_are_all_pairs_within_the_distance() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((40, 2)) * 10, rng.random((70, 2)) * 10
    expected = {(i, j) for i in range(40) for j in range(70) if np.hypot(*(a[i] - b[j])) <= 1.5}
    assert set(zip(*(k.tolist() for k in near_pairs(a, b, 1.5)), strict=True)) == expected
    assert len(near_pairs(a, np.zeros((0, 2)), 1.0)[0]) == 0


def rotation_of(zoom: float, degrees: float) -> np.ndarray:
    c, s = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def test_the_keypoint_that_all_views_confirm_is_chosen() -> None:
    """Three views of one point, zoom 1, 2, 1 and rotation 0, 0, 90 degrees; the true keypoint has scale 3, angle 10."""
    jacobian = np.stack([rotation_of(1, 0), rotation_of(2, 0), rotation_of(1, 90)])
    seen = Frames(np.arange(3), np.zeros(3, int), np.full((3, 2), 20.0), jacobian)

    def keypoints(*rows: tuple[float, float, float]) -> Keypoints:
        table = np.array(rows)
        return Keypoints(
            np.stack([20 + table[:, 0], np.full(len(rows), 20.0)], 1), table[:, 1], np.radians(table[:, 2])
        )

    views = [
        keypoints((0.2, 3.0, 200.0), (0.3, 3.1, 12.0), (0.1, 9.0, 10.0)),
        keypoints((0.0, 3.0, 10.0), (0.4, 6.2, 8.0)),
        keypoints((0.0, 3.0, 10.0), (0.9, 3.0, 101.0), (3.0, 3.0, 100.0)),
    ]
    observation, keypoint = confirm_tracks(seen, views)
    assert dict(zip(observation.tolist(), keypoint.tolist(), strict=True)) == {0: 1, 1: 1, 2: 1}


def test_a_view_that_nobody_confirms_is_left_out() -> None:
    jacobian = np.stack([rotation_of(1, 0)] * 3)
    seen = Frames(np.arange(3), np.zeros(3, int), np.zeros((3, 2)), jacobian)

    def at(degrees: float) -> Keypoints:
        return Keypoints(np.zeros((1, 2)), np.array([3.0]), np.radians([degrees]))

    assert sorted(confirm_tracks(seen, [at(5), at(100), at(355)])[0].tolist()) == [0, 2]
    assert len(confirm_tracks(seen, [at(0), at(100), at(200)])[0]) == 0


@pytest.mark.parametrize(("degrees", "agrees"), [(19, True), (-19, True), (360 + 5, True), (21, False), (180, False)])
def test_angles_are_compared_round_the_circle(degrees: float, agrees: bool) -> None:
    assert Tolerance().agree(np.zeros(1), np.radians([degrees])).item() is agrees


def test_of_locations_that_share_a_keypoint_the_most_confirmed_stays() -> None:
    # 10 and 30 share keypoint 5 of image 1; 30 and 40 share keypoint 8 of image 2; 20 is apart, 50 is not confirmed
    point = np.array([10, 10, 20, 20, 30, 30, 40, 40, 40, 50])
    image = np.array([0, 1, 0, 1, 1, 2, 2, 3, 4, 0])
    keypoint = np.array([4, 5, 7, 6, 5, 8, 8, 9, 9])
    frames = Frames(image, point, np.zeros((10, 2)), np.zeros((10, 2, 2)))
    kept = drop_repeated_locations(frames, np.arange(9), keypoint)
    assert set(point[kept].tolist()) == {10, 20, 40, 50}


def test_one_keypoint_is_kept_of_every_location() -> None:
    found = Keypoints(np.array([[1.0, 2], [3, 4], [1, 2]]), np.array([2.0, 3, 5]), np.array([0.0, 1, 2]))
    one = one_per_location(found)
    assert one.xy.tolist() == [[3, 4], [1, 2]] and one.sigma.tolist() == [3, 5]
