"""The 3 px measures on features whose scores are known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kornia_lift.evaluation import PairScores, evaluate_feature, evaluate_warps, score_scene_pair
from kornia_lift.evaluation.measures.matching import Neighbours, nearest_neighbours
from kornia_lift.evaluation.measures.metrics import score_pair
from kornia_lift.evaluation.measures.precision import average_precision, trapezoid_precision
from kornia_lift.evaluation.warps import IDENTITY, ImageWarp
from kornia_lift.features import Features, from_lafs
from kornia_lift.scenes.homographies import HomographySequence, apply_homography
from kornia_lift.scenes.posed import PosedScene
from kornia_lift.scenes.scene import INVISIBLE, UNKNOWN, VISIBLE, Transferred
from tests.helpers.small_scenes import HEIGHT, WIDTH, features, grid_points, plane_homography, unit_vectors


def perfect(step: int = 11) -> tuple[Features, Features]:
    points = grid_points(step)
    descriptors = unit_vectors(len(points))
    return features(points, descriptors), features(apply_homography(plane_homography(), points), descriptors)


def test_perfect_features_score_one(sequence: HomographySequence, plane: PosedScene) -> None:
    for scene in (sequence, plane):
        scores = score_scene_pair(scene, 0, 1, *perfect())
        assert (scores.repeatability, scores.matching_score, scores.nn_map) == pytest.approx((1, 1, 1))
        assert scores.mma == pytest.approx((1,) * 10)


def test_shuffled_descriptors_score_chance(sequence: HomographySequence) -> None:
    first, second = perfect(step=4)
    generator = np.random.default_rng(3)
    scores = []
    for _ in range(20):
        shuffled = features(second.keypoints, second.descriptors[generator.permutation(len(second))])
        scores.append(score_scene_pair(sequence, 0, 1, first, shuffled))
    assert all(s.repeatability == 1 for s in scores)
    # A random permutation has one fixed point on average; at 4 px spacing no other keypoint lies within 3 px.
    assert np.mean([s.matching_score for s in scores]) == pytest.approx(1 / len(first), abs=0.6 / len(first))


@pytest.mark.parametrize("rank", ["last", "first"])
def test_one_displaced_keypoint_moves_exactly_what_it_must(sequence: HomographySequence, rank: str) -> None:
    first, second = perfect()
    count = len(first)
    moved, descriptors = second.keypoints.copy(), second.descriptors.copy()
    moved[4] += [4.5, 0.0]  # beyond 3 px of its location, within 10 px, and no nearer than 3 px to any other
    # Its match stays the nearest, but is made the least or the most certain of all.
    tilted = [4] if rank == "last" else [k for k in range(count) if k != 4]
    descriptors[tilted] += 0.05
    scores = score_scene_pair(sequence, 0, 1, first, features(moved, descriptors))
    share = (count - 1) / count
    assert scores.repeatability == pytest.approx(share)
    assert scores.matching_score == pytest.approx(share)
    assert scores.mma[2] == pytest.approx(share)
    assert scores.mma[9] == pytest.approx(1.0)
    found = np.arange(1, count)
    expected = 1.0 if rank == "last" else np.mean(found / (found + 1))
    assert scores.nn_map == pytest.approx(expected)


def test_a_swap_of_two_descriptors_costs_two_matches_and_no_repeatability(sequence: HomographySequence) -> None:
    first, second = perfect()
    order = np.arange(len(second))
    order[[0, 1]] = [1, 0]
    scores = score_scene_pair(sequence, 0, 1, first, features(second.keypoints, second.descriptors[order]))
    assert scores.repeatability == 1
    assert scores.matching_score == pytest.approx(1 - 2 / len(first))


def test_measures_are_symmetric(sequence: HomographySequence) -> None:
    generator = np.random.default_rng(0)
    first, second = perfect(step=7)
    keep = generator.random(len(second)) < 0.7
    second = features(
        second.keypoints[keep] + generator.normal(0, 2, (keep.sum(), 2)),
        second.descriptors[keep] + generator.normal(0, 0.2, (keep.sum(), 32)).astype(np.float32),
    )
    there = score_scene_pair(sequence, 0, 1, first, second)
    back = score_scene_pair(sequence, 1, 0, second, first)
    assert (*there.mma, there.nn_map, there.correct) == pytest.approx((*back.mma, back.nn_map, back.correct))
    assert (there.repeatability, there.matching_score) == pytest.approx((back.repeatability, back.matching_score))
    assert 0.2 < there.matching_score < there.repeatability < 0.9


def test_unknown_keypoints_do_not_count(sequence: HomographySequence) -> None:
    first, second = perfect()
    forward = sequence.transfer(0, 1, first.keypoints)
    backward = sequence.transfer(1, 0, second.keypoints)
    half = np.arange(len(first)) % 2 == 0
    # Half the keypoints are wrong, and of exactly those nothing is known.
    broken = second.keypoints.copy()
    broken[half] += 20
    unknown = np.where(half, UNKNOWN, VISIBLE).astype(np.int8)
    scores = score_pair(
        first,
        features(broken, second.descriptors),
        Transferred(forward.points, unknown),
        Transferred(backward.points, unknown),
    )
    assert scores.matching_score == 1
    assert scores.common == (~half).sum()


def test_matching_looks_among_all_keypoints_of_the_other_image(sequence: HomographySequence) -> None:
    """A distractor outside the common view region still attracts matches."""
    first, second = perfect()
    forward, backward = sequence.transfer(0, 1, first.keypoints), sequence.transfer(1, 0, second.keypoints)
    descriptors = np.concatenate([second.descriptors, first.descriptors[:1]])  # the distractor looks like number 0
    descriptors[0] += 0.05
    other = features(np.concatenate([second.keypoints, [[0.5, 0.5]]]), descriptors)
    with_distractor = Transferred(
        np.concatenate([backward.points, [[np.nan, np.nan]]]), np.append(backward.status, INVISIBLE).astype(np.int8)
    )
    scores = score_pair(first, other, forward, with_distractor)
    there, back = 1 - 1 / len(first), 1.0
    assert scores.matching_score == pytest.approx((there + back) / 2)
    assert scores.repeatability == 1
    assert scores.common == len(first)


def seen(points: np.ndarray, visible: list[bool]) -> Transferred:
    """Points that stay where they are."""
    return Transferred(points, np.where(visible, VISIBLE, INVISIBLE).astype(np.int8))


def test_every_score_by_hand() -> None:
    """Keypoints exactly at the threshold, beyond it, doubled, and outside the common view region."""
    a = np.array([[0.0, 0], [100, 0], [200, 0], [300, 0]])
    b = np.array([[3.0, 0], [104, 0], [200, 0], [200, 1], [50, 50]])
    neighbours = Neighbours(
        np.array([0, 1, 2, 3]), np.array([0.1, 0.2, 0.3, 0.4]),
        np.array([0, 1, 3, 2, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5]),
    )  # fmt: skip
    scores = score_pair(
        features(a, unit_vectors(4)), features(b, unit_vectors(5)),
        seen(a, [True, True, True, False]), seen(b, [True, True, True, True, False]), neighbours=neighbours,
    )  # fmt: skip
    assert scores.repeatability == pytest.approx((2 / 3 + 3 / 4) / 2)
    assert scores.repeatability_one_to_one == pytest.approx(2 / 3)  # two pairs, three keypoints of A
    assert scores.matching_score == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert scores.matching_score_one_to_one == pytest.approx(1 / 3)
    # ranked by distance: right, wrong, right of two; right, wrong, wrong, right of three
    assert scores.nn_map == pytest.approx(((1 + 2 / 3) / 2 + (1 + 2 / 4) / 3) / 2)
    assert scores.mma == pytest.approx((0, 0, 0.5, *[1.0] * 7))  # mutual matches at 3 and 4 pixels
    assert (scores.common, scores.correspondences, scores.correct, scores.mutual) == (3.5, 2.5, 2, 2)
    as_dict = scores.as_dict()
    assert as_dict["mma"] == list(scores.mma) and as_dict["common"] == 3.5
    assert sorted(as_dict) == sorted(vars(scores))


def test_one_keypoint_is_enough_and_a_direction_without_any_counts_as_zero() -> None:
    point = np.array([[5.0, 5]])
    one = features(point, unit_vectors(1))
    there, nowhere = seen(point, [True]), seen(point, [False])
    whole = score_pair(one, one, there, there)
    assert (whole.repeatability_one_to_one, whole.matching_score_one_to_one, whole.nn_map) == (1, 1, 1)
    assert whole.mma == (1,) * 10
    half = score_pair(one, one, there, nowhere)
    assert (half.repeatability, half.matching_score, half.nn_map, half.mma) == (0.5, 0.5, 0.5, (0.5,) * 10)
    assert half.matching_score_one_to_one == half.repeatability_one_to_one == 0  # its partner is not in the region
    assert (half.common, half.correct, half.mutual) == (0.5, 0.5, 0.5)


def test_without_mutual_neighbours_the_accuracy_is_zero() -> None:
    points = np.array([[0.0, 0], [50, 0]])
    crossed = Neighbours(np.array([0, 1]), np.zeros(2), np.array([1, 0]), np.zeros(2))
    both, everywhere = features(points, unit_vectors(2)), seen(points, [True, True])
    scores = score_pair(both, both, everywhere, everywhere, neighbours=crossed)
    assert (scores.mma, scores.mutual, scores.matching_score) == ((0.0,) * 10, 0, 0.5)


def test_the_threshold_is_passed_on(sequence: HomographySequence) -> None:
    first, second = perfect()
    moved = second.keypoints.copy()
    moved[4] += [4.5, 0.0]
    other = features(moved, second.descriptors)
    assert score_scene_pair(sequence, 0, 1, first, other).matching_score < 1
    assert score_scene_pair(sequence, 0, 1, first, other, threshold=5.5).matching_score == 1


def test_average_precision_by_hand() -> None:
    distance = np.array([0.1, 0.2, 0.3, 0.4])
    correct = np.array([True, False, True, False])
    assert average_precision(distance, correct, 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(distance, correct, 4) == pytest.approx((1 + 2 / 3) / 4)  # two were never matched
    assert average_precision(distance[::-1], correct[::-1], 2) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), correct, 2) == pytest.approx(0.5)  # ties are retrieved together
    assert average_precision(distance, correct, 0) == 0
    assert average_precision(np.zeros(0), np.zeros(0, bool), 3) == 0


def test_trapezoid_precision_by_hand() -> None:
    """Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1; then down to 0."""
    correct = np.array([True, False, True])
    assert trapezoid_precision(correct, 2) == pytest.approx(1 * 0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert trapezoid_precision(correct, 4) == pytest.approx(
        1 * 0.25 + 0.25 * (1 / 2 + 2 / 3) / 2
    )  # none behind the last
    assert trapezoid_precision(correct, 0) == trapezoid_precision(correct[:0], 3) == 0


def test_neighbours_agree_with_brute_force_over_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kornia_lift.evaluation.measures.matching._ROWS_AT_ONCE", 7)
    points = np.zeros((20, 2)), np.zeros((31, 2))
    first, second = features(points[0], unit_vectors(20, 1)), features(points[1], unit_vectors(31, 2))
    found = nearest_neighbours(first, second)
    distance = np.linalg.norm(first.descriptors[:, None] - second.descriptors[None], axis=2)
    np.testing.assert_array_equal(found.forward, distance.argmin(1))
    np.testing.assert_array_equal(found.backward, distance.argmin(0))
    np.testing.assert_allclose(found.forward_distance, distance.min(1), atol=1e-6)
    np.testing.assert_array_equal(found.mutual(), distance.argmin(0)[distance.argmin(1)] == np.arange(20))


def test_bits_are_compared_by_hamming_distance() -> None:
    a = Features(np.zeros((1, 2)), np.array([[0b11110000, 0]], dtype=np.uint8))
    b = Features(np.zeros((2, 2)), np.array([[0b11111111, 0], [0b11110001, 0b1]], dtype=np.uint8))
    found = nearest_neighbours(a, b)
    assert (found.forward[0], found.forward_distance[0]) == (1, 2.0)
    with pytest.raises(ValueError, match="different descriptors"):
        nearest_neighbours(a, features(np.zeros((1, 2)), unit_vectors(1)))


def corners(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A feature that is upright and translation invariant only: local patches at fixed locations of the content."""
    flat = image[0].mean(0)
    y, x = np.mgrid[10 : flat.shape[0] - 10 : 7, 10 : flat.shape[1] - 10 : 7]
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    patches = np.stack([flat[v - 3 : v + 4, u - 3 : u + 4].numpy().ravel() for u, v in points])
    return points.astype(float), patches, np.ones(len(points))


