"""Relative pose from essential matrices, its errors, and mAP: the oracle and known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kornia_lift.evaluation.measures.relative_pose import (
    accuracy,
    mean_accuracy,
    pose_from_essential,
    rotation_error,
    translation_error,
)


def test_reproduces_the_oracle(shared: Path) -> None:
    o = np.load(shared / "oracles" / "cne_evaluation.npz")
    for n in range(5):
        assert rotation_error(o["R"][n], o["R_gt"]) == pytest.approx(o["err_rot_deg"][n], abs=1e-6)
        assert translation_error(o["t"][n], o["t_gt"]) == pytest.approx(o["err_trans_deg"][n], abs=1e-6)
    pose = pose_from_essential(o["E_noisy"], np.concatenate([o["x1"], o["x2"]], 1))
    assert pose is not None
    rotation, translation, in_front = pose
    assert np.abs(rotation - o["R_from_E"]).max() < 1e-9
    assert np.abs(translation - o["t_from_E"]).max() < 1e-9
    assert in_front == o["n_in_front"]
    for threshold, share, mean in zip(o["thresholds"].tolist(), o["accuracy"], o["mAP"], strict=True):
        assert accuracy(o["max_error_deg"], threshold) == pytest.approx(share)
        assert mean_accuracy(o["max_error_deg"], threshold) == pytest.approx(mean)


def test_the_sign_of_the_translation_does_not_count() -> None:
    t = np.array([0.6, 0.0, 0.8])
    assert translation_error(-t, t) == pytest.approx(0, abs=1e-6)
    assert translation_error(np.array([0.8, 0.0, -0.6]), t) == pytest.approx(90)


def test_nothing_gives_no_pose() -> None:
    assert pose_from_essential(np.zeros((3, 3)), np.random.default_rng(0).random((9, 4))) is None
    assert pose_from_essential(np.eye(3), np.zeros((0, 4))) is None
    with pytest.raises(ValueError, match="at least one pair"):
        accuracy([], 5)
