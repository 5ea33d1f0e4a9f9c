"""Poses from putative matches, with and without a filter, where the pose is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kornia_lift.evaluation.measures.geometry import Estimator
from kornia_lift.evaluation.measures.learned_filter import (
    PutativePair,
    eight_point_ransac_error,
    filter_alone_error,
    magsac_errors,
    score_matches,
)
from kornia_lift.evaluation.pair import Options
from kornia_lift.evaluation.runner import evaluate
from kornia_lift.networks.correspondence import CorrespondenceNet
from kornia_lift.scenes.posed import PosedScene
from tests.helpers.small_scenes import write_perfect, write_plane_scene

K = np.array([[700.0, 0, 320], [0, 700, 240], [0, 0, 1]])


def ratio_network() -> CorrespondenceNet:
    """Keeps the matches whose ratio is below the mean of all, whatever their positions."""
    network = CorrespondenceNet(channels=4, blocks=1, side=True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.input.weight[0, 4] = -1.0
        network.output.weight[0, 0] = 1.0
    return network.eval()


def made_pair(count: int = 300, outliers: float = 0.6, noise: float = 0.1, seed: int = 0) -> PutativePair:
    """Points in front of two cameras, noise in pixels; outliers have a large ratio."""
    rng = np.random.default_rng(seed)
    angle = 0.15
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    translation = np.array([-1.0, 0.1, 0.2])
    first = rng.uniform([40, 40], [600, 440], (count, 2))
    rays = np.c_[first, np.ones(count)] @ np.linalg.inv(K).T
    moved = (rays * rng.uniform(4, 9, (count, 1))) @ rotation.T + translation
    second = (moved / moved[:, 2:]) @ K.T
    second = second[:, :2] + rng.normal(0, noise, (count, 2))
    wrong = rng.random(count) < outliers
    second[wrong] = rng.uniform([40, 40], [600, 440], (int(wrong.sum()), 2))
    side = np.stack([np.where(wrong, 0.97, 0.6), ~wrong], 1).astype(np.float32)
    return PutativePair(np.c_[first, second], side, (K, K), (rotation, translation))


def test_every_estimator_finds_the_pose() -> None:
    pair = made_pair()
    scored = score_matches(ratio_network(), pair)
    assert ((scored.logits > 0).numpy() == (pair.side[:, 0] < 0.9)).all()
    assert (magsac_errors(pair, Estimator()) < 0.5).all()
    assert (magsac_errors(pair, Estimator(), scored.logits > 0) < 0.5).all()
    assert filter_alone_error(pair, scored) < 1.0
    assert filter_alone_error(pair, scored, reweighted=False) < 3.0
    assert eight_point_ransac_error(made_pair(outliers=0.3), 1.0) < 5


def test_the_opposite_translation_is_wrong() -> None:
    pair = made_pair(outliers=0.0)
    rotation, translation = pair.pose
    opposite = PutativePair(pair.matches, pair.side, pair.intrinsics, (rotation, -translation))
    assert (magsac_errors(opposite, Estimator()) > 170).all()
    side = np.where(np.arange(300)[:, None] % 2 == 0, [[0.6, 1.0]], [[0.97, 1.0]]).astype(np.float32)
    halves = PutativePair(pair.matches, side, pair.intrinsics, (rotation, -translation))
    assert filter_alone_error(halves, score_matches(ratio_network(), halves)) > 170


def test_reweighting_withstands_outliers_that_the_network_keeps() -> None:
    pair = made_pair(outliers=0.5)
    side = pair.side.copy()
    kept = np.flatnonzero(side[:, 0] > 0.9)[:5]
    side[kept] = [0.6, 1.0]  # some of what is kept is wrong
    fooled = PutativePair(pair.matches, side, pair.intrinsics, pair.pose)
    scored = score_matches(ratio_network(), fooled)
    assert filter_alone_error(fooled, scored) < 1.0
    assert filter_alone_error(fooled, scored, reweighted=False) > 2.0


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_matches_give_no_pose(count: int) -> None:
    pair = made_pair()
    few = PutativePair(pair.matches[:count], pair.side[:count], pair.intrinsics, pair.pose)
    scored = score_matches(ratio_network(), few)
    for error in (
        *magsac_errors(few, Estimator()),
        filter_alone_error(few, scored),
        eight_point_ransac_error(few, 1.0),
    ):
        assert error == np.inf


def test_matches_on_a_line_give_no_pose_of_the_filter_and_nothing_is_nan() -> None:
    pair = made_pair(outliers=0.0, noise=0.0)
    t = np.linspace(0, 1, 300)[:, None]
    line = np.c_[100 + 300 * t, 100 + 200 * t, 120 + 300 * t, 90 + 200 * t]
    side = pair.side.copy()
    side[::2, 0] = 0.97
    degenerate = PutativePair(line, side, pair.intrinsics, pair.pose)
    scored = score_matches(ratio_network(), degenerate)
    assert all(t.isfinite().all() for t in scored)
    assert not np.isnan(filter_alone_error(degenerate, scored))


def test_evaluation_has_a_column_of_filtered_poses(tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    weights = tmp_path / "filter.safetensors"
    save_file({f"correspondence.{n}": t for n, t in ratio_network().state_dict().items()}, weights)
    scene = PosedScene.load(write_plane_scene(tmp_path / "plane"))
    from kornia_lift.evaluation.features.files import FeatureStore

    path = write_perfect(tmp_path / "f.h5", scene.name, names=(scene.names[0], scene.names[1]))
    with FeatureStore(path) as source:
        plain = evaluate(source, [scene], Options())
        filtered = evaluate(source, [scene], Options(filter=str(weights)))
    for before, after in zip(plain, filtered, strict=True):
        added = after.values.keys() - before.values.keys()
        assert {"pose_auc_5_filtered", "pose_error_filter_alone", "filtered_matches"} <= added
        assert all(after.values[name] == value for name, value in before.values.items())
        assert after.values["filtered_matches"] <= after.values["matches"]