def test_evaluate_feature_in_process(sequence: HomographySequence) -> None:
    images: list[tuple[int, ...]] = []

    def extract(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        images.append(tuple(image.shape))
        return corners(image)

    cache: dict[tuple[str, str], Features] = {}
    once = evaluate_feature(extract, [sequence], 50, cache=cache)
    assert len(images) == 2
    assert once["pairs"] == 1
    assert set(once) >= {"matching_score", "nn_map", "repeatability", "mma", "scenes", "failed", "skipped"}
    rotated = evaluate_warps(extract, [sequence], [IDENTITY, ImageWarp(90)], 50, cache=cache)
    assert len(images) == 3  # only the rotated copy is new
    assert rotated["identity"]["matching_score"] == once["matching_score"]
    assert images[2][2:] == (WIDTH, HEIGHT)


def test_a_rotation_covariant_feature_does_not_care_about_rotation(tmp_path_factory: pytest.TempPathFactory) -> None:
    from tests.helpers.small_scenes import write_sequence

    root = write_sequence(tmp_path_factory.mktemp("x") / "same", {2: np.eye(3)})
    (root / "2.png").write_bytes((root / "1.png").read_bytes())
    scene = HomographySequence.load(root)

    def brightest(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """The 60 brightest pixels, described by their rank: the same for every right angle."""
        values, index = image[0, 0].flatten().topk(60)
        width = image.shape[-1]
        points = torch.stack([index % width, index // width], dim=1).double().numpy()
        return points, np.repeat(image[0, 0].flatten()[index].numpy()[:, None] * 0 + np.arange(60)[:, None], 2, axis=1)

    unique = torch.rand(1, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    scene.image = lambda index: unique  # type: ignore[method-assign]
    result = evaluate_warps(brightest, [scene], [IDENTITY, ImageWarp(90), ImageWarp(180)], 60)
    for label, scores in result.items():
        assert scores["matching_score"] == 1, label


def test_broken_features_count_as_zero(sequence: HomographySequence) -> None:
    def broken(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        points, patches, _ = corners(image)
        return points, patches * np.nan

    result = evaluate_feature(broken, [sequence], 50)
    assert (result["matching_score"], result["failed"]) == (0, 1)
    with pytest.raises(TypeError, match="an extractor must return"):
        evaluate_feature(lambda image: image, [sequence], 50)


def test_empty_slots_of_a_local_feature_are_dropped() -> None:
    lafs = torch.zeros(1, 3, 2, 3)
    lafs[0, :2] = torch.tensor([[6.0, 0, 10], [0, 6.0, 20]])
    found = from_lafs(lafs, torch.tensor([[2.0, 1, 0]]), torch.rand(1, 3, 8), (100, 50))
    assert len(found) == 2
    assert found.scales is not None
    np.testing.assert_allclose(found.scales, 63 / 64)  # a LAF spans 6 * 64/63 sigma
    np.testing.assert_allclose(found.keypoints, [[10, 20], [10, 20]])
    with pytest.raises(ValueError, match="responses must be"):
        from_lafs(lafs, torch.zeros(1, 2), torch.rand(1, 3, 8), (100, 50))


def test_no_keypoints_score_zero(sequence: HomographySequence) -> None:
    nothing = features(np.zeros((0, 2)), unit_vectors(0))
    scores = score_scene_pair(sequence, 0, 1, nothing, perfect()[1])
    assert isinstance(scores, PairScores)
    assert scores.matching_score == scores.repeatability == scores.nn_map == 0
