"""Variation of matched pairs: what was an inlier stays one, what is left out is what was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import Generator

from kornia_lift.training.correspondences.augmentation import KEPT_MATCHES, choose_matches, move_cameras
from kornia_lift.training.correspondences.config import AugmentationConfig
from kornia_lift.training.correspondences.losses import epipolar_labels
from tests.helpers.training import matched_pair

OFF = AugmentationConfig(0, 0, 0, 0, 0, 0, 0, 0, 0)
MOVES = {
    "mirror": {"mirror": 1.0},
    "roll": {"roll": 30.0},
    "any roll": {"any_roll": 1.0},
    "tilt": {"tilt": 8.0},
    "focal length": {"focal": 0.3},
    "focal lengths apart": {"focal_apart": 0.3},
}


def generator(seed: int = 0) -> Generator:
    return torch.Generator().manual_seed(seed)


def residual(matches: torch.Tensor, essential: torch.Tensor) -> torch.Tensor:
    """p2^T E p1 of every match, for E of unit norm."""
    one = torch.ones(len(matches), 1, dtype=matches.dtype)
    first, second = (torch.cat([p, one], 1) for p in matches.split(2, 1))
    return torch.einsum("ni,ij,nj->n", second, essential / essential.norm(), first).abs()


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("seed", range(3))
def test_the_essential_matrix_follows_the_cameras(name: str, seed: int) -> None:
    pair = matched_pair(seed, outliers=0.0)
    options = AugmentationConfig(**(dict.fromkeys(vars(OFF), 0.0) | MOVES[name]))
    essential = pair.essential.float()
    moved, matrix = move_cameras(pair.matches, essential, generator(seed), options)
    assert (moved - pair.matches).abs().max() > 0.01
    assert residual(moved, matrix).max() < 1e-5
    assert float(matrix.norm()) == pytest.approx(1)
    values = torch.linalg.svdvals(matrix)
    assert values[2] < 1e-5 * values[0]
    if name != "focal lengths apart" and "focal" not in name:
        assert float(values[0] / values[1]) == pytest.approx(1, abs=1e-3)  # a rotation leaves an essential matrix


def test_nothing_changes_where_nothing_is_asked_for() -> None:
    pair = matched_pair(1)
    moved, matrix = move_cameras(pair.matches, pair.essential.float(), generator(), OFF)
    torch.testing.assert_close(moved, pair.matches)
    torch.testing.assert_close(matrix, (pair.essential / pair.essential.norm()).float())
    assert choose_matches(pair.matches, pair.side, pair.essential.float(), generator(), OFF).tolist() == list(
        range(100)
    )


def test_a_point_that_would_leave_the_view_keeps_the_cameras_where_they_are() -> None:
    pair = matched_pair(2, outliers=0.0)
    far = pair.matches.clone()
    far[0, 0] = 40.0  # a point nearly beside the camera
    moved, _ = move_cameras(
        far, pair.essential.float(), generator(), AugmentationConfig(0, 20.0, 0, 30.0, 0, 0, 0, 0, 0)
    )
    torch.testing.assert_close(moved, far)


def test_matches_are_left_out_by_what_they_are() -> None:
    pair = matched_pair(3, count=400)
    essential = pair.essential.float()
    inlier = epipolar_labels(pair.matches[None], essential[None])[0]
    mutual = pair.side[:, 1] > 0

    def kept(**options: float) -> torch.Tensor:
        config = AugmentationConfig(**(dict.fromkeys(vars(OFF), 0.0) | options))
        chosen = torch.zeros(400, dtype=torch.bool)
        chosen[choose_matches(pair.matches, pair.side, essential, generator(5), config)] = True
        return chosen

    assert (kept(mutual_only=1.0) == mutual).all()
    fewer = kept(fewer_inliers=1.0)
    assert fewer[~inlier].all() and 0 < int(fewer[inlier].sum()) < int(inlier.sum())
    fewer = kept(fewer_outliers=1.0)
    assert fewer[inlier].all() and 0 < int(fewer[~inlier].sum()) < int((~inlier).sum())


def test_too_few_matches_are_not_thinned_out() -> None:
    pair = matched_pair(4, count=KEPT_MATCHES)
    config = AugmentationConfig(0, 0, 0, 0, 0, 0, 1.0, 1.0, 1.0)
    chosen = choose_matches(pair.matches, pair.side, pair.essential.float(), generator(), config)
    assert len(chosen) == KEPT_MATCHES
