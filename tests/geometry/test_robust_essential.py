"""The essential matrix by reweighting: exact where it is determined, zero where it is not, never NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from kornia_lift.geometry.epipolar import robust_essential, weighted_eight_point


def made(count: int = 120, noise: float = 0.0, plane: bool = False, moved: bool = True) -> tuple[Tensor, Tensor]:
    """Matches in normalised coordinates and their essential matrix of unit norm."""
    rng = np.random.default_rng(0)
    angle = 0.2
    rotation = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    translation = np.array([1.0, 0.2, 0.1]) * moved
    first = rng.uniform(-0.5, 0.5, (count, 2))
    depth = np.full((count, 1), 5.0) if plane else rng.uniform(4, 8, (count, 1))
    points = (np.c_[first, np.ones(count)] * depth) @ rotation.T + translation
    second = points[:, :2] / points[:, 2:] + rng.normal(0, noise, (count, 2))
    x, y, z = translation
    e = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ rotation
    essential = torch.from_numpy(e / max(np.linalg.norm(e), 1e-12))
    return torch.from_numpy(np.c_[first, second]), essential


def difference(found: Tensor, true: Tensor) -> float:
    return float(torch.minimum((found - true).norm(), (found + true).norm()))


def test_exact_matches_give_the_matrix() -> None:
    matches, essential = made()
    found = robust_essential(matches, torch.ones(len(matches)))
    assert difference(found, essential) < 1e-8
    values = torch.linalg.svdvals(found)
    assert abs(float(values[0] - values[1])) < 1e-9
    assert float(values[2]) < 1e-9


def test_outliers_with_weight_are_withstood() -> None:
    matches, essential = made(noise=3e-4)
    matches = matches.clone()
    matches[:24, 2:] = torch.rand(24, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5
    weights = torch.ones(len(matches))
    weights[:24] = 0.7  # the network is less sure of them
    assert difference(robust_essential(matches, weights), essential) < 0.03
    plain = weighted_eight_point(matches[None], weights[None]).essential[0]
    assert difference(plain, essential) > 0.3
    weights[:24] = 0
    assert difference(robust_essential(matches, weights), essential) < 0.03


@pytest.mark.parametrize("count", [0, 5, 7])
def test_fewer_than_eight_matches_have_none(count: int) -> None:
    matches, _ = made()
    assert (robust_essential(matches[:count], torch.ones(count)) == 0).all()
    few = torch.zeros(len(matches))
    few[:count] = 1
    assert (robust_essential(matches, few) == 0).all()


def on_a_line() -> Tensor:
    t = torch.linspace(-0.4, 0.4, 50, dtype=torch.float64)
    return torch.stack([t, 0.3 * t, t + 0.1, 0.3 * t - 0.05], 1)


@pytest.mark.parametrize(
    "matches",
    [on_a_line(), made(plane=True)[0], made(moved=False)[0], torch.zeros(20, 4, dtype=torch.float64)],
    ids=["line", "plane", "pure rotation", "one point"],
)
def test_degenerate_matches_have_none(matches: Tensor) -> None:
    assert (robust_essential(matches, torch.ones(len(matches))) == 0).all()
    noisy = matches + 1e-4 * torch.randn(matches.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert robust_essential(noisy, torch.ones(len(matches))).isfinite().all()
