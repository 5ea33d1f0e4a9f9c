"""SIFT keypoints grouped into places, against scenes whose geometry is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kornia_lift.training.data.sfm_frames import SfmObservations
from kornia_lift.training.data.sift import (
    Keypoints,
    Tolerance,
    confirm_scene,
    confirm_tracks,
    detect_sift,
    merge_points,
    near_pairs,
)

from .conftest import TurnedScene


def test_a_blob_has_its_place_and_scale() -> None:
    y, x = np.mgrid[:101, :121]
    blob = 40 + 150 * np.exp(-((x - 60.0) ** 2 + (y - 45.0) ** 2) / (2 * 6.0**2))
    found = detect_sift(blob.astype(np.uint8))
    best = np.argmin(np.hypot(*(found.xy - [60, 45]).T))
    assert np.hypot(*(found.xy[best] - [60, 45])) < 0.05
    assert found.sigma[best] == pytest.approx(6.0, rel=0.15)


def test_near_pairs_are_all_pairs_within_the_distance() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((40, 2)) * 10, rng.random((70, 2)) * 10
    expected = {(i, j) for i in range(40) for j in range(70) if np.hypot(*(a[i] - b[j])) <= 1.5}
    assert set(zip(*(k.tolist() for k in near_pairs(a, b, 1.5)), strict=True)) == expected
    assert len(near_pairs(a, np.zeros((0, 2)), 1.0)[0]) == 0


def turn_matrix(zoom: float, degrees: float) -> np.ndarray:
    c, s = zoom * math.cos(math.radians(degrees)), zoom * math.sin(math.radians(degrees))
    return np.array([[c, -s], [s, c]])


def test_the_keypoint_that_all_views_confirm_is_chosen() -> None:
    """Three views at zoom 1, 2, 1 and turn 0, 0, 90 degrees of one point; the true keypoint has scale 3, angle 10."""
    jacobian = np.stack([turn_matrix(1, 0), turn_matrix(2, 0), turn_matrix(1, 90)])
    seen = SfmObservations(("a", "b", "c"), np.arange(3), np.zeros(3, int), np.full((3, 2), 20.0), jacobian)

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
    jacobian = np.stack([turn_matrix(1, 0)] * 3)
    seen = SfmObservations(("a", "b", "c"), np.arange(3), np.zeros(3, int), np.zeros((3, 2)), jacobian)

    def at(degrees: float) -> Keypoints:
        return Keypoints(np.zeros((1, 2)), np.array([3.0]), np.radians([degrees]))

    assert sorted(confirm_tracks(seen, [at(5), at(100), at(355)])[0].tolist()) == [0, 2]
    assert len(confirm_tracks(seen, [at(0), at(100), at(200)])[0]) == 0


def test_places_of_a_turned_picture_agree_with_its_geometry(turned_scene: TurnedScene) -> None:
    keypoints = [detect_sift(p) for p in turned_scene.pictures]
    image, keypoint, place = confirm_scene(turned_scene, keypoints)
    assert len(np.unique(place)) > 60
    assert np.bincount(place).min() >= 2
    assert len(set(zip(place.tolist(), image.tolist(), strict=True))) == len(place)  # one keypoint per view
    errors = []
    for number in np.unique(place):
        rows = np.flatnonzero(place == number)
        first = rows[0]
        start = keypoints[image[first]].xy[keypoint[first]][None]
        for row in rows[1:]:
            moved = turned_scene.transfer(image[first], image[row], start).points[0]
            errors.append(np.hypot(*(keypoints[image[row]].xy[keypoint[row]] - moved)))
    assert np.median(errors) < 0.5
    assert np.quantile(errors, 0.95) < 2.0


@pytest.mark.parametrize(("degrees", "agrees"), [(19, True), (-19, True), (360 + 5, True), (21, False), (180, False)])
def test_angles_are_compared_round_the_circle(degrees: float, agrees: bool) -> None:
    assert Tolerance().agree(np.zeros(1), np.radians([degrees])).item() is agrees


def test_points_that_share_a_keypoint_are_one() -> None:
    # points 10 and 30 share keypoint 5 of photograph 1; 30 and 40 share keypoint 8 of photograph 2; 20 is apart
    image = np.array([0, 1, 0, 1, 1, 2, 2, 3])
    keypoint = np.array([4, 5, 7, 6, 5, 8, 8, 9])
    point = np.array([10, 10, 20, 20, 30, 30, 40, 40])
    found = merge_points(image, keypoint, point)
    rows = set(zip(*(part.tolist() for part in found), strict=True))
    assert rows == {(0, 4, 0), (1, 5, 0), (2, 8, 0), (3, 9, 0), (0, 7, 1), (1, 6, 1)}
    assert len(found[0]) == 6
