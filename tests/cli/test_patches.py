"""``kornia-lift patches``: DeepDesc's protocol on patches of known points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kornia_lift.evaluation.deepdesc_protocol import NEGATIVES, POINTS, PUBLISHED, load_descriptor, run_protocol
from kornia_lift.evaluation.measures.patch_retrieval import retrieval_pairs
from kornia_lift.scenes.patch_sets import BROWN_GRID, BROWN_PATCH, PatchSet
from tests.helpers.cli import Call, one_line


def patch_set(points: int = 12, noise: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    """Two noisy views of each of some random patches."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (points, 8, 8)).repeat(8, 1).repeat(8, 2)
    views = coarse[:, None] + rng.normal(0, noise, (points, 2, 64, 64))
    return views.clip(0, 255).astype(np.uint8).reshape(-1, 64, 64), np.arange(points).repeat(2)


def test_protocol_is_that_of_the_paper() -> None:
    assert (POINTS, NEGATIVES) == (10_000, 1000)
    ids = np.arange(30).repeat(3)
    pairs, same = retrieval_pairs(ids, negatives=5, points=7)
    assert same.sum() == 7
    assert len(pairs) == 7 * 6
    assert (ids[pairs[same][:, 0]] == ids[pairs[same][:, 1]]).all()
    assert len(set(ids[pairs[same][:, 0]])) == 7
    assert (ids[pairs[~same][:, 0]] != ids[pairs[~same][:, 1]]).all()
    assert set(ids[pairs[~same][:, 0]]) == set(ids[pairs[same][:, 0]])


def test_distinct_patches_are_told_apart_and_random_ones_are_not() -> None:
    patches, ids = patch_set()
    good = run_protocol(PatchSet(patches, ids), load_descriptor("sift"), negatives=10)
    noise = np.random.default_rng(1).integers(0, 255, patches.shape).astype(np.uint8)
    bad = run_protocol(PatchSet(noise, ids), load_descriptor("sift"), negatives=10)
    assert good.pr_auc > 0.95
    assert bad.pr_auc < 0.4


def test_command_prints_published_figures_beside_ours(call: Call, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    patches, ids = patch_set()
    folder = tmp_path / "liberty"
    folder.mkdir()
    sheet = np.zeros((BROWN_GRID * BROWN_PATCH, BROWN_GRID * BROWN_PATCH), np.uint8)
    for k, patch in enumerate(patches):
        row, column = divmod(k, BROWN_GRID)
        sheet[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64] = patch
    image.fromarray(sheet).save(folder / "patches0000.bmp")
    (folder / "info.txt").write_text("".join(f"{i} 0\n" for i in ids))
    np.savez(tmp_path / "mine.npz", patches=patches, point_ids=ids)
    answer = call("patches", folder, tmp_path / "mine.npz", "-d", "sift", "lift", "--negatives", 10)
    assert answer.code == 0
    lines = {line.split("  ")[0].strip(): line.split()[-2:] for line in answer.out.splitlines()}
    assert lines["PR-AUC"] == ["liberty", "mine"]
    assert lines["DeepDesc, published"] == [f"{PUBLISHED['DeepDesc']['liberty']:.3f}", "-"]
    assert lines["sift"][0] == lines["sift"][1]
    assert "liberty: 12 matching, 120 other pairs" in answer.out


@pytest.mark.parametrize("wrong", ["nothing", "missing.t7", "lift-plus"])
def test_wrong_descriptor_is_said(call: Call, tmp_path: Path, wrong: str) -> None:
    patches, ids = patch_set()
    np.savez(tmp_path / "mine.npz", patches=patches, point_ids=ids)
    answer = call("patches", tmp_path / "mine.npz", "-d", wrong)
    assert answer.code == 2
    assert wrong in one_line(answer.err)
