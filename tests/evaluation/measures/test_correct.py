"""Correct matches, thinning, coverage, crowding, epipolar distance: small sets with the answer by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kornia_lift.evaluation.measures.correct import (
    cells,
    common_cells,
    correct_matches,
    coverage,
    crowding,
    grid_shape,
    mutual_matches,
    thin,
    transfer_error,
)
from kornia_lift.evaluation.measures.epipolar import epipolar_distance, fundamental_matrix, scene_epipolar_distance
from kornia_lift.evaluation.measures.matching import nearest_neighbours
from kornia_lift.evaluation.measures.metrics import score_pair
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import evaluate
from kornia_lift.evaluation.validation import evaluate_feature
from kornia_lift.features import Features
from kornia_lift.scenes.homographies import HomographySequence, apply_homography
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import INVISIBLE, UNKNOWN, VISIBLE, Transferred
from tests.helpers.small_scenes import (
    HEIGHT,
    WIDTH,
    K,
    features,
    grid_points,
    plane_homography,
    unit_vectors,
    write_sequence,
)


def test_thinning_takes_the_best_first() -> None:
    """Four matches in a row 2 px apart: the best one drops its neighbours on both sides, the fourth is free."""
    first = np.array([[0.0, 0], [2, 0], [4, 0], [6, 0]])
    far = first * 10
    assert thin(first, far, np.array([0.3, 0.1, 0.4, 0.2])).tolist() == [1, 3]
    assert thin(first, far, np.array([0.1, 0.2, 0.3, 0.4])).tolist() == [0, 2]
    assert thin(first, far, np.zeros(4)).tolist() == [0, 2]  # of equal ones the first


def test_thinning_looks_at_both_images_and_includes_the_limit() -> None:
    apart = np.array([[0.0, 0], [50, 0]])
    assert thin(apart, np.array([[0.0, 0], [3, 0]]), np.array([0.1, 0.2])).tolist() == [0]  # 3 px in B
    assert thin(apart, np.array([[0.0, 0], [3.01, 0]]), np.array([0.1, 0.2])).tolist() == [0, 1]
    assert thin(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)).tolist() == []


def test_thinned_matches_agree_with_the_definition() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.uniform(0, 40, (2, 300, 2))
    distance = generator.random(300)
    kept = thin(first, second, distance)
    near = np.zeros((300, 300), bool)
    for points in (first, second):
        near |= np.linalg.norm(points[:, None] - points[None], axis=2) <= 3
    assert not near[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)].any()
    for k in set(range(300)) - set(kept.tolist()):  # whoever was dropped is near a better one that was kept
        assert any(near[k, j] and distance[j] < distance[k] for j in kept)


def test_crowding_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.array([[0.0, 0], [2, 0], [10, 10], [12.1, 10], [30, 30], [30, 30]])
    assert crowding(points) == pytest.approx(4 / 6)  # the first two, and the two at one location
    monkeypatch.setattr("kornia_lift.evaluation.measures.correct._ROWS_AT_ONCE", 2)
    assert crowding(points) == pytest.approx(4 / 6)
    assert crowding(points[:1]) == crowding(points[:0]) == 0


def test_cells_cut_the_image_into_16_by_12() -> None:
    size = (160, 120)
    points = np.array([[0.0, 0], [9.4, 9.4], [9.6, 9.6], [159, 119], [-0.5, 119.5]])
    assert cells(points, size).tolist() == [[0, 0], [0, 0], [1, 1], [15, 11], [0, 11]]
    assert grid_shape(size) == (12, 16)
    assert grid_shape((120, 160)) == (16, 12)  # of an upright image the longer side has 16, too


def test_coverage_counts_only_what_the_other_image_sees(tmp_path) -> None:  # type: ignore[no-untyped-def]
    half = np.array([[1.0, 0, WIDTH / 2], [0, 1, 0], [0, 0, 1]])  # B shows the left half of A on its right
    scene = HomographySequence.load(write_sequence(tmp_path / "half", {2: half}))
    common = common_cells(scene, 0, 1)
    assert common.shape == (12, 16)
    assert common[:, :8].all()
    assert not common[:, 8:].any()
    size = (WIDTH, HEIGHT)
    points = np.array([[1.0, 1.0], [2.0, 2.0], [20.0, 1.0], [100.0, 1.0]])
    assert coverage(points, size, common) == pytest.approx(2 / 96)  # two of the four share a cell, one is outside
    assert coverage(points[:0], size, common) == 0
    assert coverage(points, size, np.zeros_like(common)) == 0


def test_errors_of_matches_without_ground_truth_are_infinite() -> None:
    moved = Transferred(np.array([[3.0, 4], [0, 0], [0, 0]]), np.array([VISIBLE, INVISIBLE, UNKNOWN], np.int8))
    error = transfer_error(moved, np.arange(3), np.zeros((3, 2)))
    assert error.tolist() == [5, np.inf, np.inf]


def shifted(points: np.ndarray, shift: float) -> np.ndarray:
    return points + np.array([shift, 0])


def test_known_answers_of_a_pair(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """Identity, six keypoints: two correct at one location, one off by 1, one off by 2.5, one wrong, one unmatched."""
    scene = HomographySequence.load(write_sequence(tmp_path / "same", {2: np.eye(3)}))
    points = np.array([[10.0, 10], [11, 10], [40, 10], [70, 10], [100, 10], [10, 60]])
    there = points + np.array([[0.0, 0], [0, 0], [1, 0], [2.5, 0], [0, 50], [0, 0]])
    a, b = np.eye(6, dtype=np.float32), np.eye(6, dtype=np.float32)
    a[1] *= 1.1  # the second match of the crowded location is worse than the first
    a[5] = b[5] = 0
    a[5, 4] = b[5, 3] = 0.9  # each of the last two prefers another
    first = Features(points, a, np.arange(6, 0, -1.0), image_size=(WIDTH, HEIGHT))
    second = Features(there, b, np.arange(6, 0, -1.0), image_size=(WIDTH, HEIGHT))
    index, matches = mutual_matches(points, there, nearest_neighbours(first, second))
    assert index.tolist() == [0, 1, 2, 3, 4]
    error = transfer_error(scene.transfer(0, 1, points), index, matches[1])
    np.testing.assert_allclose(error, [0, 0, 1, 2.5, 50])
    assert correct_matches(matches, error).tolist() == [0, 2, 3]

    class Source:
        def read(self, scene: str, image: str) -> Features:
            return first if image == "1" else second

    values = evaluate(Source(), [scene], Options(estimator=None))[0].values
    assert values["correct_matches"] == 3
    assert values["coverage"] == pytest.approx(3 / 192)
    assert values["median_error"] == 1
    assert values["crowding"] == pytest.approx((2 / 6 + 2 / 6) / 2)
    assert values["matches"] == 5
    assert values["mma_1"] == pytest.approx(3 / 5)
    assert values["mma_3"] == pytest.approx(4 / 5)
    assert values["matching_score_one_to_one"] == pytest.approx(4 / 6)
    assert values["repeatability_one_to_one"] == pytest.approx(5 / 6)
    assert values["matching_score"] == pytest.approx(4 / 6)


def test_one_to_one_forms_count_a_crowd_once() -> None:
    """Five keypoints of A around one of B: all repeat, all match, but only one pair of them is one-to-one."""
    crowd = np.array([[50.0, 50], [51, 50], [50, 51], [49, 50], [50, 49]])
    single, other = crowd[:1], np.array([[90.0, 20]])
    vector = unit_vectors(2)
    first = features(crowd, np.repeat(vector[:1], 5, axis=0) + 0.01 * np.arange(5)[:, None].astype(np.float32))
    second = features(np.concatenate([single, other]), vector)
    seen = np.full(5, VISIBLE, np.int8)
    scores = score_pair(first, second, Transferred(crowd, seen), Transferred(second.keypoints, seen[:2]))
    assert scores.repeatability == pytest.approx((1 + 1 / 2) / 2)
    assert scores.matching_score == pytest.approx((1 + 1 / 2) / 2)
    assert scores.repeatability_one_to_one == pytest.approx(1 / 2)
    assert scores.matching_score_one_to_one == pytest.approx(1 / 2)


def test_epipolar_distance_by_hand() -> None:
    """A camera that moves along x: epipolar lines are rows, so the distance is the difference of y."""
    fundamental = fundamental_matrix((K, K), (np.eye(3), np.array([1.0, 0, 0])))
    first = np.array([[10.0, 20], [30, 40]])
    second = np.array([[70.0, 20], [10, 43]])
    camera = np.array([[100.0, 0, 59.5], [0, 100, 44.5], [0, 0, 1]])
    fundamental = fundamental_matrix((camera, camera), (np.eye(3), np.array([1.0, 0, 0])))
    np.testing.assert_allclose(epipolar_distance(fundamental, first, second), [0, 3], atol=1e-9)
    # 3 px in the first image, 6 px in the second of twice the size: the larger counts
    zoomed = fundamental_matrix((camera, np.diag([2.0, 2, 1]) @ camera), (np.eye(3), np.array([1.0, 0, 0])))
    np.testing.assert_allclose(epipolar_distance(zoomed, first[:1], np.array([[5.0, 46]])), [6], atol=1e-9)


def test_points_of_a_plane_lie_on_their_epipolar_lines(plane: PosedScene) -> None:
    points = grid_points()
    moved = apply_homography(plane_homography(), points)
    assert scene_epipolar_distance(plane, (0, 1), points, moved).max() < 1e-6
    assert scene_epipolar_distance(plane, (0, 1), points, shifted(moved, 30)).max() > 1


def test_a_scene_with_cameras_only_is_measured_by_its_epipolar_lines(plane: PosedScene) -> None:
    from kornia_lift.scenes.calibrated import CalibratedScene

    cameras = CalibratedScene(
        name="cams",
        paths=[plane.image_path(k) for k in range(2)],
        intrinsics=plane.intrinsics,
        rotations=plane.rotations,
        translations=plane.translations,
        sizes=[plane.size] * 2,
        pairs=plane.pairs,
    )
    points = grid_points()
    count = len(points)
    moved = apply_homography(plane_homography(), points)
    moved[0, 1] += 25  # off its line
    found = {"0": features(points, unit_vectors(count)), "1": features(moved, unit_vectors(count))}

    class Source:
        def read(self, scene: str, image: str) -> Features:
            return found[image]

    result = evaluate(Source(), [cameras], Options())[0]
    assert result.values["epipolar_matches"] == count - 1
    assert result.values["epipolar_precision"] == pytest.approx((count - 1) / count)
    assert result.values["median_epipolar_error"] < 1e-6
    assert {"pose_auc_5", "pose_auc_10", "pose_auc_20"} <= set(result.values)
    assert "correct_matches" not in result.values


def test_in_memory_and_from_a_source_are_one_protocol(sequence: HomographySequence) -> None:
    points = grid_points()
    moved = apply_homography(plane_homography(), points) + np.random.default_rng(0).normal(0, 1, points.shape)
    found = {"1": features(points, unit_vectors(len(points))), "2": features(moved, unit_vectors(len(points)))}

    class Source:
        def read(self, scene: str, image: str) -> Features:
            return found[image]

    order = iter(("1", "2"))
    here = evaluate_feature(lambda image: found[next(order)], [sequence])
    there = evaluate(Source(), [sequence], Options(estimator=None))[0].values
    mma = here.pop("mma")
    assert [there.pop(f"mma_{t}") for t in range(1, 11)] == mma
    assert {name: here[name] for name in there} == there
