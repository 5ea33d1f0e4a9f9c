"""Patch sets and the measures of descriptors."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from kornia_lift.evaluation.measures.patch_retrieval import evaluate_descriptor, retrieval_pairs, score_distances
from kornia_lift.scenes.patch_sets import BROWN_GRID, BROWN_PATCH, PatchSet


def test_scores_by_hand() -> None:
    distance = np.concatenate([np.linspace(0, 1, 100), np.full(4, 0.5), np.full(4, 2.0)])
    same = np.arange(108) < 100
    found = score_distances(distance, same)
    assert (found.positives, found.negatives) == (100, 8)
    assert found.fpr95 == 0.5  # the 95th of the matching pairs lies at 0.949: four of eight lie below
    perfect = score_distances(np.array([0.1, 0.2, 0.9, 1.0]), np.array([True, True, False, False]))
    assert (perfect.pr_auc, perfect.fpr95) == (1.0, 0.0)
    with pytest.raises(ValueError, match="non-matching"):
        score_distances(np.ones(3), np.ones(3, bool))


def test_random_distances_score_chance() -> None:
    generator = np.random.default_rng(0)
    same = np.arange(22_000) < 2_000
    found = score_distances(generator.random(22_000), same)
    assert found.pr_auc == pytest.approx(1 / 11, abs=0.01)
    assert found.fpr95 == pytest.approx(0.95, abs=0.01)


def test_drawn_pairs_are_what_they_say() -> None:
    ids = np.random.default_rng(0).integers(0, 30, 200)
    pairs, same = retrieval_pairs(ids, negatives=5, seed=1)
    assert ((ids[pairs[:, 0]] == ids[pairs[:, 1]]) == same).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert (~same).sum() == 5 * same.sum()
    again, _ = retrieval_pairs(ids, negatives=5, seed=1)
    np.testing.assert_array_equal(pairs, again)
    with pytest.raises(ValueError, match="two patches"):
        retrieval_pairs(np.arange(5))


def test_brown_folder(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    side = BROWN_PATCH * BROWN_GRID
    base = generator.integers(0, 255, (BROWN_GRID**2 // 2, BROWN_PATCH, BROWN_PATCH), dtype=np.uint8)
    patches = np.repeat(base, 2, axis=0)  # patches 2k and 2k + 1 show point k
    sheet = patches.reshape(BROWN_GRID, BROWN_GRID, BROWN_PATCH, BROWN_PATCH).swapaxes(1, 2).reshape(side, side)
    cv2.imwrite(str(tmp_path / "patches0000.bmp"), sheet)
    count = 200
    (tmp_path / "info.txt").write_text("".join(f"{k // 2} 0\n" for k in range(count)))
    rows = [f"{2 * k} {k} 0 {2 * k + 1} {k} 0 0\n{2 * k} {k} 0 {2 * k + 2} {k + 1} 0 0\n" for k in range(50)]
    (tmp_path / "m50_100000_100000_0.txt").write_text("".join(rows))
    found = PatchSet.from_brown(tmp_path)
    np.testing.assert_array_equal(found.patches, patches[:count])
    assert found.same is not None
    assert found.same.sum() == 50
    scores = evaluate_descriptor(lambda p: p.flatten(1), found)
    assert (scores.pr_auc, scores.fpr95, scores.positives) == (1.0, 0.0, 50)
    with pytest.raises(ValueError, match="not finite"):
        evaluate_descriptor(lambda p: p.flatten(1) * torch.nan, found)
    (tmp_path / "info.txt").write_text("0 0\n" * 300)
    with pytest.raises(ValueError, match="256 of 300"):
        PatchSet.from_brown(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"info\.txt"):
        PatchSet.from_brown(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        PatchSet.from_brown(tmp_path / "nowhere")


def test_pairs_of_one_kind_are_refused() -> None:
    patches = PatchSet(np.zeros((4, 8, 8), np.uint8), np.array([0, 0, 1, 1]))
    for same in (np.ones(2, bool), np.zeros(2, bool), np.zeros(0, bool)):
        pairs = np.zeros((len(same), 2), np.int64)
        with pytest.raises(ValueError, match="matching and non-matching pairs are needed; got"):
            evaluate_descriptor(lambda p: p.flatten(1), patches, pairs, same)


def test_own_sets(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", patches=np.zeros((4, 8, 8), np.uint8), point_ids=np.array([0, 0, 1, 1]))
    assert evaluate_descriptor(lambda p: p.flatten(1), PatchSet.from_npz(tmp_path / "p.npz")).pr_auc == 0.5  # all tie
    np.savez(tmp_path / "q.npz", patches=np.zeros((4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="lacks the array 'point_ids'"):
        PatchSet.from_npz(tmp_path / "q.npz")
    with pytest.raises(ValueError, match="uint8"):
        PatchSet(np.zeros((4, 8, 8)), np.zeros(4, np.int64))  # type: ignore[arg-type]
